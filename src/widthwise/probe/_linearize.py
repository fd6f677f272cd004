"""A network's first-order expansion in its weights, and how that expansion trains."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.func import functional_call, jvp, vjp

from widthwise.core import DataError
from widthwise.probe._modules import measuring, placed, refuse_broken, refuse_infinite, select_parameters
from widthwise.probe._ntk import empirical_ntk

Weights = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Linearized:
    """``f_lin(x, delta) = f(x; theta) + J(x) delta`` around the weights at the time of `linearize`.

    Attributes:
        module: the network, measured in evaluation mode.
        weights: theta, a copy, by name.
    """

    module: nn.Module = field(repr=False)
    weights: Weights = field(repr=False)

    def __call__(self, x: Num[Tensor, "n *shape"], delta: Weights) -> Float[Tensor, "n outputs"]:
        """Outputs at theta + delta, from one forward-mode derivative."""
        x = placed(self.module, x, "x")
        with measuring(self.module), torch.no_grad():
            outputs, change, *_ = jvp(lambda weights: self._outputs(weights, x), (self.weights,), (delta,))
        return outputs + change

    def zero(self) -> Weights:
        """No displacement."""
        return {name: torch.zeros_like(weight) for name, weight in self.weights.items()}

    def pull(self, x: Num[Tensor, "n *shape"], vector: Float[Tensor, "n outputs"]) -> Weights:
        """``J(x)^T vector``."""
        x = placed(self.module, x, "x")
        with measuring(self.module), torch.no_grad():
            _, back, *_ = vjp(lambda weights: self._outputs(weights, x), self.weights)
            return back(vector.to(next(iter(self.weights.values()))))[0]

    def solve(
        self,
        x: Num[Tensor, "n *shape"],
        targets: Float[Tensor, "n outputs"],
        time: float | int = inf,
        rate: float | int = 1.0,
    ) -> Weights:
        """Displacement after gradient flow on ``1/2 sum (f_lin - y)^2``, in closed form.

        ``delta = -J^T T^-1 (I - exp(-rate T time)) (f_0 - y)`` with the network's own tangent kernel T over examples
        and outputs (arXiv:1902.06720, equation 10).

        Raises:
            DataError: the time is negative, the targets do not fit the outputs, or a number is not finite.
        """
        if not time >= 0:
            raise DataError(f"time={time} is no time to train for; give 0 or more.")
        residual = self._residual(x, targets)
        with _restored(self.module, self.weights):
            kernel = empirical_ntk(self.module, x, outputs="full", parameters=self.weights)
        size = residual.numel()
        values, vectors = torch.linalg.eigh(kernel.permute(0, 2, 1, 3).reshape(size, size).double())
        learned = _learned(values, rate * time)
        amounts = vectors @ (learned * (vectors.T @ residual.double().reshape(-1)))
        return self.pull(x, -amounts.reshape(residual.shape).to(residual.dtype))

    def descend(
        self,
        x: Num[Tensor, "n *shape"],
        targets: Float[Tensor, "n outputs"],
        steps: int,
        rate: float | int,
        momentum: float | int = 0.0,
    ) -> Weights:
        """Displacement after gradient descent on ``1/2 sum (f_lin - y)^2``, step by step in weights.

        Raises:
            DataError: the targets do not fit the outputs, or a number is not finite.
        """
        self._residual(x, targets)
        targets = targets.to(next(iter(self.weights.values())))
        delta, velocity = self.zero(), self.zero()
        for _ in range(steps):
            gradient = self.pull(x, self(x, delta) - targets)
            velocity = {name: momentum * velocity[name] + gradient[name] for name in velocity}
            delta = {name: delta[name] - rate * velocity[name] for name in delta}
        return delta

    def _residual(self, x: Tensor, targets: Tensor) -> Float[Tensor, "n outputs"]:
        outputs = self(x, self.zero())
        if targets.shape != outputs.shape:
            raise DataError(
                f"targets of shape {list(targets.shape)} do not fit outputs of shape {list(outputs.shape)}; "
                "give one row per example."
            )
        refuse_infinite(targets, "targets")
        return outputs - targets.to(outputs)

    def _outputs(self, weights: Weights, x: Tensor) -> Tensor:
        return functional_call(self.module, weights, (x,)).reshape(len(x), -1)


def linearize(module: nn.Module, *, parameters: Iterable[str] | None = None) -> Linearized:
    """The first-order expansion of a module in its weights, around their present values.

    Args:
        module: gives one row of outputs per example; later training of it does not change the expansion.
        parameters: names to expand in; None: all that require a gradient.

    Raises:
        ModelError: a name is unknown, none is left, or a weight is not finite.

    >>> net = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 1)).double()
    >>> linear, x = linearize(net), torch.eye(2, dtype=torch.float64)
    >>> delta = linear.solve(x, torch.ones(2, 1))  # t = infinity
    >>> torch.allclose(linear(x, delta), torch.ones(2, 1).double(), atol=1e-8)
    True
    """
    chosen = select_parameters(module, parameters)
    refuse_broken(chosen)
    return Linearized(module, {name: weight.detach().clone() for name, weight in chosen.items()})


class _restored:
    """The module with given weights inside the block, its present ones after it."""

    def __init__(self, module: nn.Module, weights: Weights) -> None:
        self.live, self.weights = dict(module.named_parameters()), weights

    def __enter__(self) -> None:
        self.present = {name: self.live[name].detach().clone() for name in self.weights}
        self._copy(self.weights)

    def __exit__(self, *_: object) -> None:
        self._copy(self.present)

    def _copy(self, weights: Weights) -> None:
        with torch.no_grad():
            for name, weight in weights.items():
                self.live[name].copy_(weight)


def _learned(values: Tensor, time: float) -> Tensor:
    """``(1 - exp(-lambda t)) / lambda``; eigenvalues within rounding of zero learn nothing at infinity."""
    floor = float(values[-1]) * len(values) * 1e-15
    positive = values > floor
    share = -torch.expm1(-values.clamp(min=0.0) * time)
    return torch.where(positive, share / torch.where(positive, values, 1.0), 0.0 if time == inf else time)
