"""The backward program, for outputs that are averages over coordinates.

Such an output is one number for each input; its gradient depends on the forward pass through transposed matrices, which
are no fresh copies (gradient independence fails: sheet, sections 2.3 and 2.4). Gradients are kept as samples of
``sqrt(width) * df/dx`` of each field x, and the tangent kernel is, over all pairs of uses of each matrix, the sum of
``E[dg dg'] E[h h']``.
"""

from collections.abc import Callable
from functools import singledispatchmethod
from math import prod

import torch
from torch import Tensor

from widthwise.core import UnsupportedOperation
from widthwise.kernels._coordinates_matrices import Acting, NoTranspose, Track, moments
from widthwise.kernels._coordinates_values import Coordinates
from widthwise.kernels._fields import (
    Centred,
    Field,
    Gained,
    Image,
    Inputs,
    Local,
    Moved,
    Normalised,
    Offset,
    Product,
    Shared,
    Sum,
    Tokens,
)
from widthwise.kernels._fields_joint import Averaged, Joint
from widthwise.kernels._walks import in_order
from widthwise.program import Weight

Use = tuple[Product, Tensor]
"""A product, and the gradient by it."""


class Backward:
    """Gradients of an output that is made of averages, by samples of one coordinate.

    Args:
        run: samples of all fields (``evaluate(..., keep_all=True)``).
        output: averages over coordinates, scaled and added; of one position.
    """

    def __init__(self, run: Coordinates, output: Field) -> None:
        if prod(output.positions) != 1:
            raise UnsupportedOperation("mean", "", "an average at several positions has no gradient rule")
        self.run = run
        self.kernel = torch.zeros(run.count, run.count, dtype=run.dtype)
        self.gradients: dict[int, Tensor] = {}
        self.uses: dict[str, list[Use]] = {}
        shape = (run.samples, run.count, *output.positions)
        self.gradients[id(output)] = torch.ones(shape, dtype=run.dtype)
        for field in reversed(in_order(output)):
            if id(field) in self.gradients:
                try:
                    self.pull(field, self.gradients[id(field)])
                except NoTranspose as reason:
                    raise UnsupportedOperation("mean", "", f"in its gradients {reason}") from None
        for uses in self.uses.values():
            self._add_matrix(uses)

    def give(self, field: Field, gradient: Tensor) -> None:
        """Add to the gradient by a field."""
        before = self.gradients.get(id(field))
        self.gradients[id(field)] = gradient if before is None else before + gradient

    @singledispatchmethod
    def pull(self, field: Field, gradient: Tensor) -> None:
        """Hand a field's gradient on to what it is made from, and to the kernel what its parameters contribute."""
        name = type(field).__name__.lower()
        raise UnsupportedOperation(name, "", "the gradient of an average over coordinates has no rule through it")

    @pull.register
    def _(self, field: Averaged, gradient: Tensor) -> None:
        self.give(field.source, gradient * (field.scale / field.width**0.5))

    @pull.register
    def _(self, field: Sum, gradient: Tensor) -> None:
        for scale, term in field.terms:
            self.give(term, scale * gradient)

    @pull.register
    def _(self, field: Moved, gradient: Tensor) -> None:
        self._through(lambda x: field.move.apply(x.flatten(0, 1)).unflatten(0, x.shape[:2]), (field.source,), gradient)

    @pull.register
    def _(self, field: Image, gradient: Tensor) -> None:
        self.give(field.source, gradient * field.activation.derivative(self.run.track(field.source).value))

    @pull.register
    def _(self, field: Local, gradient: Tensor) -> None:
        self._through(field.function, field.sources, gradient)

    @pull.register
    def _(self, field: Joint, gradient: Tensor) -> None:
        self._through(self.run.over_samples(field), field.sources, gradient)

    def _through(self, function: Callable[..., Tensor], sources: tuple[Field, ...], gradient: Tensor) -> None:
        transpose = torch.func.vjp(function, *(self.run.track(source).value for source in sources))[1]
        for source, part in zip(sources, transpose(gradient), strict=True):
            self.give(source, part)

    @pull.register
    def _(self, field: Normalised, gradient: Tensor) -> None:
        """The statistic has a gradient too, where the gradient is correlated with the field."""
        run = self.run
        scale, source = run.norm_scale(field), run.track(field.source).value
        self.give(field.source, gradient * scale)
        slope = (gradient * source).mean(0)
        if field.pooled and field.positions:
            slope = slope.flatten(1).mean(1).reshape(-1, *(1,) * len(field.positions))
        self.give(field.statistic, -slope * scale**3 * run.track(field.statistic).value)

    @pull.register
    def _(self, field: Centred, gradient: Tensor) -> None:
        centre = 0.0 if field.gaussian else self.run.pooled(gradient.mean(0), field.pooled)
        self.give(field.source, gradient - centre)

    @pull.register
    def _(self, field: Gained, gradient: Tensor) -> None:
        self.give(field.source, field.value * gradient)
        source = self.run.track(field.source).value
        self._add_vector(field.weight, 0.0, (gradient * source).reshape(*gradient.shape[:2], -1).sum(2))

    @pull.register
    def _(self, field: Shared, gradient: Tensor) -> None:
        self._add_vector(field.weight, float(field.variance), self._own(field, gradient))

    @pull.register
    def _(self, field: Offset, gradient: Tensor) -> None:
        if field.weight is not None:
            self._add_vector(field.weight, 0.0, self._own(field, gradient))

    def _own(self, field: Shared | Offset, gradient: Tensor) -> Tensor:
        """Summed over the positions that share an entry of the parameter, ``[M, n, entries]``."""
        shared = [2 + axis for axis, own in enumerate(field.own) if not own]
        return (gradient.sum(shared) if shared else gradient).reshape(*gradient.shape[:2], -1)

    @pull.register
    def _(self, field: Inputs, gradient: Tensor) -> None:
        """Data are not trained."""

    @pull.register
    def _(self, field: Tokens, gradient: Tensor) -> None:
        run = self.run
        factor = run.contribution(field.weight, float(field.variance), 1)
        indices = run.data[field.node].reshape(-1, *field.positions)
        indices = indices.expand(run.count, *field.positions).reshape(-1)
        same = (indices[:, None] == indices[None, :]) & (indices != field.padding)
        flat = gradient.reshape(gradient.shape[0], -1)
        products = flat.T @ flat / flat.shape[0] * same
        sites = prod(field.positions)
        self.kernel += factor * products.reshape(run.count, sites, run.count, sites).sum((1, 3))

    def _add_vector(self, weight: Weight, variance: float, entries: Tensor) -> None:
        factor = self.run.contribution(weight, variance, 1)
        self.kernel += factor * torch.einsum("mi...,mj...->ij", entries, entries) / entries.shape[0]

    @pull.register
    def _(self, field: Product, gradient: Tensor) -> None:
        self.uses.setdefault(field.weight.name, []).append((field, gradient))
        if isinstance(field.source, Inputs):
            return
        run, contraction, sites = self.run, field.contraction, field.source.positions
        ratio = field.weight.value.numel() / field.contracted**2 if contraction.key[0] == "pointwise" else 1.0
        zero = torch.zeros(run.count**2, *sites, *sites, dtype=run.dtype)
        spread = torch.func.vjp(contraction.full, zero)[1]
        act = Acting(
            not field.transposed,
            float(field.variance) * ratio,
            0.0,
            lambda moment: spread(moment)[0],
            sites,
            contraction.key[0] == "pointwise",
            False,
        )
        product = run.matrix(field.weight).multiply(Track(gradient), act, tangents=False)
        self.give(field.source, product.value / ratio**0.5)

    def _add_matrix(self, uses: list[Use]) -> None:
        """All pairs of uses; where one is transposed, outer products meet the other way round."""
        for first, by_first in uses:
            for second, by_second in uses:
                if first.transposed and not second.transposed:
                    continue
                term = self._pair(first, by_first, second, by_second)
                self.kernel += term if first.transposed == second.transposed else term + term.T

    def _pair(self, first: Product, by_first: Tensor, second: Product, by_second: Tensor) -> Tensor:
        run = self.run
        factor = run.trained(first)
        a, b = (run.values[id(field.source)] for field in (first, second))
        if first.transposed == second.transposed:
            act = run.acting(first)
            inner = moments(a, b, diagonal=act.diagonal)
            outer = moments(Track(by_first), Track(by_second))
            assert inner is not None and outer is not None
            product = act.contract(inner) * outer
        else:
            ratio = first.weight.value.numel() / first.contracted**2
            left, right = moments(Track(by_first), b), moments(a, Track(by_second))
            assert left is not None and right is not None
            factor, product = factor * ratio**0.5, left * right
        return factor * product.reshape(run.count, run.count, -1).sum(2)
