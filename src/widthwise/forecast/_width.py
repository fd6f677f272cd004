"""The width section: only the last layer trained, at several widths."""

from functools import partial
from math import log2

import numpy as np

from widthwise.data import DataSet
from widthwise.forecast._curves import Targets
from widthwise.forecast._model import ModelSource
from widthwise.forecast._settings import Settings
from widthwise.forecast._stages import Stages
from widthwise.forecast._types import RidgeKind, WidthPoint, WidthSurface
from widthwise.probe import features, random_feature_regression
from widthwise.theory import TaskSpectrum

DRAWS = 3
POOL = 2000
RIDGES: tuple[RidgeKind, RidgeKind] = ("zero", "optimal")  # in the order of `_ridges`


def width_curve(
    task: TaskSpectrum, source: ModelSource, train: DataSet, test: DataSet, targets: Targets, settings: Settings,
    stages: Stages, show: bool,
) -> tuple[WidthPoint, ...]:  # fmt: skip
    """Predicted and measured error at the optimal ridge and without one, at half of the samples (at most 1000)."""
    n = max(2, min(settings.samples // 2, POOL // 2))
    counts = {width: _feature_count(source, width, train, settings) for width in _widths(source, n)}
    points: list[WidthPoint] = []
    for width, count in counts.items():
        predicted = task.risk(n, _ridges(task, n, count), width=count)
        ridges = predicted.ridge.tolist()
        measure = partial(_measure, source, width, train, test, targets, n, ridges, settings, show)
        found = stages.plain(f"width {width}", measure)
        for i, (mse, stderr) in enumerate(found):
            points.append(WidthPoint(width, count, n, RIDGES[i], ridges[i], float(predicted.test[i]), mse, stderr))
    return tuple(points)


def _ridges(task: TaskSpectrum, n: int, count: int) -> np.ndarray:
    """Nearly none, and the best one."""
    floor = 1e-9 * float(task.eigenvalues.sum())
    return np.array([floor, max(float(task.risk(n, "optimal", width=count).ridge), floor)])


def _widths(source: ModelSource, n: int) -> list[int]:
    """Widths around the model's own, by factors of four; the own alone if it does not scale."""
    own = source.width
    if not source.scales or own is None:
        return [own or 0]
    return sorted({max(2, own // 16), max(2, own // 4), own, min(4 * own, 4096)})


def _feature_count(source: ModelSource, width: int, train: DataSet, settings: Settings) -> int:
    module = source.build(width or None, seed=settings.seed)
    return features(module, train.inputs[:2]).flatten(1).shape[1]


def _measure(
    source: ModelSource, width: int, train: DataSet, test: DataSet, targets: Targets, n: int, ridges: list[float],
    settings: Settings, show: bool,
) -> list[list[float | None]]:  # fmt: skip
    pool = min(len(train), POOL)
    table = random_feature_regression(
        lambda size: source.factory(size or None),
        [width],
        train.inputs[:pool],
        targets.train[:pool],
        test.inputs,
        targets.test,
        sizes=[n],
        ridges=ridges,
        draws=DRAWS,
        seed=settings.seed,
        progress=show,
    )
    spread = table.stderr if source.fresh or n < pool else table.stderr * float("nan")
    return [[float(table.mse[0, 0, i]), _finite(float(spread[0, 0, i]))] for i in range(len(ridges))]


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
