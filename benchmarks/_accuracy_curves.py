"""Predicted and measured learning curves, in range and beyond the sample."""

from collections.abc import Callable

import numpy as np
from _accuracy_cases import Case, Split
from scipy.linalg import solve
from scipy.optimize import curve_fit

from widthwise.theory import Risk, TaskSpectrum, measure_kernel_regression, risk

MOST_TESTED = 2500


def fit(case: Case, split: Split, seed: int) -> TaskSpectrum:
    """The theory, from the sample alone."""
    part = split.sample
    return TaskSpectrum.fit(
        case.gram[np.ix_(part, part)], case.targets[part], labels=case.labels[part], frequencies=case.frequencies,
        seed=seed,
    )  # fmt: skip


def measure(case: Case, pool: np.ndarray, n: int, ridge: float, trials: int, seed: int) -> dict[str, float]:
    """Kernel regression on random training sets from the pool, tested on what is left of it.

    The standard error has two parts: training sets (over trials) and the finite set of test points.
    """
    rng = np.random.default_rng(seed)
    trials = max(trials if n < len(pool) / 4 else 1, min(4, -(-len(pool) // (len(pool) - n))))
    errors, counts, means, hits = np.zeros(len(case.gram)), np.zeros(len(case.gram)), [], []
    for _ in range(trials):
        order = rng.permutation(pool)
        train, test = order[:n], order[n : n + MOST_TESTED]
        block = case.gram[np.ix_(train, train)]
        jitter = 1e-12 * np.trace(block) / n
        weights = solve(block + (ridge + jitter) * np.eye(n), case.targets[train], assume_a="pos")
        scores = case.gram[np.ix_(test, train)] @ weights
        squares = ((scores - case.targets[test]) ** 2).sum(1)
        errors[test] += squares
        counts[test] += 1
        means.append(squares.mean())
        hits.append(((scores + case.frequencies).argmax(1) == case.labels[test]).mean())
    seen = errors[counts > 0] / counts[counts > 0]
    between = np.std(means, ddof=1) / np.sqrt(trials) if trials > 1 else 0.0
    return {
        "measured": float(np.mean(means)),
        "stderr": float(between / np.mean(means)),
        "test_stderr": float(seen.std() / np.sqrt(len(seen)) / np.mean(means)),
        "accuracy": float(np.mean(hits)),
    }


def compare(found: Risk, index: int, measured: dict[str, float]) -> dict[str, float | bool]:
    """Relative errors, coverage, and what was compared."""
    truth = measured["measured"]
    return {
        "n": int(found.n[index]), "predicted": float(found.test[index]), **measured,
        "error": float(found.test[index] / truth - 1),
        "covered": bool(found.low[index] <= truth <= found.high[index]),
        "accuracy_error": float(found.accuracy[index] - measured["accuracy"]),
    }  # fmt: skip


def in_range(case: Case, trials: int) -> list[dict]:
    """From P samples, errors at n = 30 .. P/2, at zero and at the predicted optimal ridge."""
    rows = []
    for number, split in enumerate(case.inside):
        task = fit(case, split, number)
        sizes = np.geomspace(30, len(split.sample) // 2, 5).astype(int)
        for tuning in ("zero", "optimal"):
            found = task.risk(sizes.astype(float), tuning)
            plain = risk(task.spectrum, sizes.astype(float), found.ridge).test  # the theory before calibration
            for i, n in enumerate(sizes):
                row = compare(found, i, measure(case, split.pool, int(n), float(found.ridge[i]), trials, number))
                row |= {"uncalibrated": float(plain[i] / row["measured"] - 1), "tuning": tuning, "split": number}
                rows.append({"data": case.data, "model": case.model, "P": len(split.sample), **row})
    return rows


def extrapolation(case: Case, trials: int) -> list[dict]:
    """From P samples to 2 P, 4 P and 8 P at zero ridge, with two baselines that see subsets of the P samples."""
    rows = []
    for number, split in enumerate(case.beyond):
        samples = len(split.sample)
        sizes = samples * np.array([2, 4, 8])
        found = fit(case, split, number).risk(sizes.astype(float))
        offset, slope = _baselines(case, split.sample, number)
        for i, n in enumerate(sizes):
            row = compare(found, i, measure(case, split.pool, int(n), 0.0, trials, number))
            row |= {"offset_fit": offset(n) / row["measured"] - 1, "last_slope": slope(n) / row["measured"] - 1}
            row |= {"factor": int(n) // samples, "split": number}
            rows.append({"data": case.data, "model": case.model, "P": samples, **row})
    return rows


def _baselines(case: Case, sample: np.ndarray, seed: int) -> tuple[Callable, Callable]:
    """What a user would do: errors of subsets, a quarter held out; a power law with offset, and the last slope."""
    train = 3 * len(sample) // 4
    fresh, test = sample[:train], sample[train:]
    sizes = (train / np.array([16, 8, 4, 2, 1])).astype(int)
    error = measure_kernel_regression(
        case.gram[np.ix_(fresh, fresh)], case.targets[fresh], case.gram[np.ix_(test, fresh)], case.targets[test],
        sizes, trials=8, seed=seed,
    ).test[:, 0]  # fmt: skip
    n = sizes.astype(float)

    def form(m: np.ndarray, a: float, b: float, c: float) -> np.ndarray:
        return a * (m / n[-1]) ** -b + c

    bounds = ([0, 0, 0], [np.inf, 5, np.inf])
    best, _ = curve_fit(form, n, error, p0=[error[-1], 0.3, 0.01], sigma=error, bounds=bounds, maxfev=20000)
    local = np.log(error[-1] / error[-2]) / np.log(n[-1] / n[-2])
    return lambda m: float(form(m, *best)), lambda m: float(error[-1] * (m / n[-1]) ** local)


def averaged(rows: list[dict]) -> list[dict]:
    """Rows of one question with predictions and measurements averaged over splits."""
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(key) for key in ("data", "model", "tuning", "n")), []).append(row)
    result = []
    for group in groups.values():
        mean = {key: float(np.mean([row[key] for row in group])) for key in ("predicted", "measured", "accuracy_error")}
        result.append({**group[0], **mean, "error": mean["predicted"] / mean["measured"] - 1, "split": "mean"})
    return result
