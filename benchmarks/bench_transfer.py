"""Does the best learning rate stay where it is from width 64 to 1024? AdamW, spectral against standard.

    python benchmarks/bench_transfer.py                # GPT on characters of Python's standard library
    python benchmarks/bench_transfer.py --model mlp    # perceptron on Fashion-MNIST
    python benchmarks/bench_transfer.py --widths 64 128 256 --seeds 1

Every finished run is kept in `--keep`, so that an interrupted call goes on where it stopped, and one with more seeds or
widths runs only what is new. Writes benchmarks/results/transfer.json and docs/assets/transfer.png.
"""

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from _transfer_models import Case, case

from widthwise.core import write_text
from widthwise.scaling import Ledger, TransferCheck, setting_key, transfer_check

ROOT = Path(__file__).parents[1]
RESULT, PICTURE = ROOT / "benchmarks" / "results" / "transfer.json", ROOT / "docs" / "assets" / "transfer.png"
WIDTHS = (64, 128, 256, 512, 1024)
BARS = {"spectral": 0.5, "standard": 3.0}
TITLES = {"gpt": "GPT", "mlp": "perceptron"}


def relative(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """A tenth of the steps up, the rest down to zero, the same factor for every group."""
    up = max(1, steps // 10)
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / up, (steps - step) / (steps - up)) if step < steps else 0.0
    )


def sweep(name: str, setting: Case, scheme: str, widths: list[int], seeds: int, keep: Path) -> TransferCheck:
    """Three learning rates or more around the best one at every width, an octave apart."""
    key = setting_key(name, setting.what, setting.batch_size, setting.steps, setting.data, widths[0], scheme)
    ledger = Ledger(keep / f"transfer-{name}-{scheme}.json", key)
    low, high = setting.lrs
    return transfer_check(
        setting.build, widths, setting.data, [2.0**k for k in range(low, high + 1)], scheme=scheme, steps=setting.steps,
        seeds=seeds, batch_size=setting.batch_size, schedule=lambda optimizer: relative(optimizer, setting.steps),
        around=1, tolerance=BARS["spectral"], ledger=ledger, show_progress=True,
    )  # fmt: skip


def record(check: TransferCheck, scheme: str) -> dict[str, Any]:
    """What is kept of one sweep; the bar is an upper one for spectral, a lower one for standard."""
    reach = abs(check.drift.total)
    passed = reach <= BARS[scheme] if scheme == "spectral" else reach >= BARS[scheme]
    plain = check.to_dict()
    plain["losses"] = [[[_plain(loss) for loss in row] for row in table] for table in check.losses]
    return {"bar_octaves": BARS[scheme], "passed": passed, "sweep": plain}


def _plain(loss: float) -> float | str | None:
    return None if math.isnan(loss) else "diverged" if math.isinf(loss) else round(float(loss), 6)


def table(results: dict[str, Any]) -> str:
    """The rows of docs/benchmarks.md."""
    rows = [
        "| network | scheme | seeds | best learning rate by width, octaves | drift over all widths, octaves | bar | |"
    ]
    rows.append("| --- | --- | --- | --- | --- | --- | --- |")
    for held in results.values():
        for scheme, found in held["schemes"].items():
            sweep, bound = found["sweep"], "at most" if scheme == "spectral" else "at least"
            drift = sweep["drift"]
            places = ", ".join(
                f"{width}: {best['octaves']:.1f} ± {best['stderr']:.1f}"
                for width, best in zip(sweep["widths"], sweep["optima"], strict=True)
            )
            rows.append(
                f"| {held['what']} | {scheme} | {held['seeds']} | {places} | "
                f"{drift['total']:+.2f} ± {drift['half_width']:.2f} | {bound} {found['bar_octaves']} | "
                f"{'PASS' if found['passed'] else 'MISS'} |"
            )
    return "\n".join(rows)


def draw(results: dict[str, Any]) -> None:
    """Sweeps side by side, a row for each network, and where their lowest points lie."""
    figure, grid = plt.subplots(len(results), 3, figsize=(13, 4 * len(results)), squeeze=False)
    for axes, (name, held) in zip(grid, results.items(), strict=True):
        for slot, (axis, (scheme, found)) in enumerate(zip(axes, held["schemes"].items(), strict=False)):
            sweep = found["sweep"]
            colours = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(sweep["widths"])))
            for width, colour, rows in zip(sweep["widths"], colours, sweep["losses"], strict=True):
                numeric = np.array([[np.nan if not isinstance(x, float) else x for x in row] for row in rows])
                keep = np.isfinite(numeric).all(0)
                error = numeric.std(0, ddof=1) / len(numeric) ** 0.5 if len(numeric) > 1 else np.zeros(len(keep))
                rates = np.array(sweep["lrs"])[keep]
                axis.errorbar(rates, numeric.mean(0)[keep], error[keep], marker="o", ms=3, color=colour, label=width)
            axis.set(title=f"{TITLES[name]}, {scheme}", xlabel="learning rate at the base width", xscale="log")
            axis.set_ylabel("training loss at the end (mean, standard error)")
            axis.legend(title="width", fontsize=8)
            places, errors = ([best[key] for best in sweep["optima"]] for key in ("octaves", "stderr"))
            drift = sweep["drift"]
            label = f"{scheme}: {drift['total']:+.2f} ± {drift['half_width']:.2f} octaves"
            axes[2].errorbar(sweep["widths"], places, errors, marker="o", capsize=3, color=f"C{slot}", label=label)
        shared = [axis.get_xlim() for axis in axes[:2]]
        for axis in axes[:2]:
            axis.set_xlim(min(low for low, _ in shared), max(high for _, high in shared))
        axes[2].set(title=f"{TITLES[name]}: where the lowest points lie", xlabel="width", xscale="log")
        axes[2].set_xticks(held["widths"], [str(width) for width in held["widths"]])
        axes[2].minorticks_off()
        axes[2].set_ylabel("best learning rate, octaves (standard error)")
        axes[2].legend(title="drift over all widths (95 %)", fontsize=8)
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("gpt", "mlp"), default="gpt")
    parser.add_argument("--widths", type=int, nargs="+", default=list(WIDTHS))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--keep", type=Path, default=ROOT / "benchmarks" / "results" / "runs")
    parser.add_argument("--draw", action="store_true", help="only the table and the figure, from transfer.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    if not options.draw:
        setting, started = case(options.model), time.perf_counter()
        found = {
            scheme: sweep(options.model, setting, scheme, options.widths, options.seeds, options.keep)
            for scheme in ("standard", "spectral")
        }
        results[options.model] = {
            "what": setting.what, "optimizer": "adamw", "steps": setting.steps, "batch_size": setting.batch_size,
            "widths": options.widths, "seeds": options.seeds, "seconds": round(time.perf_counter() - started, 1),
            "schemes": {scheme: record(check, scheme) for scheme, check in found.items()},
        }  # fmt: skip
        for scheme, check in found.items():
            print(scheme, check, sep="\n")
        write_text(RESULT, json.dumps(results, indent=1) + "\n")
    print(table(results))
    draw(results)


if __name__ == "__main__":
    main()
