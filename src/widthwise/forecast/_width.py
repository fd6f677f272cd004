"""The width section: only the last layer trained, at several widths."""

from functools import partial
from math import log2

import numpy as np

from widthwise.core import ModelError
from widthwise.forecast._cost import SPEED, forward_operations
from widthwise.forecast._run import Run
from widthwise.forecast._settings import Settings
from widthwise.forecast._types import RidgeKind, WidthPoint, WidthSurface
from widthwise.probe import features, random_feature_regression
from widthwise.theory import TaskSpectrum

DRAWS = 3
POOL = 2000
RIDGES: tuple[RidgeKind, RidgeKind] = ("zero", "optimal")  # in the order of `_ridges`
WIDEST = 4096
MOST_SECONDS = 120.0  # of forward passes at one width
MOST_NUMBERS = 3e8  # features of all examples at one width


def width_curve(run: Run, task: TaskSpectrum) -> tuple[WidthPoint, ...]:
    """Predicted and measured error without a ridge and at the best one, at half of the samples (at most 1000)."""
    n = min(run.settings.samples, POOL) // 2
    points: list[WidthPoint] = []
    for width in _widths(run):
        points += _points(run, task, n, width)
    return tuple(points)


def _widths(run: Run) -> list[int | None]:
    """Widths around the model's own, by factors of four; None, the module as it is, if it does not scale."""
    own = run.source.width
    if not run.source.scales or own is None:
        return [None]
    return [*sorted({max(2, own // 16), max(2, own // 4), own, max(own, min(4 * own, WIDEST))})]


def _points(run: Run, task: TaskSpectrum, n: int, width: int | None) -> list[WidthPoint]:
    try:
        module = run.source.build(width, seed=run.settings.seed)
        example = features(module, run.train.inputs[:2])
    except ModelError:
        if width == run.source.width:
            raise
        return []  # a factory need not be able to build widths that nobody asked for
    count = example[0].numel()
    predicted = task.risk(n, _ridges(task, n, count), width=count)
    ridges = predicted.ridge.tolist()
    measured: list[list[float | None]] = [[None, None]] * len(ridges)
    if _affordable(run, forward_operations(module, run.train.inputs[:2]), count):
        measured = run.stages.plain(f"width {width or 'own'}", partial(_measure, run, n, width, ridges))
    return [
        WidthPoint(width or count, count, n, RIDGES[i], ridge, float(predicted.test[i]), *measured[i])
        for i, ridge in enumerate(ridges)
    ]


def _ridges(task: TaskSpectrum, n: int, count: int) -> np.ndarray:
    """Nearly none, and the best one."""
    floor = 1e-9 * float(task.eigenvalues.sum())
    return np.array([floor, max(float(task.risk(n, "optimal", width=count).ridge), floor)])


def _affordable(run: Run, operations: float, count: int) -> bool:
    examples = min(len(run.train), POOL) + len(run.test)
    return DRAWS * examples * operations <= MOST_SECONDS * SPEED and examples * count <= MOST_NUMBERS


def _measure(run: Run, n: int, width: int | None, ridges: list[float]) -> list[list[float | None]]:
    """``[mse, its standard error]`` per ridge."""
    pool = min(len(run.train), POOL)
    table = random_feature_regression(
        lambda size: run.source.make(size or None),
        [width or 0],
        run.train.inputs[:pool],
        run.targets.train[:pool],
        run.test.inputs,
        run.targets.test,
        sizes=[n],
        ridges=ridges,
        draws=DRAWS,
        seed=run.settings.seed,
        progress=run.show,
    )
    return [[float(table.mse[0, 0, i]), _finite(float(table.stderr[0, 0, i]))] for i in range(len(ridges))]


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def width_surface(task: TaskSpectrum, settings: Settings) -> WidthSurface:
    """Predicted error at the optimal ridge over sizes and numbers of features, and which of the two helps more."""
    sizes = np.array([*settings.sizes, settings.samples])
    top = int(log2(4 * settings.samples))
    widths = np.array([2**k for k in range(max(3, top - 8), top + 1)])
    risk = task.risk(sizes[:, None], "optimal", width=widths[None, :])
    return WidthSurface(
        n=tuple(int(n) for n in sizes),
        width=tuple(int(k) for k in widths),
        mse=tuple(tuple(float(v) for v in row) for row in risk.test),
        answer=_answer(task, settings),
    )


def _answer(task: TaskSpectrum, settings: Settings) -> str:
    n = settings.samples // 2
    now, data, width = (
        float(task.risk(size, "optimal", width=count).test) for size, count in ((n, n), (2 * n, n), (n, 2 * n))
    )
    gains = [100 * (1 - after / now) for after in (data, width)]
    better = "More data" if gains[0] > gains[1] else "More width"
    return (
        f"{better}: with {n} examples and as many features, twice the data lowers the error by {gains[0]:.1f} % and "
        f"twice the width by {gains[1]:.1f} % (only the last layer trained)."
    )
