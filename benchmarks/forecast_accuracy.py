"""How close are learning curves predicted from one Gram matrix to regression that is really run, and at what cost?

    python benchmarks/forecast_accuracy.py --quick
    python benchmarks/forecast_accuracy.py --table docs/benchmarks.md

Kernels are those of `widthwise.infinite` for the package's own mlp and cnn; data sets that are not on this machine are
skipped. Errors are measured on examples that the prediction has not seen. Per split means one sample of P examples, as
a user has it; averaged means over splits, prediction and measurement alike, where less of the sampling noise is left.
The form of the extrapolation was chosen on other samples of the same data sets (all but the cnn on MNIST).
"""

import argparse
import json
import os
import platform
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from _accuracy_cases import DATA, FULL, MODELS, QUICK, Scale, load_all, make_case
from _accuracy_curves import averaged, extrapolation, in_range
from _accuracy_report import console_table, judge, markdown
from _accuracy_widths import cost, peaks, widths
from rich.console import Console

from widthwise.core import to_plain, write_text
from widthwise.data import load

Rows = dict[str, list[dict]]


def one_kernel(name: str, model: str, scale: Scale, seed: int) -> tuple[list[dict], list[dict]]:
    """Rows in range and beyond of one kernel on one data set."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    case = make_case(load(DATA[name]), name, model, scale, seed)
    return in_range(case, scale.trials), extrapolation(case, scale.trials)


def one_width(name: str, depth: int, samples: int, draws: int, seed: int) -> list[dict]:
    """Rows at finite width of one data set."""
    torch.set_num_threads(1)
    return widths(load(DATA[name]), name, depth, samples, draws, seed)


def run(names: list[str], scale: Scale, seed: int, quick: bool, console: Console) -> Rows:
    """Every row of every part, two processes of one thread each; what is timed runs alone."""
    rows: Rows = {name: [] for name in ("in range", "extrapolation", "widths", "cost")}
    began = time.perf_counter()
    featured = [name for name in ("digits", "fashion-mnist", "mnist") if name in names][: 2 if quick else 3]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        kernels = [(name, model) for model in reversed(MODELS) for name in reversed(names)]  # slowest first
        curves = [pool.submit(one_kernel, *kernel, scale, seed) for kernel in kernels]
        wide = [
            pool.submit(one_width, name, depth, 400 if quick else 800, scale.draws, seed)
            for name in featured
            for depth in (1, 2)
        ]
        for kernel, future in zip(kernels, curves, strict=True):
            inside, beyond = future.result()
            rows["in range"] += inside
            rows["extrapolation"] += beyond
            console.print(f"{time.perf_counter() - began:6.0f} s  {', '.join(kernel)}")
        for future in wide:
            rows["widths"] += future.result()
    console.print(f"{time.perf_counter() - began:6.0f} s  widths")
    for model in MODELS[: 1 if quick else 2] if "digits" in names else ():
        rows["cost"].append(cost(load("digits"), "digits", model, 128, (32, 128, 512)))
    if "fashion-mnist" in names and not quick:
        rows["cost"].append(cost(load("fashion-mnist"), "fashion-mnist", "mlp", 400, (100, 400, 1600)))
    rows["averaged in range"] = averaged(rows["in range"])
    rows["averaged extrapolation"] = averaged(rows["extrapolation"])
    rows["peaks"] = peaks(rows["widths"])
    return rows


def main() -> None:
    """Run everything, print the table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="under three minutes; small samples, so larger errors")
    parser.add_argument("--seed", type=int, default=7, help="of samples and networks")
    parser.add_argument("--data", nargs="*", help="only these data sets")
    parser.add_argument("--out", type=Path, default=Path("forecast_accuracy.json"), help="every row, as JSON")
    parser.add_argument("--table", type=Path, help="where to write a page of documentation")
    options = parser.parse_args()
    console, began = Console(width=120), time.perf_counter()
    torch.manual_seed(options.seed)
    data, missing = load_all()
    for sentence in missing:
        console.print(f"skipped: {sentence}")
    names = [name for name in data if not options.data or name in options.data]
    scale = QUICK if options.quick else FULL
    rows = run(names, scale, options.seed, options.quick, console)
    seconds = time.perf_counter() - began
    lines = judge(rows)
    console_table(console, lines)
    machine = f"{os.cpu_count()} CPU cores ({platform.machine()}), no GPU"
    command = "python benchmarks/forecast_accuracy.py" + (" --quick" if options.quick else "")
    header = {"command": command, "machine": machine, "seconds": seconds, "seed": options.seed, "data": names}
    console.print(f"{seconds:.0f} s on {machine}")
    result = to_plain({**header, "scale": vars(scale), "summary": lines, "rows": rows})
    write_text(options.out, json.dumps(result, indent=1))
    if options.table:
        write_text(options.table, markdown(header, scale, lines, rows))


if __name__ == "__main__":
    main()
