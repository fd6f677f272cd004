"""Parts of a hypernetwork: input encoding, initial values of an ordinary network, and heads."""

from collections.abc import Mapping, Sequence
from math import pi, prod, sqrt
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from widthwise.core import DataError, require_memory

Encoding = Literal["cos|sin", "z|1-z"]
LEAKY_GAIN = sqrt(2 / (1 + 0.01**2))
_COPIES = 4  # weight, gradient, two moments of Adam
_BYTES = 4


def encode(values: Float[Tensor, "*batch inputs"], encoding: Encoding = "cos|sin") -> Float[Tensor, "*batch doubled"]:
    """Inputs in [0, 1] as vectors of constant norm: all of ``cos(pi z / 2)``, then all of ``sin(pi z / 2)``.

    The norm is the square root of the number of inputs. ``"z|1-z"`` (all z, then all 1 - z) has constant sum instead.

    Source: arXiv:2304.07645, equation 4.

    >>> round(encode(torch.tensor([0.3, 0.9])).norm().square().item(), 5)
    2.0
    """
    if encoding == "cos|sin":
        return torch.cat([(values * pi / 2).cos(), (values * pi / 2).sin()], dim=-1)
    return torch.cat([values, 1 - values], dim=-1)


def to_unit(values: Tensor, low: float, high: float, *, log: bool = False) -> Tensor:
    """Map a fixed range onto [0, 1], in the logarithm for quantities that span decades.

    Raises:
        DataError: an empty range, or one that has no logarithm.

    >>> to_unit(torch.tensor([1e-4, 1e-2, 1.0]), 1e-4, 1.0, log=True).tolist()
    [0.0, 0.5, 1.0]
    """
    if not low < high or (log and low <= 0):
        raise DataError(f"the range from {low} to {high} is empty or has no logarithm; give 0 < low < high.")
    if log:
        values, low, high = values.log(), float(torch.tensor(low).log()), float(torch.tensor(high).log())
    return (values - low) / (high - low)


def ordinary_values(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Values such as an ordinary network starts from, where only shapes are known.

    Tensors of two axes or more: Kaiming normal (variance 2 / fan-in); names that end in "bias": zeros; other
    vectors and scalars (gains of norms): ones. The values that a module was built with, from `externalize`, are better.

    >>> [value.item() for value in ordinary_values({"norm.weight": (1,), "norm.bias": (1,)}).values()]
    [1.0, 0.0]
    """
    values = {}
    for name, shape in shapes.items():
        if len(shape) > 1:
            values[name] = torch.randn(tuple(shape)) * sqrt(2 / max(1, prod(shape[1:])))
        else:
            values[name] = torch.full(tuple(shape), 0.0 if name.endswith("bias") else 1.0)
    return values


class DenseHead(nn.Module):
    """A linear map to all parameters; rows of each predicted tensor start as a layer of their own.

    Args:
        features: inputs.
        sizes: entries of each predicted tensor.
        split: Kaiming normal with the fan-out of each tensor (variance 2 / entries); where False, of all together.
    """

    def __init__(self, features: int, sizes: Sequence[int], split: bool) -> None:
        super().__init__()
        _guard(features * sum(sizes), f"a head from {features} features to {sum(sizes)} parameters")
        scale = _scales(sizes, split)
        self.weight = nn.Parameter(torch.randn(sum(sizes), features) * scale[:, None])

    def forward(self, features: Tensor) -> Tensor:
        """``[..., features]`` to ``[..., parameters]``."""
        return nn.functional.linear(features, self.weight)


class ChunkedHead(nn.Module):
    """One linear map for all chunks of the parameters, told apart by learned vectors that multiply its inputs.

    Its memory is ``features * (chunk + parameters / chunk)`` instead of ``features * parameters``. Like a linear map it
    has no constant part.

    Args:
        features: inputs.
        sizes: entries of each predicted tensor.
        split: as in `DenseHead`.
        chunk: parameters per chunk.
    """

    scale: Tensor

    def __init__(self, features: int, sizes: Sequence[int], split: bool, chunk: int) -> None:
        super().__init__()
        total = sum(sizes)
        chunks = -(-total // chunk)
        _guard(features * (chunk + chunks), f"a head from {features} features to {total} parameters in chunks")
        self.weight = nn.Parameter(torch.randn(min(chunk, total), features))
        self.codes = nn.Parameter(torch.randn(chunks, features))
        self.register_buffer("scale", _scales(sizes, split))

    def forward(self, features: Tensor) -> Tensor:
        """``[..., features]`` to ``[..., parameters]``."""
        chunks = nn.functional.linear(features.unsqueeze(-2) * self.codes, self.weight)
        return chunks.flatten(-2)[..., : self.scale.numel()] * self.scale


def _scales(sizes: Sequence[int], split: bool) -> Tensor:
    total = sum(sizes)
    return torch.cat([torch.full((size,), LEAKY_GAIN / sqrt(max(1, size if split else total))) for size in sizes])


def _guard(weights: int, what: str) -> None:
    """Raises ResourceError before a head is made that could not be trained."""
    require_memory(_COPIES * _BYTES * weights, what, "give chunk=4096 or so, or a smaller last hidden size.")
