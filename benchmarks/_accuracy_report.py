"""Rows to lines with targets; lines to a table on the terminal and to a page of documentation."""

from collections.abc import Callable

import numpy as np
from _accuracy_cases import Scale
from rich.console import Console
from rich.table import Table

Rows = dict[str, list[dict]]
COST_TARGET = 1 / 20


def judge(rows: Rows) -> list[dict]:
    """One line per question: median and worst of an absolute error, their targets, and whether they were met."""
    lines = []

    def add(what: str, part: list[dict], key: str = "error", median: float | None = None, worst: float | None = None):
        values = np.abs([row[key] for row in part])
        if len(values):
            found = {"median": float(np.median(values)), "worst": float(values.max())}
            targets = {"median_target": median, "worst_target": worst}
            lines.append({"what": what, **found, **targets, "cases": len(values)})

    for prefix, title in (("averaged ", "averaged over splits"), ("", "per split")):
        for tuning in ("zero", "optimal"):
            part = [row for row in rows[f"{prefix}in range"] if row["tuning"] == tuning]
            add(f"in range, {tuning} ridge, {title}: test error", part, median=0.03, worst=0.08)
            add(f"in range, {tuning} ridge, {title}: accuracy", part, "accuracy_error", median=0.015)
            if not prefix:
                add(f"in range, {tuning} ridge, {title}: theory without calibration", part, "uncalibrated")
        far = [row for row in rows[f"{prefix}extrapolation"] if row["factor"] == 8]
        add(f"P to 8 P, {title}: test error", far, median=0.08)
    for factor in (2, 4):
        part = [row for row in rows["extrapolation"] if row["factor"] == factor]
        add(f"P to {factor} P, per split: test error", part)
    add("P to 8 P, per split: power law with offset (baseline)", far, "offset_fit")
    add("P to 8 P, per split: last measured slope (baseline)", far, "last_slope")
    add("P to 8 P, per split: accuracy", far, "accuracy_error")
    for depth in (1, 2):
        part = [row for row in rows["widths"] if row["depth"] == depth and row["ridge"] > 0.01]
        away = [row for row in part if abs(np.log(row["n"] / row["width"])) > 0.5]
        add(f"finite width, {depth} hidden, ridge 0.1, away from n = width", away, median=0.08)
        sharp = [row for row in rows["widths"] if row["depth"] == depth and row["ridge"] < 0.01]
        add(f"finite width, {depth} hidden, ridge 1e-4, away from n = width",
            [row for row in sharp if abs(np.log(row["n"] / row["width"])) > 0.5], median=0.08)  # fmt: skip
    return lines + _shares(rows)


def _shares(rows: Rows) -> list[dict]:
    lines = []

    def add(what: str, value: float, passed: bool | None, target: str, cases: int) -> None:
        lines.append({"what": what, "value": float(value), "passed": passed, "target": target, "cases": cases})

    beyond = [row for row in rows["extrapolation"] if row["factor"] == 8]
    for what, part in (("in range", rows["in range"]), ("P to 8 P", beyond), ("finite width", rows["widths"])):
        if part:
            share = np.mean([row["covered"] for row in part])
            add(f"coverage of the 95 % interval, {what}", share, share >= 0.9, "90 %", len(part))
    for depth in (1, 2):
        part = [row for row in rows["peaks"] if row["depth"] == depth]
        if part:
            share = np.mean([row["steps"] <= 1 for row in part])
            add(f"double-descent peak within one step of the width grid, {depth} hidden", share, share == 1, "100 %",
                len(part))  # fmt: skip
    for row in rows["cost"]:
        what = f"cost of the forecast over cost of training, {row['data']}, {row['model']}"
        add(what, row["ratio"], row["ratio"] <= COST_TARGET, "at most 5 %", 1)
    return lines


def cells(line: dict) -> tuple[str, ...]:
    """What, median or value, target, worst, target, cases."""
    if "value" in line:
        mark = "" if line["passed"] is None else (" PASS" if line["passed"] else " MISS")
        return line["what"], f"{line['value']:.1%}", line["target"] + mark, "", "", str(line["cases"])
    parts = [line["what"]]
    for key in ("median", "worst"):
        target = line[f"{key}_target"]
        mark = "" if target is None else f"{target:.1%} " + ("PASS" if line[key] <= target else "MISS")
        parts += [f"{line[key]:.1%}", mark]
    return (*parts, str(line["cases"]))


