"""Slices of coordinates: other rows of a random matrix are independent copies of the same law."""

from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor

from widthwise.core import UnsupportedOperation
from widthwise.kernels._affine import affine
from widthwise.kernels._fields import (
    Centred,
    Concat,
    Field,
    Gained,
    Image,
    Local,
    Moved,
    Normalised,
    Offset,
    Product,
    Shared,
    Sum,
    Tokens,
    combine,
)
from widthwise.kernels._fields_stacked import Stacked
from widthwise.kernels._walks import children
from widthwise.program import Weight


class NoPiece(Exception):
    """The field's coordinates are not of one law, or depend on each other."""


@dataclass(frozen=True, eq=False)
class CutWeight(Weight):
    """Some rows of a weight, as a weight of its own.

    Attributes:
        base: the weight.
        rows: which of its coordinates.
    """

    base: Weight = field(repr=False, metadata={"plain": False})
    rows: Tensor = field(repr=False, metadata={"plain": False})


def share_rows(one: Weight, other: Weight) -> bool:
    """Whether two different weights are cuts of the same weight (or one of them is that weight) with common rows."""
    if one is other or not (isinstance(one, CutWeight) or isinstance(other, CutWeight)):
        return False
    (base, rows), (other_base, other_rows) = _base(one), _base(other)
    if base is not other_base or rows is None or other_rows is None:
        return base is other_base
    return bool(torch.isin(rows, other_rows).any())


def check_apart(one: Field, other: Field) -> None:
    """Two fields of different weights count as independent, which cuts of one weight with common rows are not.

    Raises:
        UnsupportedOperation: they are such cuts.
    """
    first, second = getattr(one, "weight", None), getattr(other, "weight", None)
    if first is not None and second is not None and share_rows(first, second):
        raise UnsupportedOperation(
            "slice",
            first.module_path,
            f"a slice of what {_base(first)[0].name} gives meets the whole, or another slice",
        )


def base_name(weight: Weight) -> str:
    """The name of the weight that this one is, or is cut out of."""
    return _base(weight)[0].name


def _base(weight: Weight) -> tuple[Weight, Tensor | None]:
    return (weight.base, weight.rows) if isinstance(weight, CutWeight) else (weight, None)


class Pieces:
    """Cuts fields along their coordinates, and gives the same field for the same cut."""

    def __init__(self) -> None:
        self.fields: dict[tuple[int, bytes], tuple[Field, Field]] = {}
        self.weights: dict[tuple[int, bytes], Weight] = {}

    def cut(self, field: Field, index: Tensor) -> Field:
        """The coordinates `index` of a field.

        Raises:
            NoPiece: its coordinates are not many of one law.
        """
        key = (id(field), index.numpy().tobytes())
        if key not in self.fields:
            self.fields[key] = (field, self._cut(field, index))
        return self.fields[key][1]

    def _cut(self, field: Field, index: Tensor) -> Field:
        if isinstance(field, Sum):
            return combine([(scale, self.cut(term, index)) for scale, term in field.terms])
        if isinstance(field, (Product, Shared, Tokens)):
            return replace(field, weight=self.weight(field.weight, index))
        if isinstance(field, Offset):
            return field if field.weight is None else replace(field, weight=self.weight(field.weight, index))
        if isinstance(field, Gained):
            return replace(field, source=self.cut(field.source, index), weight=self.weight(field.weight, index))
        if isinstance(field, (Moved, Normalised, Centred, Image)):
            return replace(field, source=self.cut(field.source, index))
        if isinstance(field, Local):
            return replace(field, sources=tuple(self.cut(source, index) for source in field.sources))
        if isinstance(field, Stacked):
            return replace(field, parts=tuple(self.cut(part, index) for part in field.parts))
        raise NoPiece(type(field).__name__)

    def lined_up(self, terms: list[tuple[float, Field]], count: int) -> list[tuple[float, Field]]:
        """Terms of a sum over `count` coordinates, with whole fields cut where blocks hold cuts of the same weights.

        Raises:
            NoPiece: such a field cannot be cut.
        """
        blocks = next((field for _, field in terms if isinstance(field, Concat)), None)
        if blocks is None:
            return terms
        ends = [round(count * sum(blocks.fractions[: i + 1])) for i in range(len(blocks.parts))]
        spans = list(zip([0, *ends[:-1]], ends, strict=True))
        used = {id(base) for base, _ in map(_base, _weights(blocks))}

        def cut(field: Field) -> Field:
            if isinstance(field, Concat) or not any(id(weight) in used for weight in _weights(field)):
                return field
            return Concat(tuple(self.cut(field, torch.arange(*span)) for span in spans), blocks.fractions)

        flat = [
            (scale * inner, one)
            for scale, term in terms
            for inner, one in (term.terms if isinstance(term, Sum) else ((1.0, term),))
        ]
        return [(scale, cut(field)) for scale, field in flat]

    def weight(self, weight: Weight, index: Tensor) -> Weight:
        """The rows `index` of a weight, under a name of their own: one object for the same rows."""
        base, rows = _base(weight)
        rows = index if rows is None else rows[index]
        key = (id(base), rows.numpy().tobytes())
        if key not in self.weights:
            name = f"{base.name}[{int(rows[0])}:{int(rows[-1]) + 1}:{len(self.weights)}]"
            own = {one.name: getattr(base, one.name) for one in fields(base)} | {"name": name}
            self.weights[key] = CutWeight(**own, base=base, rows=rows)
        return self.weights[key]


def _weights(field: Field) -> list[Weight]:
    """The weights whose entries of one coordinate a field depends on."""
    if isinstance(field, Product):
        return [field.weight]
    found = [weight for child in children(field) for weight in _weights(child)]
    own = getattr(field, "weight", None)
    return found if own is None else [own, *found]


def chosen(sizes: tuple[int, ...], axis: int, entries: range) -> Tensor:
    """Flat indices of some entries along one axis of coordinates of these sizes."""
    whole = torch.arange(torch.Size(sizes).numel()).reshape(sizes)
    return whole.index_select(axis, torch.tensor(list(entries))).reshape(-1)


def turned_halves(field: Field, other: Field, first: Field, second: Field) -> bool:
    """Whether `other` is the halves of `field` swapped, ``[-second, first]`` (as rotary positions write it)."""
    if not isinstance(other, Concat) or len(other.parts) != 2 or other.fractions[0] != other.fractions[1]:
        return False
    return _same(other.parts[0], combine([(-1.0, second)])) and _same(other.parts[1], first)


def _same(one: Field, other: Field) -> bool:
    if isinstance(one, Sum) and isinstance(other, Sum):
        return [(scale, id(term)) for scale, term in one.terms] == [(scale, id(term)) for scale, term in other.terms]
    return affine(one) == affine(other)
