"""Balance of adjacent layers: what gradient flow conserves, and how far a real run leaves it."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from widthwise.core import Axis, Bars, DataError, Figure, Guide, Line, Value
from widthwise.core import progress as progress_bar
from widthwise.probe._balance_pairs import Pair, columns, find_pairs
from widthwise.probe._modules import call, measuring, placed

Rates = Mapping[str, float]
Side = Literal["upstream", "balanced", "downstream"]
SIDED = 1 / 3  # share from which a pair leans to one side: one layer's square norm is twice the other's


@dataclass(frozen=True)
class PairBalance(Value):
    """Balance between a layer W and the next one, A.

    Attributes:
        upstream, downstream: names of the layers.
        delta: per neuron, ``eta_W |A_i|^2 - eta_A |W_i|^2`` (biases counted with W), conserved by gradient flow.
        matrix: ``eta_W A^T A - eta_A W W^T``, conserved as a whole where nothing non-linear lies between; else None.
        lam: mean of delta over the neurons, the lambda of "lambda-balanced".
        spread: what is left of the matrix (of delta, without one) after ``lam`` times the identity, over its own size.
        share: ``sum delta / (eta_W |A|^2 + eta_A |W|^2)``, from -1 to 1.
    """

    upstream: str
    downstream: str
    delta: Float[np.ndarray, "neurons"]
    matrix: Float[np.ndarray, "neurons neurons"] | None = field(repr=False)
    lam: float
    spread: float
    share: float

    @property
    def side(self) -> Side:
        """``"upstream"``: the later layer is larger, so that the earlier one learns faster (rapid feature learning)."""
        if abs(self.share) < SIDED:
            return "balanced"
        return "upstream" if self.share > 0 else "downstream"


@dataclass(frozen=True)
class LayerBalance(Value):
    """Balance of every pair of adjacent layers of a module."""

    pairs: tuple[PairBalance, ...]

    def __str__(self) -> str:
        rows = [f"{'layers':<40} {'lambda':>11} {'spread':>7} {'share':>7}  side"]
        for pair in self.pairs:
            name = f"{pair.upstream} -> {pair.downstream}"
            rows.append(f"{name:<40} {pair.lam:>11.4g} {pair.spread:>7.2f} {pair.share:>+7.2f}  {pair.side}")
        return "\n".join(rows)

    def plot(self) -> Figure:
        """Which layer of each pair is the larger one."""
        names = tuple(f"{pair.upstream} -> {pair.downstream}" for pair in self.pairs)
        bars = Bars("share", tuple(pair.share for pair in self.pairs))
        return Figure(
            "Balance of adjacent layers", Axis("share of the square norm, later minus earlier layer", limits=(-1, 1)),
            Axis("", "category", names), (bars, Guide(0.0, "balanced")),
            "To the right (upstream) the earlier layer learns faster than the later one, to the left more slowly.",
        )  # fmt: skip


def layer_balance(
    module: nn.Module,
    inputs: Num[Tensor, "n *shape"],
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    rates: Rates | None = None,
) -> LayerBalance:
    """Conserved quantities of adjacent linear or convolution layers of any module (arXiv:2406.06158, sections 3 and 5).

    Args:
        module: as it is; nothing is changed.
        inputs: a few examples, on which the pairs are found: those whose neurons can be rescaled, one layer up and the
            other down, without changing the outputs.
        pairs: names of the two modules each, instead.
        rates: learning rates of parameters by name where they differ.

    Raises:
        DataError: no pair is joined by positively homogeneous operations alone.
        ModelError: a name is no such layer, or the module does not take the inputs.

    >>> net = nn.Sequential(nn.Linear(3, 8, bias=False), nn.ReLU(), nn.Linear(8, 1, bias=False))
    >>> balance = layer_balance(net, torch.randn(4, 3))
    >>> balance.pairs[0].delta.shape, balance.pairs[0].matrix is None
    ((8,), True)
    """
    return LayerBalance(tuple(_measure(module, pair, rates or {}) for pair in find_pairs(module, inputs, pairs)))


def _measure(module: nn.Module, pair: Pair, rates: Rates) -> PairBalance:
    up, down, (eta_w, eta_a, _) = *_sides(module, pair, rates), _rates(pair, rates)
    grown, held = eta_w * down.square().sum(1), eta_a * up.square().sum(1)
    delta = grown - held
    matrix = eta_w * down @ down.T - eta_a * up @ up.T if pair.linear else None
    lam = float(delta.mean())
    whole = delta if matrix is None else matrix
    rest = delta - lam if matrix is None else matrix - lam * torch.eye(pair.neurons, dtype=whole.dtype)
    size = max(float(whole.norm()), 1e-300)
    share = float(delta.sum() / (grown + held).sum().clamp_min(1e-300))
    plain = None if matrix is None else matrix.numpy()
    return PairBalance(pair.upstream, pair.downstream, delta.numpy(), plain, lam, float(rest.norm()) / size, share)


def _sides(module: nn.Module, pair: Pair, rates: Rates) -> tuple[Tensor, Tensor]:
    """Rows of the first layer, biases appended in the units of its weights' rate, and columns of the second."""
    first, second = module.get_submodule(pair.upstream), module.get_submodule(pair.downstream)
    up = first.weight.detach().double().cpu().flatten(1)  # type: ignore[operator]
    down = columns(second.weight.detach().double().cpu(), pair.neurons)  # type: ignore[operator]
    if first.bias is not None:
        eta_w, _, eta_b = _rates(pair, rates)
        bias = first.bias.detach().double().cpu()  # type: ignore[operator]
        up = torch.cat([up, (eta_w / eta_b) ** 0.5 * bias[:, None]], 1)
    return up, down