def console_table(console: Console, lines: list[dict]) -> None:
    """Print every line."""
    table = Table(title="Prediction against measurement (absolute errors)")
    for column in ("what", "median or value", "target", "worst", "target", "cases"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for line in lines:
        table.add_row(*cells(line))
    console.print(table)


def markdown(header: dict, scale: Scale, lines: list[dict], rows: Rows) -> str:
    """A page: what was run, the summary, and one row per kernel."""
    text = PAGE.format(
        machine=header["machine"], command=header["command"], minutes=header["seconds"] / 60,
        data=", ".join(header["data"]), mlp=scale.samples["mlp"], cnn=scale.samples["cnn"],
        small_mlp=scale.small["mlp"], small_cnn=scale.small["cnn"], splits=scale.splits,
        noise=_noise(rows),
    )  # fmt: skip
    text += _table(("what", "median or value", "target", "worst", "target", "cases"), [cells(line) for line in lines])
    misses = [line["what"] for line in lines if "MISS" in " ".join(cells(line))]
    text += f"\nMissed: {'; '.join(misses)}.\n" if misses else "\nNothing was missed.\n"
    return text + BY_KERNEL + _by_kernel(rows) + COST + _cost(rows)


def _noise(rows: Rows) -> str:
    part = rows["in range"] + rows["extrapolation"]
    training, points = (100 * np.median([row[key] for row in part]) for key in ("stderr", "test_stderr"))
    return f"{training:.1f} % from the random training sets and {points:.1f} % from the finite number of test points"


def _by_kernel(rows: Rows) -> str:
    result = []
    for data, model in dict.fromkeys((row["data"], row["model"]) for row in rows["in range"]):

        def pick(name: str, where: Callable[[dict], bool], key: str = "error") -> str:
            part = [abs(r[key]) for r in rows[name] if (r["data"], r["model"]) == (data, model) and where(r)]  # noqa: B023
            return f"{np.median(part):.1%} / {max(part):.1%}"

        result.append((
            data, model, pick("in range", lambda r: r["tuning"] == "zero"),
            pick("in range", lambda r: r["tuning"] == "zero", "uncalibrated"),
            pick("in range", lambda r: r["tuning"] == "optimal"),
            pick("extrapolation", lambda r: r["factor"] == 8),
            pick("averaged extrapolation", lambda r: r["factor"] == 8),
            pick("extrapolation", lambda r: r["factor"] == 8, "offset_fit"),
        ))  # fmt: skip
    head = ("data", "model", "zero ridge", "the same, uncalibrated", "optimal ridge", "8 P", "8 P, averaged",
            "8 P, offset fit")  # fmt: skip
    return _table(head, result)


def _cost(rows: Rows) -> str:
    result = []
    for row in rows["cost"]:
        runs = zip(row["timed_sizes"], row["training_seconds"], row["training_steps"], strict=True)
        timed = ", ".join(f"{n}: {seconds:.1f} s, {steps} steps" for n, seconds, steps in runs)
        numbers = (str(row["P"]), f"{row['forecast_seconds']:.1f}", f"{row['curve_seconds']:.1f}")
        result.append((row["data"], row["model"], *numbers, timed, f"1/{1 / row['ratio']:.0f}"))
    return _table(("data", "model", "P", "forecast, s", "training, s", "timed (n: seconds, steps)", "ratio"), result)


def _table(head: tuple[str, ...], body: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *body]
    return "\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


PAGE = """# Benchmarks

## Accuracy of the forecast

How close are learning curves predicted from one Gram matrix to regression that is really run? Kernels are those of
`widthwise.infinite` for the package's `mlp` and `cnn`; data: {data}.

- Machine: {machine}, shared with other work. Command: `{command}`, {minutes:.0f} minutes. Every row is in
  `benchmarks/results/forecast_accuracy.json`.
- In range: P = {mlp} (mlp) or {cnn} (cnn), n = 30 to P/2. Beyond: P = {small_mlp} (mlp) or {small_cnn} (cnn) to 8 P;
  digits has only 1797 images, so its P is at most 599 in range and 149 beyond.
- Measured on examples that the prediction has not seen. The median standard error of a measured error is {noise}.
- *Per split* is one sample of P examples, as a user has it; *averaged* is over {splits} splits, prediction and
  measurement alike.
- At zero ridge, in range, the theory is calibrated by leave-one-out errors of disjoint blocks of the sample;
  *uncalibrated* shows the theory before that.
- The forms and weights of the extrapolation were chosen after comparing alternatives on other samples (P = 112 to 500)
  of digits, MNIST-1D, Fashion-MNIST and MNIST, with the mlp on all four and the cnn on the first three. Only the cnn on
  MNIST had no part in it. The samples of this run are drawn anew, but on digits they come from the same 1797 images.
"""

BY_KERNEL = """
### By kernel

Absolute relative errors of the test error, median / worst, per split unless it says otherwise.
"""

COST = """
### Cost

Forecast: Gram matrix, fit, and the curve from P/16 to 8 P at two ridges. Training: one network at each size named, Adam
with full batches until the training MSE is 0.01 or 2000 steps. The whole curve is eight sizes from P/16 to 8 P with
three
seeds each; it was not all run: times are interpolated between the timed sizes and held constant outside them. Other
work on the machine makes single timings uncertain by a factor of a few.
"""
