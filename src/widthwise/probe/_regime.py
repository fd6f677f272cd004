"""Lazy, rich or ultra-rich: what a real training run was, and the evidence."""

from dataclasses import dataclass, field
from math import nan
from typing import Literal

import numpy as np
from jaxtyping import Float, Num
from torch import Tensor, nn

from widthwise.core import Axis, DataError, Figure, Guide, Line, Value
from widthwise.probe._modules import placed, select_parameters
from widthwise.probe._ntk import empirical_ntk
from widthwise.probe._regime_staircase import Staircase, loss_staircase

Verdict = Literal["lazy", "rich", "ultra-rich", "undecided"]
LAZY_CHANGE = 0.2  # relative change of the kernel up to which training counts as lazy
LEAST_FALL = 0.1  # share of the initial loss that has to go before anything is said
OUTGROWN = 1.0  # distance from the initial weights over their size, where the initialisation is outgrown


@dataclass(frozen=True)
class RegimeTrace(Value):
    """What a run left behind.

    Attributes:
        losses: one per step.
        at: steps of the snapshots, 0 first.
        distance: ``1 - <K_0, K_t> / (|K_0| |K_t|)`` of the tangent kernel on the watched examples.
        remaining: the same distance from the last kernel, ``1 - <K_t, K_T> / (|K_t| |K_T|)``.
        change: ``|K_t - K_0| / |K_0|``; scale: ``|K_t| / |K_0|``.
        alignment: ``tr(Y^T K Y) / (|K|_F |Y|^2)`` with the targets.
        moved: ``|theta_t - theta_0| / |theta_0|`` over all trained tensors.
        norms: of each matrix over its initial norm ``[snapshots, matrices]``; matrices: their names.
    """

    losses: Float[np.ndarray, "steps"]
    at: tuple[int, ...]
    distance: Float[np.ndarray, "snapshots"]
    remaining: Float[np.ndarray, "snapshots"]
    change: Float[np.ndarray, "snapshots"]
    scale: Float[np.ndarray, "snapshots"]
    alignment: Float[np.ndarray, "snapshots"]
    moved: Float[np.ndarray, "snapshots"]
    norms: Float[np.ndarray, "snapshots matrices"]
    matrices: tuple[str, ...]


