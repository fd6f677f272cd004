"""Finite networks of any abc-parametrisation: the other side of every limit here.

Source: Yang & Hu 2021 (arXiv:2011.14522), definition of abc-parametrisations.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from widthwise.core import generator
from widthwise.numerics import ACTIVATIONS, Activation
from widthwise.scaling import AbcTable, named_abc
from widthwise.theory.feature._errors import FeatureLimitError, at_least


def activation_of(activation: str | Activation) -> Activation:
    """An activation by name, or the one given."""
    if isinstance(activation, Activation):
        return activation
    if activation not in ACTIVATIONS:
        raise FeatureLimitError(f"activation={activation!r} is not known; give one of {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[activation]()


class AbcNetwork(nn.Module):
    """A multilayer perceptron without biases in any abc-parametrisation.

    Layer l has the weights ``n^-a_l w^l`` with ``w^l ~ N(0, sigma_l^2 n^-2b_l)``;
    ``parameter_groups(rate)`` gives layer l the rate ``rate n^-c_l``. Append a constant column to the inputs for a
    bias of the first layer.

    Args:
        inputs, width, outputs: sizes; every hidden layer has `width` units.
        table: its length decides the depth; muP with one hidden layer if None.
        activation: name or `Activation`.
        sigma: standard deviation factors, one per layer; 1 by default.

    Raises:
        FeatureLimitError: an empty size, an unknown activation, or a wrong number of factors.

    Source: arXiv:2011.14522, section 3.

    >>> net = AbcNetwork(3, 64, 2, named_abc("mup", 2))
    >>> net(torch.ones(5, 3)).shape
    torch.Size([5, 2])
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        outputs: int,
        table: AbcTable | None = None,
        activation: str | Activation = "tanh",
        *,
        sigma: Sequence[float] | None = None,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        for name, value in (("inputs", inputs), ("width", width), ("outputs", outputs)):
            at_least(name, value, 1, "a network needs units")
        self.table = named_abc("mup", 1) if table is None else table
        self.activation = activation_of(activation)
        layers = len(self.table.a)
        self.sigma = tuple(sigma) if sigma is not None else (1.0,) * layers
        if len(self.sigma) != layers:
            raise FeatureLimitError(
                f"sigma has {len(self.sigma)} entries and the network {layers} layers; give one each."
            )
        sizes = [inputs, *[width] * (layers - 1), outputs]
        random = generator(seed, "abc network", width)
        self.width = width
        self.weights = nn.ParameterList()
        for fan_in, fan_out, b, factor in zip(sizes, sizes[1:], self.table.b, self.sigma, strict=False):
            draw = torch.randn(fan_out, fan_in, generator=random, dtype=dtype)
            self.weights.append(nn.Parameter(factor * width ** -float(b) * draw))

    @property
    def multipliers(self) -> tuple[float, ...]:
        """``n^-a_l`` of each layer."""
        return tuple(self.width ** -float(a) for a in self.table.a)

    def hidden(self, x: Float[Tensor, "samples inputs"]) -> list[Float[Tensor, "samples width"]]:
        """Activations of every hidden layer."""
        found: list[Tensor] = []
        for weight, multiplier in list(zip(self.weights, self.multipliers, strict=True))[:-1]:
            x = self.activation(multiplier * x @ weight.T)
            found.append(x)
        return found

    def forward(self, x: Float[Tensor, "samples inputs"]) -> Float[Tensor, "samples outputs"]:
        """The outputs."""
        return self.multipliers[-1] * self.hidden(x)[-1] @ self.weights[-1].T

    def parameter_groups(self, rate: float | Sequence[float]) -> list[dict[str, Any]]:
        """Groups for `torch.optim.SGD`: layer l at ``rate n^-c_l`` (one rate, or one per layer)."""
        rates = [rate] * len(self.weights) if isinstance(rate, (int, float)) else list(rate)
        steps = [r * self.width ** -float(c) for r, c in zip(rates, self.table.c, strict=True)]
        return [{"params": [weight], "lr": step} for weight, step in zip(self.weights, steps, strict=True)]
