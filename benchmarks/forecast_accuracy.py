"""How close are the learning curves that one Gram matrix predicts to kernel regression that is really run?

    python benchmarks/forecast_accuracy.py --quick --out forecast_accuracy.json

Each row predicts from P samples and measures on subsets of samples that the prediction has not seen as test points.
Baselines for extrapolation see what a user would have: errors of subsets of the same P samples, a quarter held out.
"""

import argparse
import gzip
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.optimize import curve_fit
from sklearn.datasets import load_digits

from widthwise.core import to_plain, write_text
from widthwise.theory import TaskSpectrum, measure_kernel_regression

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]


def relu_kernel(depth: int, kind: str) -> Kernel:
    """NNGP or NTK of a dense ReLU network with `depth` hidden layers, no bias (arc-cosine recursion)."""

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        width = a.shape[1]
        norm = np.sqrt(np.outer((a**2).sum(1), (b**2).sum(1))) / width
        nngp = a @ b.T / width
        ntk = nngp.copy()
        for _ in range(depth):
            cosine = np.clip(nngp / norm, -1, 1)
            angle = np.arccos(cosine)
            slope = (np.pi - angle) / np.pi
            nngp = norm * (np.sqrt(1 - cosine**2) / np.pi + slope * cosine)
            ntk = ntk * slope + nngp
        return ntk if kind == "ntk" else nngp

    return kernel


# The kernels under test. Kernels of `widthwise.infinite` (dense and convolutional) are to be added here.
KERNELS: dict[str, Kernel] = {
    "dense NTK, depth 1": relu_kernel(1, "ntk"),
    "dense NTK, depth 3": relu_kernel(3, "ntk"),
    "dense NNGP, depth 1": relu_kernel(1, "nngp"),
}


