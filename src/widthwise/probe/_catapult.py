"""Large learning rates: lazy, catapult or divergent (arXiv:2003.02218)."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Num
from torch import Tensor, nn

from widthwise.core import Axis, DataError, Figure, Line, Value
from widthwise.core import progress as progress_bar
from widthwise.probe._curvature import largest_curvature
from widthwise.probe._modules import placed, refuse_broken, select_parameters
from widthwise.probe._training import descent

RISE = 1.05  # loss over initial loss above which training did not go down from the start
_BLOWN = 1e12


@dataclass(frozen=True)
class CatapultScan(Value):
    """Training at multiples of the inverse curvature.

    Attributes:
        curvature: lambda_0, largest eigenvalue of the tangent kernel over examples and outputs at initialisation.
        multiples: eta lambda_0.
        regimes: per multiple: ``"lazy"`` (the loss never rose by 5 %), ``"catapult"`` (it rose and then fell below its
            start) or ``"divergent"`` (it did not come back within the steps).
        peaks: largest loss over initial loss.
        peak_steps: when that was.
        final_losses: last loss over initial loss; infinite where it overflowed.
        final_multiples: eta times the largest eigenvalue after training; NaN where divergent. Below 2 where training
            settled.
        losses: ``[multiples, steps + 1]``, half the sum of squared errors; infinite after an overflow.
    """

    curvature: float
    multiples: tuple[float, ...]
    regimes: tuple[str, ...]
    peaks: tuple[float, ...]
    peak_steps: tuple[int, ...]
    final_losses: tuple[float, ...]
    final_multiples: tuple[float, ...]
    losses: Float[np.ndarray, "multiples times"]

    @property
    def rates(self) -> tuple[float, ...]:
        """Learning rates on half the sum of squared errors."""
        return tuple(multiple / self.curvature for multiple in self.multiples)

    @property
    def edge(self) -> tuple[float, float]:
        """Largest multiple below which none diverges, and the smallest that does (infinite if none)."""
        bad = [m for m, regime in zip(self.multiples, self.regimes, strict=True) if regime == "divergent"]
        first = min(bad, default=float("inf"))
        return max((m for m in self.multiples if m < first), default=0.0), first

    def plot(self) -> Figure:
        """Losses against steps."""
        lines = []
        for slot, (multiple, row) in enumerate(zip(self.multiples, self.losses, strict=True)):
            shown = np.flatnonzero(np.isfinite(row) & (row > 0))
            at, values = tuple(float(step) for step in shown), tuple((row[shown] / row[0]).tolist())
            lines.append(Line(f"{multiple:g}", at, values, slot))
        caption = "Loss over initial loss while training; the legend is learning rate times initial curvature."
        return Figure("Large learning rates", Axis("step"), Axis("loss ratio", "log"), tuple(lines), caption)


def catapult_scan(
    module: nn.Module,
    x: Num[Tensor, "n *shape"],
    targets: Float[Tensor, "n outputs"],
    *,
    multiples: Sequence[float] = (0.5, 1, 1.5, 2.5, 3, 3.5, 4, 5, 6, 8, 10, 12),
    steps: int = 100,
    progress: bool = True,
) -> CatapultScan:
    """Train copies of a network at multiples of ``1 / lambda_0`` and say what each does (arXiv:2003.02218, section 2).

    A linearised network converges below 2. Wide networks survive up to about 4 (linear activations) or more (around 12
    for ReLU): the loss first grows, until the curvature has fallen to what the learning rate allows.

    Args:
        module: measured and trained in evaluation mode; it is left as it is.
        x, targets: training set, targets as regression rows; the loss is half the sum of squared errors.
        multiples: eta lambda_0 to try.
        steps: of full-batch gradient descent.

    Raises:
        DataError: the targets do not fit, a number is not finite, or a multiple is not positive.

    >>> net = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 1))
    >>> catapult_scan(net, torch.randn(8, 4), torch.randn(8, 1), multiples=[0.5, 100.0], steps=30).regimes
    ('lazy', 'divergent')
    """
    if not all(multiple > 0 for multiple in multiples) or steps < 1:
        raise DataError(
            f"multiples {list(multiples)} and steps={steps} must all be positive; mend the one that is not."
        )
    x, targets = placed(module, x, "x"), placed(module, targets, "targets")
    refuse_broken(select_parameters(module, None))
    curvature = _curvature(module, x, targets)
    if not curvature > 0:
        raise DataError("the outputs do not depend on any parameter; give a module that can be trained.")
    losses, last = np.full((len(multiples), steps + 1), np.inf), []
    with progress_bar("learning rates", float(len(multiples)), show=progress) as advance:
        for row, multiple in enumerate(multiples):
            trained = copy.deepcopy(module)
            run = descent(trained, x, targets, multiple / curvature)
            for step in range(steps + 1):
                loss = next(run)
                if not loss < _BLOWN * losses[row, 0] and step:
                    break
                losses[row, step] = loss
            last.append(_curvature(trained, x, targets) if np.isfinite(losses[row, -1]) else float("nan"))
            advance(1)
    ratios = losses / losses[:, :1]
    regimes = tuple(_regime(row) for row in ratios)
    ends = zip(multiples, last, regimes, strict=True)
    after = tuple(float("nan") if regime == "divergent" else m * end / curvature for m, end, regime in ends)
    finite = np.where(np.isfinite(ratios), ratios, -1.0)
    peaks, peak_steps = finite.max(1).tolist(), tuple(int(step) for step in finite.argmax(1))
    kept = tuple(float(multiple) for multiple in multiples)
    return CatapultScan(
        curvature, kept, regimes, tuple(peaks), peak_steps, tuple(ratios[:, -1].tolist()), after, losses
    )


def two_layer_linear_map(
    output: float | int, curvature: float | int, rate: float | int, width: int, steps: int
) -> Float[np.ndarray, "times 2"]:
    """Gradient descent of ``f = u.v / sqrt(n)`` on ``f^2 / 2``, exactly: a map of f and ``lambda = (u.u + v.v) / n``.

    ``f' = f (1 - eta lambda + eta^2 f^2 / n)``, ``lambda' = lambda + (eta f^2 / n) (eta lambda - 4)``
    (arXiv:2003.02218, equations 4 and 5).

    Returns:
        ``[steps + 1, 2]``: f and lambda; infinite once they overflow.

    >>> two_layer_linear_map(1.0, 2.0, 0.5, width=4, steps=1)
    array([[1.    , 2.    ],
           [0.0625, 1.625 ]])
    """
    path = np.full((steps + 1, 2), np.inf)
    f, sharp = float(output), float(curvature)
    for step in range(steps + 1):
        path[step] = f, sharp
        push = rate * f * f / width
        f, sharp = f * (1 - rate * sharp + rate * push), sharp + push * (rate * sharp - 4)
        if not (abs(f) < 1e100 and abs(sharp) < 1e100):
            break
    return path


def _curvature(module: nn.Module, x: Tensor, targets: Tensor) -> float:
    """Largest eigenvalue of the tangent kernel matrix."""

    def half_sum(outputs: Tensor, wanted: Tensor) -> Tensor:
        return (outputs.reshape(len(outputs), -1) - wanted).square().sum() / 2

    return largest_curvature(module, x, targets, half_sum, iterations=300, tolerance=1e-5)


def _regime(ratios: np.ndarray) -> str:
    if not np.isfinite(ratios).all() or not ratios[-1] < 1:
        return "divergent"
    return "catapult" if ratios.max() > RISE else "lazy"
