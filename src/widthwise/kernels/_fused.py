"""Functions of one Gaussian field that are written in several operations, as one activation with quadrature."""

from collections.abc import Callable

import torch
from torch import Tensor

from widthwise.kernels._fields import Field, Image, Offset, Sum, combine
from widthwise.numerics import Activation


class _Reader:
    """Reads smooth expressions of one Gaussian field as functions of its value."""

    def __init__(self) -> None:
        self.core: Field | None = None
        self.key: tuple = ()
        self.unit = 1.0

    def read(self, field: Field) -> tuple[Callable[[Tensor], Tensor], str] | None:
        """The function and how it is written; None where it is of another field, or has kinks."""
        if field.gaussian:
            return self._linear(field)
        if isinstance(field, Offset) and field.weight is None:
            value = float(field.value)
            return (lambda z: torch.full_like(z, value)), repr(value)
        if isinstance(field, Image) and not field.activation.kinks:
            inner, phi = self.read(field.source), field.activation
            return None if inner is None else ((lambda z: phi.function(inner[0](z))), f"{phi.name}({inner[1]})")
        if isinstance(field, Sum):
            return self._sum(field)
        return None

    def _linear(self, field: Field) -> tuple[Callable[[Tensor], Tensor], str] | None:
        terms = sorted(field.terms, key=lambda term: id(term[1])) if isinstance(field, Sum) else [(1.0, field)]
        unit = float(terms[0][0])
        key = tuple((id(term), round(float(scale) / unit, 12)) for scale, term in terms)
        if self.core is None:
            self.core, self.key, self.unit = field, key, unit
        factor = unit / self.unit
        return ((lambda z: factor * z), f"{factor!r}z") if key == self.key else None

    def _sum(self, field: Sum) -> tuple[Callable[[Tensor], Tensor], str] | None:
        # sums are flat: the Gaussian terms belong together
        linear = [(scale, term) for scale, term in field.terms if term.gaussian]
        rest = [(float(scale), term) for scale, term in field.terms if not term.gaussian]
        parts = [(scale, self.read(term)) for scale, term in [*rest, *([(1.0, combine(linear))] if linear else [])]]
        functions = [(scale, part) for scale, part in parts if part is not None]
        if len(functions) < len(parts):
            return None
        written = " + ".join(f"{scale!r} {part[1]}" for scale, part in functions)
        return (lambda z: sum((scale * part[0](z) for scale, part in functions), torch.zeros_like(z))), f"({written})"


def fused(function: Callable[..., Tensor], sources: tuple[Field, ...], name: str) -> Image | None:
    """``function(*sources)`` as an activation of the one Gaussian field below, if they are smooth and there is one.

    Args:
        function: elementwise and smooth.
    """
    reader = _Reader()
    parts = [reader.read(source) for source in sources]
    found = [part for part in parts if part is not None]
    if reader.core is None or len(found) < len(parts):
        return None

    def composed(z: Tensor) -> Tensor:
        return function(*(part[0](z) for part in found))

    return Image(Activation.of(composed, f"{name}({', '.join(part[1] for part in found)})"), reader.core)
