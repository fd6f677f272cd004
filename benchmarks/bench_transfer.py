"""Does the best learning rate stay where it is from width 64 to 1024? AdamW, spectral against standard.

    python benchmarks/bench_transfer.py                # GPT on characters of Python's standard library
    python benchmarks/bench_transfer.py --model mlp    # perceptron on Fashion-MNIST
    python benchmarks/bench_transfer.py --forms spectral --widths 64 128 256 --seeds 1

Forms: "standard", one learning rate for all weights; "spectral", the spectral condition in natural units, where every
weight starts and steps as the rule says, without a base (arXiv:2310.17813, section 5); "relative", the same rule but
relative to PyTorch's network of width 64, whose layers all step alike; "balanced", the perceptron's "relative" with the
rate of its input layer alone times 64/784, which is what the rule gives 784 inputs beside 64.

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
BARS = {"spectral": 0.5, "relative": 0.5, "balanced": 0.5, "standard": 3.0}
TITLES = {"gpt": "GPT", "mlp": "perceptron"}
FORMS = {
    "standard": "standard",
    "spectral": "spectral, natural units",
    "relative": "spectral, relative to width 64",
    "balanced": "the same, input layer's rate times 64/784",
}
KEPT_AS = {"standard": "standard", "spectral": "natural", "relative": "spectral", "balanced": "balanced"}
"""Form -> how its finished runs are called."""


def relative(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """A tenth of the steps up, the rest down to zero, the same factor for every group."""
    up = max(1, steps // 10)
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / up, (steps - step) / (steps - up)) if step < steps else 0.0
    )


def sweep(name: str, setting: Case, form: str, widths: list[int], seeds: int, keep: Path) -> TransferCheck:
    """Learning rates around the best one at every width: an octave to either side."""
    key = setting_key(name, setting.what, setting.batch_size, setting.steps, setting.data, widths[0], KEPT_AS[form])
    ledger = Ledger(keep / f"transfer-{name}-{KEPT_AS[form]}.json", key)
    low, high, per_octave = setting.lrs[form]
    rates = [2.0 ** (k / per_octave) for k in range(low * per_octave, high * per_octave + 1)]
    return transfer_check(
        setting.build, widths, setting.data, rates, scheme="standard" if form == "standard" else "spectral",
        natural_units=form == "spectral", steps=setting.steps, seeds=seeds, batch_size=setting.batch_size,
        schedule=lambda optimizer: relative(optimizer, setting.steps), around=per_octave,
        tolerance=BARS["spectral"], ledger=ledger, show_progress=True,
        overrides={"hidden1.weight": {"lr": 64 / 784}} if form == "balanced" else None,
    )  # fmt: skip


def record(check: TransferCheck, form: str, widths: list[int]) -> dict[str, Any]:
    """What is kept of one sweep; the bar is an upper one for spectral, a lower one for standard."""
    reach = abs(check.drift.total)
    passed = reach >= BARS[form] if form == "standard" else reach <= BARS[form]
    return {
        "bar_octaves": BARS[form], "passed": passed, "widths": widths, "seeds": check.losses.shape[1],
        "lrs": list(check.lrs), "optima": [best.to_dict() for best in check.optima], "drift": check.drift.to_dict(),
        "losses": [[[_plain(loss) for loss in row] for row in table] for table in check.losses],
    }  # fmt: skip


def _plain(loss: float) -> float | str | None:
    return None if math.isnan(loss) else "diverged" if math.isinf(loss) else round(float(loss), 6)


def table(results: dict[str, Any]) -> str:
    """The rows of docs/benchmarks.md."""
    rows = [
        "| network | parametrisation | seeds | best learning rate by width, octaves | lowest loss | "
        "drift over all widths, octaves | bar | |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for held in results.values():
        for form, found in held["forms"].items():
            drift, optima = found["drift"], found["optima"]
            places = ", ".join(
                f"{width}: {best['octaves']:.1f} ± {best['stderr']:.1f}"
                for width, best in zip(found["widths"], optima, strict=True)
            )
            rows.append(
                f"| {held['what']} | {FORMS[form]} | {found['seeds']} | {places} | "
                f"{optima[0]['loss']:.3f} to {optima[-1]['loss']:.3f} | "
                f"{drift['total']:+.2f} ± {drift['half_width']:.2f} | "
                f"{'at least' if form == 'standard' else 'at most'} {found['bar_octaves']} | "
                f"{'PASS' if found['passed'] else 'MISS'} |"
            )
    return "\n".join(rows)


def draw(results: dict[str, Any]) -> None:
    """Sweeps side by side, a row for each network, and how far their lowest points move."""
    count = len(FORMS)
    figure, grid = plt.subplots(len(results), count + 1, figsize=(4.2 * count + 5, 4 * len(results)), squeeze=False)
    for axes, (name, held) in zip(grid, results.items(), strict=True):
        levels = []
        for slot, form in enumerate(FORMS):
            if form not in held["forms"]:
                axes[slot].set_visible(False)
                continue
            levels += _curves(axes[slot], held["forms"][form], f"{TITLES[name]}\n{FORMS[form]}")
            _places(axes[-1], held["forms"][form], slot, FORMS[form])
        for axis in axes[:-1]:
            axis.set_ylim(min(levels) - 0.03 * np.ptp(levels), max(levels) + 0.03 * np.ptp(levels))
        axes[-1].axhspan(-0.5, 0.5, color="0.92", zorder=0)
        low, high = axes[-1].get_ylim()
        axes[-1].set_ylim(low - 0.45 * (high - low), high)  # room for the legend
        axes[-1].set(title=f"{TITLES[name]}\nwhere the lowest points lie", xlabel="width", xscale="log")
        axes[-1].set_xticks(list(WIDTHS), [str(width) for width in WIDTHS])
        axes[-1].minorticks_off()
        axes[-1].set_ylabel("octaves from width 64 (standard error)")
        axes[-1].legend(title="drift over all widths (95 %)", fontsize=7, loc="lower left")
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=110)


def _curves(axis: plt.Axes, found: dict[str, Any], title: str) -> list[float]:
    """Mean loss and its standard error by learning rate, a line for each width; the means."""
    colours, means = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(found["widths"]))), []
    for width, colour, rows in zip(found["widths"], colours, found["losses"], strict=True):
        numeric = np.array([[np.nan if not isinstance(x, float) else x for x in row] for row in rows])
        keep = np.isfinite(numeric).all(0)
        error = numeric.std(0, ddof=1) / len(numeric) ** 0.5 if len(numeric) > 1 else np.zeros(len(keep))
        mean = numeric.mean(0)[keep]
        axis.errorbar(np.array(found["lrs"])[keep], mean, error[keep], marker="o", ms=3, color=colour, label=width)
        means += mean.tolist()
    unit = "relative change per step" if "natural" in title else "at width 64"
    axis.set(title=title, xlabel=f"learning rate ({unit})", ylabel="training loss at the end")
    axis.set_xscale("log", base=2)
    axis.legend(title="width", fontsize=8)
    return means


def _places(axis: plt.Axes, found: dict[str, Any], slot: int, label: str) -> None:
    places, errors = ([best[key] for best in found["optima"]] for key in ("octaves", "stderr"))
    drift = found["drift"]
    shifted = [width * 1.03 ** (slot - 1) for width in found["widths"]]
    axis.errorbar(
        shifted, np.array(places) - places[0], errors, marker="o", capsize=3, color=f"C{slot}",
        label=f"{label}: {drift['total']:+.2f} ± {drift['half_width']:.2f}",
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("gpt", "mlp"), default="gpt")
    parser.add_argument("--forms", choices=tuple(FORMS), nargs="+", default=["standard", "spectral", "relative"])
    parser.add_argument("--widths", type=int, nargs="+", default=list(WIDTHS))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--keep", type=Path, default=ROOT / "benchmarks" / "results" / "runs")
    parser.add_argument("--draw", action="store_true", help="only the table and the figure, from transfer.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for form in [] if options.draw else options.forms:
        setting, started = case(options.model), time.process_time()
        check = sweep(options.model, setting, form, options.widths, options.seeds, options.keep)
        print(form, check, f"{time.process_time() - started:.0f} s of processor time", sep="\n", flush=True)
        held = results.setdefault(options.model, {}) | {
            "what": setting.what, "optimizer": "adamw", "steps": setting.steps, "batch_size": setting.batch_size,
        }  # fmt: skip
        forms = held.get("forms", {}) | {form: record(check, form, options.widths)}
        results[options.model] = held | {"forms": {name: forms[name] for name in FORMS if name in forms}}
        write_text(RESULT, json.dumps(results, indent=1) + "\n")
    print(table(results))
    draw(results)


if __name__ == "__main__":
    main()