def _rates(pair: Pair, rates: Rates) -> tuple[float, float, float]:
    """Of the earlier layer, the later one, and the earlier one's bias."""
    names = (f"{pair.upstream}.weight", f"{pair.downstream}.weight", f"{pair.upstream}.bias")
    found = [float(rates.get(name, 1.0)) for name in names]
    for name, value in zip(names, found, strict=True):
        if not 0 < value < float("inf"):
            raise DataError(f"the rate of {name} is {value}; give a finite number above zero.")
    return found[0], found[1], found[2]


@dataclass(frozen=True)
class BalanceDrift(Value):
    """How training by finite steps leaves what gradient flow conserves.

    Attributes:
        pairs: names of the layers of each pair.
        steps: at which the balance was measured.
        drift: ``|delta_t - delta_0|`` over the neurons ``[pairs, steps]``.
        explained: what finite steps alone add up to, ``sum eta^2 (eta_W |g_A|^2 - eta_A |g_W|^2)``, the same norm.
        residual: of the difference: zero to rounding, unless decay, momentum or another force acts.
        moved: ``|delta|``-like size of what moved: change of both layers' square norms, neuron by neuron.
        losses: before every step.
    """

    pairs: tuple[str, ...]
    steps: tuple[int, ...]
    drift: Float[np.ndarray, "pairs steps"]
    explained: Float[np.ndarray, "pairs steps"]
    residual: Float[np.ndarray, "pairs steps"]
    moved: Float[np.ndarray, "pairs steps"]
    losses: Float[np.ndarray, "all"]

    def plot(self) -> Figure:
        """Drift against step, measured and explained."""
        series = []
        x = tuple(float(step) for step in self.steps[1:])
        for slot, name in enumerate(self.pairs):
            series.append(Line(f"balance of {name}", x, tuple(self.drift[slot, 1:].tolist()), slot))
            series.append(Line(f"square norms of {name}", x, tuple(self.moved[slot, 1:].tolist()), slot, dashed=True))
        return Figure(
            "Drift of the layers' balance", Axis("training step", "log"), Axis("change of square norms", "log"),
            tuple(series), "Solid: change of the balance. Dashed: change of the square norms that it is made of.",
        )  # fmt: skip


