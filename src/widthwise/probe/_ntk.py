"""The empirical neural tangent kernel of a finite network."""

from collections.abc import Iterable, Iterator
from math import prod
from typing import Literal

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from widthwise.core import ModelError
from widthwise.probe._examples import ExampleGradients
from widthwise.probe._modules import call, measuring, placed, rows_that_fit, select_parameters

_COLUMNS = 32  # examples whose Jacobians are made in one vectorised call


def empirical_ntk(
    module: nn.Module,
    x1: Num[Tensor, "n1 *shape"],
    x2: Num[Tensor, "n2 *shape"] | None = None,
    *,
    outputs: Literal["trace", "full"] = "trace",
    chunk: int | None = None,
    parameters: Iterable[str] | None = None,
) -> Float[Tensor, "n1 n2"] | Float[Tensor, "n1 n2 out out"]:
    r"""Empirical neural tangent kernel, contracted from chunks of Jacobians.

    ``full[i, j, a, b] = sum_p  d f_a(x1[i]) / d theta_p  *  d f_b(x2[j]) / d theta_p`` (arXiv:1806.07572, section 4),
    over the parameters as they are, without any learning-rate factor. ``"trace"`` is the mean over ``a = b``: the
    trace divided by the number of outputs, so that it converges to the infinite-width kernel *per output*.

    The module is measured in evaluation mode and left as it was. With ``x2=None`` only half is computed.

    Args:
        module: gives one row of outputs per example (further axes are flattened).
        x1, x2: inputs; moved to the module's device and, if real, to its floating-point type.
        outputs: ``"trace"`` or ``"full"``.
        chunk: examples of `x1` whose Jacobians are held at once; None: a quarter of the free memory, at most 2 GiB.
            The result does not depend on it beyond rounding.
        parameters: names to differentiate by; None: all that require a gradient.

    Returns:
        ``[n1, n2]``, or ``[n1, n2, outputs, outputs]``, on the module's device, in its floating-point type.

    Raises:
        ModelError: the module does not take the inputs, or a name is unknown.
        ResourceError: the Jacobian of one example does not fit in memory.

    >>> linear = nn.Linear(3, 2, bias=False)
    >>> x = torch.randn(4, 3)
    >>> torch.allclose(empirical_ntk(linear, x), x @ x.T, atol=1e-5)
    True
    """
    if outputs not in ("trace", "full"):
        raise ModelError(f"outputs={outputs!r} is no kind of empirical kernel; give 'trace' or 'full'.")
    chosen = select_parameters(module, parameters)
    x1 = placed(module, x1)
    x2 = None if x2 is None else placed(module, x2)
    with measuring(module), torch.no_grad():
        width = call(module, x1[:1]).shape[1]
        rows = chunk or _rows(chosen, width)
        gradients = ExampleGradients(module, chosen, lambda values: values)
        kernel = _Contraction(gradients, width, rows, full=outputs == "full")
        return kernel.symmetric(x1) if x2 is None else kernel.rectangle(x1, x2)


class _Contraction:
    """Tiles of the kernel: the Jacobians of a chunk of rows are kept while those of the columns stream past."""

    def __init__(self, gradients: ExampleGradients, outputs: int, rows: int, *, full: bool) -> None:
        self.gradients = gradients
        self.outputs = outputs
        self.rows = rows
        self.columns = max(1, min(_COLUMNS, rows // 4))
        self.full = full

    def rectangle(self, x1: Tensor, x2: Tensor) -> Tensor:
        """All pairs of `x1` and `x2`."""
        result = self._empty(x1, len(x2))
        for start, stop in _pieces(0, len(x1), self.rows):
            jacobian = self._jacobian(x1[start:stop])
            for left, right in _pieces(0, len(x2), self.columns):
                result[start:stop, left:right] = self._tile(jacobian, self._jacobian(x2[left:right]))
        return result

    def symmetric(self, x: Tensor) -> Tensor:
        """All pairs of `x`, each computed once."""
        result = self._empty(x, len(x))
        for start, stop in _pieces(0, len(x), self.rows):
            jacobian = self._jacobian(x[start:stop])
            tile = self._tile(jacobian, jacobian)
            result[start:stop, start:stop] = (tile + _transposed(tile)) / 2
            for left, right in _pieces(stop, len(x), self.columns):
                tile = self._tile(jacobian, self._jacobian(x[left:right]))
                result[start:stop, left:right] = tile
                result[left:right, start:stop] = _transposed(tile)
        return result

    def _empty(self, x: Tensor, columns: int) -> Tensor:
        first = next(iter(self.gradients.parameters.values()))
        shape = (len(x), columns, self.outputs, self.outputs) if self.full else (len(x), columns)
        return torch.empty(shape, dtype=first.dtype, device=first.device)

    def _jacobian(self, x: Tensor) -> Float[Tensor, "n outputs parameters"]:
        parameters = self.gradients.parameters
        total = sum(tensor.numel() for tensor in parameters.values())
        first = next(iter(parameters.values()))
        result = torch.empty((len(x), self.outputs, total), dtype=first.dtype, device=first.device)
        for start, stop in _pieces(0, len(x), self.columns):
            part = self.gradients(x[start:stop])
            torch.cat([part[name].flatten(2) for name in parameters], dim=2, out=result[start:stop])
        return result

    def _tile(self, left: Tensor, right: Tensor) -> Tensor:
        if self.full:
            return torch.einsum("iap,jbp->ijab", left, right)
        return left.flatten(1) @ right.flatten(1).T / self.outputs


def _rows(parameters: dict[str, Tensor], outputs: int) -> int:
    first = next(iter(parameters.values()))
    numbers = outputs * sum(prod(tensor.shape) for tensor in parameters.values())
    return rows_that_fit(numbers * first.element_size(), first.device, "the Jacobian")


def _transposed(tile: Tensor) -> Tensor:
    return tile.transpose(0, 1) if tile.ndim == 2 else tile.permute(1, 0, 3, 2)


def _pieces(start: int, stop: int, size: int) -> Iterator[tuple[int, int]]:
    return ((left, min(left + size, stop)) for left in range(start, stop, size))