def load(name: str, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Globally standardised inputs and labels, in a fixed random order."""
    if name == "digits":
        x, y = load_digits(return_X_y=True)
    elif name == "mnist1d":
        from mnist1d.data import get_dataset_args, make_dataset

        options = get_dataset_args()
        options.num_samples = 9000
        made = make_dataset(options)
        x, y = np.concatenate([made["x"], made["x_test"]]), np.concatenate([made["y"], made["y_test"]])
    else:
        x, y = (_idx(folder / f"train-{part}-ubyte.gz") for part in ("images-idx3", "labels-idx1"))
    x = x.reshape(len(x), -1).astype(float)
    order = np.random.default_rng(0).permutation(len(x))
    return ((x - x.mean()) / x.std())[order], y[order].astype(int)


def _idx(path: Path) -> np.ndarray:
    raw = gzip.decompress(path.read_bytes())
    shape = [int.from_bytes(raw[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(raw[3])]
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)


def one_hot(y: np.ndarray, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows minus the class frequencies of the first `samples`, and those."""
    rows = np.eye(y.max() + 1)[y]
    return rows - rows[:samples].mean(0), rows[:samples].mean(0)


def in_range(x: np.ndarray, y: np.ndarray, kernel: Kernel, samples: int, trials: int, seed: int) -> list[dict]:
    """Prediction from P samples for n = 30 .. P/2, at zero and at the predicted optimal ridge."""
    order = np.random.default_rng(seed).permutation(len(x))
    x, y = x[order], y[order]
    targets, frequencies = one_hot(y, samples)
    gram = kernel(x, x)
    task = TaskSpectrum.fit(
        gram[:samples, :samples], targets[:samples], labels=y[:samples], frequencies=frequencies, seed=seed
    )
    sizes = np.geomspace(30, samples // 2, 5).astype(int)
    rows = []
    for tuning in ("zero", "optimal"):
        found = task.risk(sizes.astype(float), tuning)
        # Train on the P samples and test on all others: the sample's own peculiarity is part of the prediction error.
        rest = np.arange(samples, len(x))
        half = len(rest) // 2
        fresh, test = rest[:half], rest[half:]
        if half < sizes[-1]:
            fresh, test = np.arange(samples), rest
        measured = measure_kernel_regression(
            gram[np.ix_(fresh, fresh)], targets[fresh], gram[np.ix_(test, fresh)], targets[test], sizes,
            found.ridge[:, None], trials=trials, seed=seed, labels=y[test], frequencies=frequencies,
        )  # fmt: skip
        for i, n in enumerate(sizes):
            truth = measured.test[i, 0]
            rows.append({
                "n": int(n), "ridge": tuning, "predicted": found.test[i], "measured": truth,
                "error": found.test[i] / truth - 1, "covered": bool(found.low[i] <= truth <= found.high[i]),
                "accuracy_error": found.accuracy[i] - measured.accuracy[i, 0],
            })  # fmt: skip
    return rows


def extrapolation(x: np.ndarray, y: np.ndarray, kernel: Kernel, samples: int, seed: int) -> list[dict]:
    """P -> 2P, 4P, 8P at zero ridge, with two baselines that see subsets of the P samples."""
    order = np.random.default_rng(seed).permutation(len(x))
    x, y = x[order], y[order]
    targets, frequencies = one_hot(y, samples)
    top = 8 * samples
    gram = kernel(x[:top], x[:top])
    test_gram = kernel(x[top : top + 2000], x[:top])
    task = TaskSpectrum.fit(
        gram[:samples, :samples], targets[:samples], labels=y[:samples], frequencies=frequencies, seed=seed
    )
    sizes = samples * np.array([2, 4, 8])
    found = task.risk(sizes.astype(float))
    measured = measure_kernel_regression(
        gram, targets[:top], test_gram, targets[top : top + 2000], sizes, trials=2, seed=seed,
        labels=y[top : top + 2000], frequencies=frequencies,
    )  # fmt: skip
    train = 3 * samples // 4
    subset_sizes = (train / np.array([16, 8, 4, 2, 1])).astype(int)
    subset = measure_kernel_regression(
        gram[:train, :train], targets[:train], gram[train:samples, :train], targets[train:samples], subset_sizes,
        trials=8, seed=seed,
    ).test[:, 0]  # fmt: skip
    offset, slope = _baselines(subset_sizes.astype(float), subset)
    truth = measured.test[:, 0]
    return [
        {
            "n": int(n), "factor": int(n // samples), "predicted": found.test[i], "measured": truth[i],
            "error": found.test[i] / truth[i] - 1, "offset_fit": offset(n) / truth[i] - 1,
            "last_slope": slope(n) / truth[i] - 1, "covered": bool(found.low[i] <= truth[i] <= found.high[i]),
            "accuracy_error": found.accuracy[i] - measured.accuracy[i, 0],
        }
        for i, n in enumerate(sizes)
    ]  # fmt: skip


def _baselines(n: np.ndarray, error: np.ndarray) -> tuple[Callable, Callable]:
    def form(m: np.ndarray, a: float, b: float, c: float) -> np.ndarray:
        return a * (m / n[-1]) ** -b + c

    bounds = ([0, 0, 0], [np.inf, 5, np.inf])
    best, _ = curve_fit(form, n, error, p0=[error[-1], 0.3, 0.01], sigma=error, bounds=bounds, maxfev=20000)
    local = np.log(error[-1] / error[-2]) / np.log(n[-1] / n[-2])
    return lambda m: form(m, *best), lambda m: error[-1] * (m / n[-1]) ** local


def widths(x: np.ndarray, y: np.ndarray, samples: int, trials: int, seed: int) -> list[dict]:
    """One-hidden-layer ReLU random features on a 4 x 5 grid of (n, width), against the theory of their NNGP limit."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(x))
    x, y = x[order], y[order]
    targets, _frequencies = one_hot(y, samples)
    task = TaskSpectrum.fit(relu_kernel(1, "nngp")(x[:samples], x[:samples]), targets[:samples], seed=seed)
    ridge = 0.1
    rows = []
    for n in np.geomspace(40, samples // 2, 4).astype(int):
        for width in np.geomspace(20, samples, 5).astype(int):
            errors = []
            for _ in range(trials):
                weights = rng.standard_normal((x.shape[1], width)) * np.sqrt(2 / x.shape[1])
                pick = samples + rng.permutation(len(x) - samples)
                train, test = pick[:n], pick[n : n + 1500]
                a, b = (np.maximum(x[part] @ weights, 0) / np.sqrt(width) for part in (train, test))
                inner = np.linalg.solve(a.T @ a + ridge * np.eye(width), a.T @ targets[train])
                errors.append(((b @ inner - targets[test]) ** 2).sum(1).mean())
            found = task.risk(float(n), ridge, float(width))
            rows.append({
                "n": int(n), "width": int(width), "predicted": float(found.test), "measured": float(np.mean(errors)),
                "error": float(found.test) / np.mean(errors) - 1,
                "covered": bool(found.low <= np.mean(errors) <= found.high),
            })  # fmt: skip
    return rows


def summary(rows: list[dict], key: str = "error") -> dict:
    """Median and worst absolute value of a column."""
    values = np.abs([row[key] for row in rows])
    return {"median": float(np.median(values)), "worst": float(values.max()), "count": len(values)}


def main() -> None:
    """Run everything, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="about two minutes on two cores")
    parser.add_argument("--out", type=Path, default=Path("forecast_accuracy.json"))
    parser.add_argument("--fashion-mnist", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--seeds", type=int, help="random samples per case; 1 where quick, else 3")
    options = parser.parse_args()
    quick, began = options.quick, time.time()
    names = ["digits", "mnist1d"] + (["fashion-mnist"] if options.fashion_mnist.exists() else [])
    data = {name: load(name, options.fashion_mnist) for name in names}
    seeds = range(options.seeds or (1 if quick else 3))
    result: dict[str, list[dict]] = {"in range": [], "extrapolation": [], "widths": []}
    for name, (x, y) in data.items():
        samples = 800 if quick else 1600
        samples = min(samples, len(x) // 2)
        pool = min(len(x), samples + (2000 if quick else 4000))
        for label, kernel in list(KERNELS.items())[: 2 if quick else None]:
            for seed in seeds:
                tag = {"data": name, "kernel": label, "seed": seed, "P": samples}
                result["in range"] += [tag | row for row in in_range(x[:pool], y[:pool], kernel, samples, 12, seed)]
                small = min(250 if quick else 600, (len(x) - 300) // 8)
                tag |= {"P": small}
                result["extrapolation"] += [tag | row for row in extrapolation(x, y, kernel, small, seed)]
        tag = {"data": name, "kernel": "ReLU random features", "seed": 0, "P": samples}
        result["widths"] += [tag | row for row in widths(x[:pool], y[:pool], samples, 6 if quick else 20, 0)]
    report(result, time.time() - began, options.out)


def report(result: dict[str, list[dict]], seconds: float, out: Path) -> None:
    """Print one line per target and write all rows."""
    inside, beyond = result["in range"], [row for row in result["extrapolation"] if row["factor"] == 8]
    away = [row for row in result["widths"] if abs(np.log(row["n"] / row["width"])) > 0.5]
    lines = []
    for tuning in ("zero", "optimal"):
        part = [row for row in inside if row["ridge"] == tuning]
        lines.append((f"in range, {tuning} ridge: test error", summary(part), 0.03, 0.08))
        lines.append((f"in range, {tuning} ridge: accuracy", summary(part, "accuracy_error"), 0.015, None))
    lines.append(("P to 8P, zero ridge: test error", summary(beyond), 0.08, None))
    lines.append(("   baseline: power law with offset", summary(beyond, "offset_fit"), None, None))
    lines.append(("   baseline: last measured slope", summary(beyond, "last_slope"), None, None))
    lines.append(("P to 8P, zero ridge: accuracy", summary(beyond, "accuracy_error"), None, None))
    lines.append(("(n, width) grid away from n = width", summary(away), 0.08, None))
    table = Table(title="Prediction against measurement")
    for column in ("what", "median", "target", "worst", "target", "cases"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for what, found, median, worst in lines:
        pairs = (("median", median), ("worst", worst))
        marks = [f"[{'green' if found[k] <= t else 'red'}]{t:.1%}" if t else "" for k, t in pairs]
        table.add_row(what, f"{found['median']:.1%}", marks[0], f"{found['worst']:.1%}", marks[1], str(found["count"]))
    coverage = {name: float(np.mean([row["covered"] for row in rows])) for name, rows in result.items()}
    console = Console()
    console.print(table)
    console.print("coverage of the 95 % intervals: " + ", ".join(f"{k} {v:.0%}" for k, v in coverage.items()))
    console.print(f"{seconds:.0f} s")
    summaries = {what.strip(): found for what, found, _, _ in lines}
    plain = {"seconds": seconds, "coverage": coverage, "summary": summaries, "rows": result}
    write_text(out, json.dumps(to_plain(plain), indent=1))


if __name__ == "__main__":
    main()