def balance_drift(
    module: nn.Module,
    inputs: Num[Tensor, "n *shape"],
    targets: Float[Tensor, "rows outputs"],
    *,
    rate: float | int,
    steps: int,
    pairs: Sequence[tuple[str, str]] | None = None,
    rates: Rates | None = None,
    weight_decay: float | int = 0.0,
    progress: bool = True,
) -> BalanceDrift:
    """Train a copy by full-batch descent on half the mean squared error and follow the balance of its layers.

    Gradient flow conserves it. A step of size eta changes it by exactly ``eta^2 (eta_W |g_A|^2 - eta_A |g_W|^2)`` per
    neuron, which vanishes with eta at a fixed training time; what is left beyond that comes from elsewhere.

    Args:
        module: left as it is.
        rate: base learning rate; `rates` are factors of it by parameter name.
        weight_decay: coupled decay, which gradient flow does not conserve the balance under.

    Raises:
        DataError: targets do not fit, or rate or steps are not above zero.
        ModelError: as for `layer_balance`.

    >>> net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
    >>> x = torch.randn(16, 3)
    >>> found = balance_drift(net, x, x[:, :1], rate=0.05, steps=20)
    >>> bool(found.residual.max() < 1e-9)
    True
    """
    if not rate > 0 or steps < 1:
        raise DataError(f"rate={rate} and steps={steps} must both be above zero.")
    found = find_pairs(module, inputs, pairs)
    net = deepcopy(module).double()
    x, y = placed(net, inputs), placed(net, targets)
    factors = rates or {}
    recorder = _DriftRecorder(net, found, factors)
    losses = []
    with progress_bar("balance drift", float(steps), show=progress) as advance, measuring(net), torch.enable_grad():
        for step in range(steps):
            outputs = call(net, x)
            if outputs.shape != y.shape:
                raise DataError(f"targets of shape {list(y.shape)} do not fit outputs of shape {list(outputs.shape)}.")
            loss = (outputs - y).square().mean() / 2
            named = {name: p for name, p in net.named_parameters() if p.requires_grad}
            gradients = dict(
                zip(named, torch.autograd.grad(loss, list(named.values()), materialize_grads=True), strict=True)
            )
            losses.append(float(loss.detach()))
            recorder.before(step, gradients, float(rate))
            with torch.no_grad():
                for name, parameter in named.items():
                    force = gradients[name] + weight_decay * parameter
                    parameter.sub_(force, alpha=float(rate) * factors.get(name, 1.0))
            advance(1)
    recorder.snapshot(steps)
    drift, explained, residual, moved = (np.array(rows).T for rows in zip(*recorder.rows, strict=True))
    names = tuple(f"{pair.upstream} -> {pair.downstream}" for pair in found)
    return BalanceDrift(names, tuple(recorder.at), drift, explained, residual, moved, np.array(losses))


class _DriftRecorder:
    """Balance against its start and against the sum over steps."""

    def __init__(self, net: nn.Module, pairs: Sequence[Pair], rates: Rates) -> None:
        self.net, self.pairs, self.rates = net, pairs, rates
        self.start = [self._squares(pair) for pair in pairs]
        self.sums = [torch.zeros(pair.neurons, dtype=torch.float64) for pair in pairs]
        self.at: list[int] = []
        self.rows: list[list[list[float]]] = []
        self._next = 0

    def before(self, step: int, gradients: dict[str, Tensor], rate: float) -> None:
        if step >= self._next:
            self.snapshot(step)
            self._next = max(step + 1, round(1.2 * step))
        for total, pair in zip(self.sums, self.pairs, strict=True):
            eta_w, eta_a, eta_b = _rates(pair, self.rates)
            g_w = gradients[f"{pair.upstream}.weight"].cpu().flatten(1).square().sum(1)
            g_a = columns(gradients[f"{pair.downstream}.weight"].cpu(), pair.neurons).square().sum(1)
            g_b = gradients.get(f"{pair.upstream}.bias")
            push = eta_w * eta_a**2 * g_a - eta_a * eta_w**2 * g_w
            if g_b is not None:
                push = push - eta_a * eta_w * eta_b * g_b.cpu().square()
            total += rate**2 * push

    def snapshot(self, step: int) -> None:
        row = []
        for pair, start, total in zip(self.pairs, self.start, self.sums, strict=True):
            up, down = self._squares(pair)
            change = (down - start[1]) - (up - start[0])
            moved = (down - start[1]).abs() + (up - start[0]).abs()
            row.append([float(v.norm()) for v in (change, total, change - total, moved)])
        self.rows.append([[values[k] for values in row] for k in range(4)])
        self.at.append(step)

    def _squares(self, pair: Pair) -> tuple[Tensor, Tensor]:
        up, down = _sides(self.net, pair, self.rates)
        eta_w, eta_a, _ = _rates(pair, self.rates)
        return eta_a * up.square().sum(1), eta_w * down.square().sum(1)
