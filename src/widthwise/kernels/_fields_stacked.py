"""Fields whose positions are different random vectors: sequences of states, tokens put in front, groups."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from widthwise.kernels._fields import (
    Centred,
    Concat,
    Field,
    Gained,
    Image,
    Local,
    Normalised,
    Offset,
    Product,
    Shared,
    Sizes,
    Sum,
    combine,
)
from widthwise.kernels._positions import moved, pointwise
from widthwise.kernels._walks import below


@dataclass(frozen=True, eq=False)
class Stacked(Field):
    """Fields side by side along one position axis.

    Attributes:
        parts: the fields; one that covers a single entry lacks the axis, the others have it.
        axis: index of the position axis along which they lie.
        lengths: how many entries each covers.
    """

    parts: tuple[Field, ...]
    axis: int
    lengths: tuple[int, ...]

    @property
    def positions(self) -> Sizes:  # type: ignore[override]
        rest = list(self.parts[0].positions)
        if self.lengths[0] > 1:
            del rest[self.axis]
        return (*rest[: self.axis], sum(self.lengths), *rest[self.axis :])

    @cached_property
    def gaussian(self) -> bool:  # type: ignore[override]
        return all(part.gaussian for part in self.parts)


def stack(parts: list[Field], axis: int = 0) -> Field:
    """Fields of equal positions as the entries of a new position axis; one alone stays without it."""
    return parts[0] if len(parts) == 1 else Stacked(tuple(parts), axis, (1,) * len(parts))


def elementwise(function: Callable[[Field], Field], field: Field) -> Field:
    """Apply a function that acts on each coordinate and position alone, to each block or entry by itself."""
    if isinstance(field, Concat):
        return Concat(tuple(elementwise(function, part) for part in field.parts), field.fractions)
    if isinstance(field, Stacked):
        return replace(field, parts=tuple(elementwise(function, part) for part in field.parts))
    return function(field)


def together(function: Callable[..., Field], fields: tuple[Field, ...]) -> Field:
    """The same for a function of several fields with equal positions."""
    first = next((field for field in fields if isinstance(field, Stacked)), None)
    if first is None:
        return function(*fields)
    starts = [sum(first.lengths[:i]) for i in range(len(first.lengths))]
    entries = [tuple(range(start, start + length)) for start, length in zip(starts, first.lengths, strict=True)]
    parts = [together(function, tuple(picked(field, first.axis, one) for field in fields)) for one in entries]
    return replace(first, parts=tuple(parts))


def picked(field: Field, axis: int, entries: tuple[int, ...]) -> Field:
    """Some entries of a position axis; a single one is left without the axis. Stacks are taken apart."""
    if entries == tuple(range(field.positions[axis])):
        return field
    if isinstance(field, (Shared, Offset)) and not (field.own and field.own[axis]):
        own = field.own and _cut(field.own, axis, len(entries), False)
        return replace(field, positions=_cut(field.positions, axis, len(entries), len(entries)), own=own)
    if not any(isinstance(one, Stacked) for one in below(field)):
        return _indexed(field, axis, entries)
    if isinstance(field, Stacked):
        return _from_stack(field, axis, entries)
    if isinstance(field, Sum):
        return combine([(scale, picked(term, axis, entries)) for scale, term in field.terms])
    if isinstance(field, Concat):
        return Concat(tuple(picked(part, axis, entries) for part in field.parts), field.fractions)
    if isinstance(field, (Image, Gained)):
        return replace(field, source=picked(field.source, axis, entries))
    if isinstance(field, Local):
        return replace(field, sources=tuple(picked(source, axis, entries) for source in field.sources))
    if isinstance(field, Normalised) and not field.pooled:
        statistic = picked(field.statistic, axis, entries)
        return replace(field, source=picked(field.source, axis, entries), statistic=statistic)
    if isinstance(field, Centred) and not field.pooled:
        return replace(field, source=picked(field.source, axis, entries))
    if type(field) is Product and field.contraction.key == ("pointwise",):
        source = picked(field.source, axis, entries)
        return replace(field, source=source, contraction=pointwise(source.positions))
    return _indexed(field, axis, entries)


def _cut(values: tuple, axis: int, count: int, value: object) -> tuple:
    """`values` with the entry of an axis replaced, or left out where one entry of the axis remains."""
    return (*values[:axis], *(() if count == 1 else (value,)), *values[axis + 1 :])


def _indexed(field: Field, axis: int, entries: tuple[int, ...]) -> Field:
    positions = _cut(field.positions, axis, len(entries), len(entries))

    def apply(moment: torch.Tensor) -> torch.Tensor:
        index = torch.tensor(entries, device=moment.device)
        return moment.index_select(1 + axis, index).reshape(-1, *positions)

    return moved(field, positions, apply, gathers=True)


def _from_stack(field: Stacked, axis: int, entries: tuple[int, ...]) -> Field:
    if axis != field.axis:
        inner = [axis - (axis > field.axis and length == 1) for length in field.lengths]
        parts = tuple(picked(part, one, entries) for part, one in zip(field.parts, inner, strict=True))
        return Stacked(parts, field.axis - (axis < field.axis and len(entries) == 1), field.lengths)
    runs: list[tuple[int, list[int]]] = []
    for entry in entries:
        place, inside = _place(field.lengths, entry)
        if runs and runs[-1][0] == place and field.lengths[place] > 1:
            runs[-1][1].append(inside)
        else:
            runs.append((place, [inside]))
    parts = tuple(
        field.parts[place] if field.lengths[place] == 1 else picked(field.parts[place], axis, tuple(inside))
        for place, inside in runs
    )
    return parts[0] if len(parts) == 1 else Stacked(parts, axis, tuple(len(inside) for _, inside in runs))


def _place(lengths: tuple[int, ...], entry: int) -> tuple[int, int]:
    """The part that holds an entry, and its index there."""
    for place, length in enumerate(lengths):
        if entry < length:
            return place, entry
        entry -= length
    raise IndexError(entry)