class RegimeRecorder:
    """Watches a training loop: call it with the loss before every step, then `trace` at the end.

    The tangent kernel of a few examples is taken at steps that thin out (0, 1, 2, ..., each 1.2 times the one before).

    Args:
        module: the network in training; it is measured in evaluation mode and left as it is.
        inputs, targets: the watched examples, a few tens; class numbers are read as centred one-hot rows.

    Raises:
        DataError: the targets do not fit the inputs, or there are fewer than two examples.

    >>> import torch
    >>> net = nn.Linear(2, 1)
    >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> recorder, sgd = RegimeRecorder(net, x, x[:, :1]), torch.optim.SGD(net.parameters(), 0.1)
    >>> for step in range(20):
    ...     sgd.zero_grad()
    ...     loss = (net(x) - x[:, :1]).square().mean()
    ...     recorder(float(loss))
    ...     loss.backward()
    ...     sgd.step()
    >>> regime(recorder.trace()).verdict
    'lazy'
    """

    def __init__(self, module: nn.Module, inputs: Num[Tensor, "n *shape"], targets: Num[Tensor, "n *outputs"]) -> None:
        if len(inputs) < 2:
            raise DataError(f"{len(inputs)} watched examples are too few; give two or more.")
        self.module = module
        self.inputs = placed(module, inputs)
        rows = targets if targets.is_floating_point() else nn.functional.one_hot(targets).double()
        rows = rows.reshape(len(rows), -1).double().cpu()
        self.targets = rows if targets.is_floating_point() else rows - rows.mean(0)
        self.start = {name: value.detach().clone() for name, value in select_parameters(module, None).items()}
        self.losses: list[float] = []
        self._next = 0
        self._at: list[int] = []
        self._rows: list[tuple[float, ...]] = []
        self._norms: list[list[float]] = []
        self._kernels: list[Tensor] = []

    def __call__(self, loss: float) -> None:
        """Note the loss before a step, and take a snapshot where one is due."""
        if len(self.losses) >= self._next:
            self._snapshot()
            self._next = max(self._next + 1, round(1.2 * self._next))
        self.losses.append(float(loss))

    def trace(self) -> RegimeTrace:
        """Everything so far, with a last snapshot of the module as it now is.

        Raises:
            DataError: nothing was recorded.
        """
        if not self.losses:
            raise DataError("no step was recorded; call the recorder with the loss before every step.")
        if not self._at or self._at[-1] != len(self.losses):
            self._snapshot()
        distance, change, scale, alignment, moved = np.array(self._rows).T
        remaining = np.array([kernel_distance(kernel, self._kernels[-1]) for kernel in self._kernels])
        matrices = tuple(name for name, value in self.start.items() if value.ndim > 1)
        return RegimeTrace(
            np.array(self.losses), tuple(self._at), distance, remaining, change, scale, alignment, moved,
            np.array(self._norms), matrices,
        )  # fmt: skip

    def _snapshot(self) -> None:
        kernel = empirical_ntk(self.module, self.inputs).double().cpu()
        self._kernels.append(kernel)
        first = self._kernels[0]
        now = {name: value.detach() for name, value in select_parameters(self.module, None).items()}
        size = sum(float(value.double().square().sum()) for value in self.start.values()) ** 0.5
        moved = sum(float((now[name] - value).double().square().sum()) for name, value in self.start.items()) ** 0.5
        norm, aim = float(kernel.norm()), self.targets
        self._rows.append(
            (
                kernel_distance(first, kernel),
                float((kernel - first).norm() / first.norm()),
                float(kernel.norm() / first.norm()),
                float((aim * (kernel @ aim)).sum() / max(norm * float(aim.square().sum()), 1e-300)),
                moved / max(size, 1e-300),
            )
        )
        self._norms.append(
            [float(now[n].norm() / v.norm().clamp_min(1e-30)) for n, v in self.start.items() if v.ndim > 1]
        )
        self._at.append(len(self.losses))


def kernel_distance(first: Float[Tensor, "n m"], second: Float[Tensor, "n m"]) -> float:
    """``S = 1 - <K_1, K_2> / (|K_1| |K_2|)`` (Frobenius): zero for proportional kernels (arXiv:2406.06158, section 2).

    >>> import torch
    >>> kernel_distance(torch.eye(2), 3 * torch.eye(2)), round(kernel_distance(torch.eye(2), torch.ones(2, 2)), 4)
    (0.0, 0.2929)
    """
    inner = float((first.double() * second.double()).sum())
    return max(0.0, 1 - inner / max(float(first.double().norm() * second.double().norm()), 1e-300))


