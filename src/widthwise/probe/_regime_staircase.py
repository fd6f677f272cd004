"""Steps of a loss curve: plateaus between drops, which no linear(ised) model can show."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy import ndimage

from widthwise.core import Axis, DataError, Figure, Guide, Line, Value

BINS = 240
LEAST_DROP = 0.03
LEAST_BULGE = 0.08
FLAT = 1 / 3  # of the fastest fall of a step: slower counts as the next plateau
_ERRORS = 4.0


@dataclass(frozen=True)
class LossStep(Value):
    """One drop after a plateau.

    Attributes:
        time: where the loss falls fastest.
        start, end: of the plateau before it, and of the drop.
        before, after: the loss there.
    """

    time: float
    start: float
    end: float
    before: float
    after: float


@dataclass(frozen=True)
class Staircase(Value):
    """Steps found in a loss curve.

    Attributes:
        steps: in order of time.
        times, losses: the smoothed curve in which they were found.
    """

    steps: tuple[LossStep, ...]
    times: Float[np.ndarray, "bins"]
    losses: Float[np.ndarray, "bins"]

    def plot(self) -> Figure:
        """The smoothed curve with a guide at every step."""
        curve = Line("loss", tuple(self.times.tolist()), tuple(self.losses.tolist()))
        guides = tuple(Guide(step.time, f"step {k}") for k, step in enumerate(self.steps, 1))
        return Figure("Steps of the loss", Axis("time"), Axis("loss"), (curve, *guides))


def loss_staircase(
    losses: ArrayLike,
    times: ArrayLike | None = None,
    *,
    least_drop: float = LEAST_DROP,
    least_bulge: float | int = LEAST_BULGE,
) -> Staircase:
    """Find drops that follow a plateau.

    Under gradient flow a linearised network's loss is a sum of decaying exponentials: it falls ever more slowly, on a
    convex curve. Wherever the curve rises above its convex hull, training left a plateau, a saddle of the loss. Such a
    span counts if the loss falls there by at least `least_drop` of its whole fall, and the curve rises above the hull
    by at least `least_bulge` of that and by four standard errors of the batch noise.

    Args:
        losses: one per step or time, noisy or not, in order.
        times: of the losses, increasing; None: 0, 1, 2, ...
        least_drop: share of the whole fall.
        least_bulge: share of the step's own drop; about the share of the span that its plateau takes.

    Raises:
        DataError: fewer than eight losses, a value that is not finite, or times that do not increase.

    >>> t = np.linspace(0, 20, 400)
    >>> two = 1 / (1 + np.exp(4 * (t - 5))) + 0.5 / (1 + np.exp(4 * (t - 12)))
    >>> [round(step.time) for step in loss_staircase(two, t).steps]
    [5, 12]
    >>> loss_staircase(np.exp(-t) + np.exp(-t / 9), t).steps
    ()
    """
    y = np.asarray(losses, dtype=float)
    x = np.arange(len(y), dtype=float) if times is None else np.asarray(times, dtype=float)
    if y.ndim != 1 or len(y) < 8 or not np.isfinite(y).all():
        raise DataError(f"the loss curve of shape {y.shape} needs at least eight finite values; record more steps.")
    if x.shape != y.shape or not (np.diff(x) > 0).all():
        raise DataError(f"times of shape {x.shape} must increase and be as many as the {len(y)} losses.")
    x, y, errors = _binned(x, y)
    smooth = ndimage.gaussian_filter1d(y, 1.0, mode="nearest")
    fall = float(smooth[0] - smooth.min())
    search = _Search(x, smooth, errors, least_drop * fall, float(least_bulge))
    return Staircase(tuple(search.steps(0, int(np.argmin(smooth)))) if fall > 0 else (), x, smooth)


class _Search:
    """Spans that lie above the convex hull, and steps inside their plateaus."""

    def __init__(self, x: np.ndarray, y: np.ndarray, errors: np.ndarray, drop: float, bulge: float) -> None:
        self.x, self.y, self.errors, self.drop, self.bulge = x, y, errors, drop, bulge

    def steps(self, first: int, last: int) -> list[LossStep]:
        found = []
        for i, j in pairwise(_lower_hull(self.x[first : last + 1], self.y[first : last + 1])):
            found += self._inside(first + i, first + j)
        return found

    def _inside(self, i: int, j: int) -> list[LossStep]:
        """A step from i to j, after those on the way to the end of its plateau."""
        if j - i < 3:
            return []
        x, y = self.x[i : j + 1], self.y[i : j + 1]
        above = y - (y[0] + (y[-1] - y[0]) * (x - x[0]) / (x[-1] - x[0]))
        k = int(np.argmax(above))
        drop = float(y[0] - y[-1])
        noise = _ERRORS * float(self.errors[[i, i + k, j]].max())
        if drop < self.drop or above[k] < max(self.bulge * drop, noise):
            return []
        earlier = [step for step in self.steps(i, i + k) if self._flattens(step)]
        start = earlier[-1].end if earlier else float(x[0])
        wide = ndimage.gaussian_filter1d(y, max(1.0, (j - i) / 30), mode="nearest")
        speed = np.diff(wide[k:]) / np.diff(x[k:])
        at = k + int(np.argmin(speed))
        before = earlier[-1].after if earlier else float(y[0])
        return [*earlier, LossStep(float(x[at] + x[at + 1]) / 2, start, float(x[-1]), before, float(y[-1]))]

    def _flattens(self, step: LossStep) -> bool:
        """Whether a plateau follows, so that it is no mere beginning of the next step."""
        first, last = (int(np.searchsorted(self.x, time)) for time in (step.start, step.end))
        speed = -np.diff(self.y) / np.diff(self.x)
        return float(speed[last : last + 3].mean()) <= FLAT * float(speed[first:last].max())


def _lower_hull(x: np.ndarray, y: np.ndarray) -> list[int]:
    """Points of the largest convex curve below the given one (monotone chain)."""
    kept: list[int] = []
    for k in range(len(x)):
        while len(kept) > 1:
            a, b = kept[-2], kept[-1]
            if (y[b] - y[a]) * (x[k] - x[a]) < (y[k] - y[a]) * (x[b] - x[a]):
                break
            kept.pop()
        kept.append(k)
    return kept


def _binned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means over bins that widen with time, and the standard error that batch noise leaves in each."""
    noise = float(np.median(np.abs(np.diff(y, 2)))) / (0.6745 * 6**0.5)
    edges = np.unique(np.round(len(y) * np.linspace(0, 1, BINS + 1) ** 1.5).astype(int))
    counts = np.diff(edges)
    means = [np.add.reduceat(values, edges[:-1]) / counts for values in (x, y)]
    return means[0], means[1], noise / np.sqrt(counts)
