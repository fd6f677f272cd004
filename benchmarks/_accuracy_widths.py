"""Finite width and cost: random features of the package's mlp, and the time that training takes."""

import time

import numpy as np
import torch
from _accuracy_cases import limit

from widthwise.data import DataSet
from widthwise.nn import build_model
from widthwise.probe import random_feature_regression
from widthwise.theory import TaskSpectrum
from widthwise.train import fit

RIDGE = 0.1
NEARLY_ZERO = 1e-4


def widths(data: DataSet, name: str, depth: int, samples: int, draws: int, seed: int) -> list[dict]:
    """Random features of an mlp with `depth` hidden layers, all of one width, on a 4 x 6 grid of (n, width)."""
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(data)))
    samples = min(samples, len(data) // 3)
    part, pool, test = order[:samples], order[samples : samples + 700], order[samples + 700 : samples + 2700]
    frequencies = torch.bincount(data.targets, minlength=data.outputs).double() / len(data)
    y = torch.nn.functional.one_hot(data.targets, data.outputs).double() - frequencies
    gram = limit(data, "mlp", depth=depth).feature_kernel(data.inputs[part])
    task = TaskSpectrum.fit(gram, y[part], seed=seed)
    sizes = np.geomspace(40, samples // 2, 4).astype(int)
    grid = np.geomspace(24, samples, 6).astype(int)
    table = random_feature_regression(
        lambda width: build_model("mlp", data.input_shape, data.outputs, width, depth=depth), [int(w) for w in grid],
        data.inputs[pool], y[pool], data.inputs[test], y[test], sizes=[int(n) for n in sizes],
        ridges=[RIDGE, NEARLY_ZERO], draws=draws, seed=seed, progress=False,
    )  # fmt: skip
    rows = []
    for w, width in enumerate(grid):
        for s, n in enumerate(sizes):
            for r, ridge in enumerate((RIDGE, NEARLY_ZERO)):
                found, truth = task.risk(float(n), ridge, float(width)), float(table.mse[w, s, r])
                rows.append({
                    "data": name, "depth": depth, "P": samples, "n": int(n), "width": int(width), "ridge": ridge,
                    "predicted": float(found.test), "measured": truth, "error": float(found.test) / truth - 1,
                    "stderr": float(table.stderr[w, s, r]) / truth,
                    "covered": bool(found.low <= truth <= found.high),
                })  # fmt: skip
    return rows


def peaks(rows: list[dict]) -> list[dict]:
    """Width of the largest error, predicted and measured, at each n and almost no ridge; in steps of the grid."""
    result = []
    for key in sorted({(row["data"], row["depth"], row["n"]) for row in rows}):
        line = [row for row in rows if (row["data"], row["depth"], row["n"]) == key and row["ridge"] == NEARLY_ZERO]
        places = [max(range(len(line)), key=lambda i: line[i][what]) for what in ("predicted", "measured")]
        found = {f"{what}_width": line[i]["width"] for what, i in zip(("predicted", "measured"), places, strict=True)}
        result.append(
            {**dict(zip(("data", "depth", "n"), key, strict=True)), **found, "steps": abs(places[0] - places[1])}
        )
    return result


def cost(data: DataSet, name: str, model: str, samples: int, timed: tuple[int, ...]) -> dict:
    """Seconds of a forecast from `samples` (Gram matrix, fit, curve up to 8 P) and of measuring the curve by training.

    One network is trained at each size in `timed`: Adam, full batch, until the training MSE is 0.01 or 2000 steps.
    The whole curve has 8 sizes from P/16 to 8 P and three seeds; times are interpolated in log n, and
    held constant outside the timed sizes.
    """
    sizes = samples / 16 * 2.0 ** np.arange(8)
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(data)))
    start = time.perf_counter()
    chosen = data.subset(order[:samples])
    gram = limit(data, model).ntk_and_features(chosen.inputs)[0]
    task = TaskSpectrum.fit(gram, chosen.encoded(), labels=chosen.targets, frequencies=chosen.class_frequencies())
    for tuning in ("zero", "optimal"):
        task.learning_curve(sizes, tuning)
    forecast = time.perf_counter() - start
    test = data.subset(order[-1000:])
    seconds, steps = [], []
    for n in timed:
        module = build_model(model, data.input_shape, data.outputs)
        start = time.perf_counter()
        run = fit(
            module, data.subset(order[:n]), test=test, steps=2000, optimizer="adam", until_train_loss=0.01,
            evaluations_per_decade=1, progress=False,
        )  # fmt: skip
        seconds.append(time.perf_counter() - start)
        steps.append(run.steps)
    curve = 3 * np.exp(np.interp(np.log(sizes), np.log(timed), np.log(seconds))).sum()
    return {
        "data": name, "model": model, "P": samples, "forecast_seconds": forecast, "timed_sizes": list(timed),
        "training_seconds": seconds, "training_steps": steps, "curve_seconds": float(curve),
        "ratio": float(forecast / curve),
    }  # fmt: skip