@dataclass(frozen=True)
class Regime(Value):
    """What a training run was.

    Attributes:
        verdict: ``"lazy"``: the kernel changed by at most 20 %. ``"ultra-rich"``: the loss fell after a plateau and the
            weights went farther from their start than it is long. ``"rich"``: neither. ``"undecided"``: the loss fell
            by less than a tenth.
        reasons: sentences with the numbers.
        fall: share of the initial loss that is gone at the end.
        silent: kernel distance at the time when a tenth of that had gone, over the one at the end: near one, the
            kernel turned before the loss showed it.
        settled: share of the way to its last direction that the kernel had gone by then (silent alignment): one minus
            its distance from the last kernel, over that of the first; NaN where the kernel did not turn.
        aligned: share of the rise of the alignment with the targets that was over by then; NaN without a rise.
        staircase: steps of the loss.
        trace: the run.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    fall: float
    silent: float
    settled: float
    aligned: float
    staircase: Staircase = field(repr=False)
    trace: RegimeTrace = field(repr=False)

    def __str__(self) -> str:
        return "\n".join([self.verdict, *(f"  {reason}" for reason in self.reasons)])

    def plot(self) -> Figure:
        """Loss, kernel distance, alignment and movement against the step, each as it is."""
        trace = self.trace
        x = tuple(float(max(step, 0.5)) for step in trace.at)
        smooth = self.staircase
        shown = smooth.times > 0.5
        ratio = smooth.losses[shown] / max(float(smooth.losses[0]), 1e-300)
        series = [
            Line("loss / first loss", tuple(smooth.times[shown].tolist()), tuple(ratio.tolist()), 0),
            Line("kernel distance", x, tuple(trace.distance.tolist()), 1),
            Line("alignment with the targets", x, tuple(trace.alignment.tolist()), 2),
            Line("movement / (1 + movement)", x, tuple((trace.moved / (1 + trace.moved)).tolist()), 3),
        ]
        guides = [Guide(step.time, "step 1" if k == 1 else f"{k}") for k, step in enumerate(smooth.steps, 1)]
        return Figure(
            f"A training run: {self.verdict}", Axis("training step", "log"), Axis("share"), (*series, *guides),
            "Kernel distance and alignment are of the tangent kernel of a few examples; movement is the distance of "
            "the weights from their start over the size of that start.",
        )  # fmt: skip


def regime(trace: RegimeTrace | RegimeRecorder, *, lazy_change: float = LAZY_CHANGE) -> Regime:
    """Say whether a run was lazy, rich or ultra-rich.

    Args:
        trace: from a `RegimeRecorder`.
        lazy_change: relative change of the kernel up to which a run is lazy.

    Raises:
        DataError: fewer than eight steps, or a loss that is not finite.

    Source: arXiv:2410.04642 (regimes, silent alignment, staircases), arXiv:2406.06158 (kernel distance).
    """
    trace = trace.trace() if isinstance(trace, RegimeRecorder) else trace
    stairs = loss_staircase(trace.losses)
    first, last = float(stairs.losses[0]), float(stairs.losses[-1])
    fall = 1 - last / first if first > 0 else 0.0
    change, moved, distance = (float(row[-1]) for row in (trace.change, trace.moved, trace.distance))
    early = _at_tenth(stairs, trace, trace.distance)
    silent = early / distance if distance > 0 else 0.0
    whole = float(trace.remaining[0])
    settled = 1 - _at_tenth(stairs, trace, trace.remaining) / whole if whole > 0 else nan
    rise = float(trace.alignment[-1] - trace.alignment[0])
    aligned = (_at_tenth(stairs, trace, trace.alignment) - float(trace.alignment[0])) / rise if rise > 0 else nan
    plural = "" if len(stairs.steps) == 1 else "s"
    where = f" (at {', '.join(f'{step.time:.0f}' for step in stairs.steps)})" if stairs.steps else ""
    reasons = (
        f"the loss fell by {fall:.0%}, with {len(stairs.steps)} step{plural} after a plateau{where}",
        f"the tangent kernel changed by {change:.3g} of its size and turned by a distance of {distance:.3g}, "
        f"{min(silent, 9.99):.0%} of that when a tenth of the fall was over",
        f"its alignment with the targets went from {trace.alignment[0]:.3f} to {trace.alignment[-1]:.3f}",
        f"the weights moved by {moved:.3g} of their initial size",
    )
    verdict: Verdict = "rich"
    if fall < LEAST_FALL:
        verdict = "undecided"
    elif change <= lazy_change:
        verdict = "lazy"
    elif stairs.steps and moved >= OUTGROWN:
        verdict = "ultra-rich"
    return Regime(verdict, reasons, fall, silent, settled, aligned, stairs, trace)


def _at_tenth(stairs: Staircase, trace: RegimeTrace, values: np.ndarray) -> float:
    """One of the snapshots' values when a tenth of the fall was over."""
    losses = stairs.losses
    level = losses[0] - 0.1 * (losses[0] - losses[-1])
    below = np.flatnonzero(losses <= level)
    time = stairs.times[below[0]] if len(below) else stairs.times[-1]
    return float(np.interp(time, trace.at, values))
