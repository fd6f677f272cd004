"""Samples of each kind of field from those of what it is made from."""

from collections.abc import Callable

import torch
from torch import Tensor

from widthwise.core import UnsupportedOperation, derived_seed
from widthwise.kernels._affine import constant_part
from widthwise.kernels._coordinates_matrices import Blocks, Track
from widthwise.kernels._coordinates_values import Coordinates
from widthwise.kernels._fields import (
    Centred,
    Concat,
    Field,
    Gained,
    Image,
    Inputs,
    Local,
    Moved,
    Normalised,
    Offset,
    Shared,
    Sum,
    Tokens,
)
from widthwise.kernels._fields_joint import Averaged, Joint
from widthwise.kernels._walks import in_order


@Coordinates.draw.register(Inputs)  # type: ignore[attr-defined]
def _inputs(run: Coordinates, field: Inputs) -> Track:
    """Coordinates of data are its features: each is shown equally often."""
    features = field.read(run.data[field.node].to(run.dtype))
    shuffle = torch.Generator().manual_seed(derived_seed(run.seed, "features"))
    chosen = torch.arange(run.samples)[torch.randperm(run.samples, generator=shuffle)] % features.shape[2]
    return Track(features[..., chosen].movedim(2, 0).reshape(run.samples, -1, *field.positions), None, features)


@Coordinates.draw.register(Tokens)  # type: ignore[attr-defined]
def _tokens(run: Coordinates, field: Tokens) -> Track:
    indices = run.data[field.node]
    known = indices.unique()
    tables = []
    for what in ("value", "tangent"):
        columns = [run.vector(f"{field.weight.name}[{token}]", what, (1,)) for token in known.tolist()]
        tables.append(torch.cat(columns, 1) * (known != field.padding))
    placed = torch.searchsorted(known, indices).reshape(-1, *field.positions)
    placed = placed if field.batched else placed.expand(run.count, *field.positions)
    factor = run.contribution(field.weight, float(field.variance), 1) if run.tangents else 0.0
    value, tangent = (table[:, placed] for table in tables)
    return Track(value * float(field.variance) ** 0.5, tangent * factor**0.5 if factor else None)


@Coordinates.draw.register(Shared)  # type: ignore[attr-defined]
def _shared(run: Coordinates, field: Shared) -> Track:
    entries = _of_spread(run, field, "value") * float(field.variance) ** 0.5
    return Track(entries, _of_parameter(run, field, float(field.variance)))


@Coordinates.draw.register(Offset)  # type: ignore[attr-defined]
def _offset(run: Coordinates, field: Offset) -> Track:
    shape = (run.samples, run.count, *field.positions)
    return Track(torch.full(shape, field.value, dtype=run.dtype), _of_parameter(run, field, 0.0))


def _of_parameter(run: Coordinates, field: Shared | Offset, variance: float) -> Tensor | None:
    if field.weight is None or not run.tangents:
        return None
    factor = run.contribution(field.weight, variance, 1)
    return _of_spread(run, field, "tangent") * factor**0.5 if factor else None


def _of_spread(run: Coordinates, field: Shared | Offset, what: str) -> Tensor:
    assert field.weight is not None
    own = tuple(size for size, here in zip(field.positions, field.own, strict=True) if here)
    shape = tuple(size if here else 1 for size, here in zip(field.positions, field.own, strict=True))
    entries = run.vector(field.weight.name, what, own).reshape(run.samples, 1, *shape)
    return entries.expand(run.samples, run.count, *field.positions)


@Coordinates.draw.register(Sum)  # type: ignore[attr-defined]
def _sum(run: Coordinates, field: Sum) -> Track:
    tracks = [(scale, run.track(term)) for scale, term in field.terms]
    value = sum((scale * track.value for scale, track in tracks[1:]), tracks[0][0] * tracks[0][1].value)
    tangents = [scale * track.tangent for scale, track in tracks if track.tangent is not None]
    return Track(value, sum(tangents[1:], tangents[0]) if tangents else None)


@Coordinates.draw.register(Moved)  # type: ignore[attr-defined]
def _moved(run: Coordinates, field: Moved) -> Track:
    source = run.track(field.source)
    return _of_linear(run, source, lambda x: field.move.apply(x.flatten(0, 1)).unflatten(0, x.shape[:2]))


def _of_linear(run: Coordinates, source: Track, change: Callable[[Tensor], Tensor]) -> Track:
    return Track(change(source.value), None if source.tangent is None else change(source.tangent))


@Coordinates.draw.register(Normalised)  # type: ignore[attr-defined]
def _normalised(run: Coordinates, field: Normalised) -> Track:
    """Statistics are means over coordinates: numbers, whose derivative vanishes by symmetry."""
    scale = run.norm_scale(field)
    return _of_linear(run, run.track(field.source), lambda x: x * scale)


@Coordinates.draw.register(Centred)  # type: ignore[attr-defined]
def _centred(run: Coordinates, field: Centred) -> Track:
    source = run.track(field.source)
    if field.gaussian:
        return Track(source.value - (constant_part(field.source) or 0.0), source.tangent)
    return Track(source.value - run.pooled(source.value.mean(0), field.pooled), source.tangent)


@Coordinates.draw.register(Gained)  # type: ignore[attr-defined]
def _gained(run: Coordinates, field: Gained) -> Track:
    source = run.track(field.source)
    tangent = None if source.tangent is None else field.value * source.tangent
    factor = run.contribution(field.weight, 0.0, 1) if run.tangents else 0.0
    if factor:
        entry = run.vector(field.weight.name, "tangent", (1,)) * factor**0.5
        own = source.value * entry.reshape(-1, *(1,) * (source.value.dim() - 1))
        tangent = own if tangent is None else tangent + own
    return Track(field.value * source.value, tangent)


@Coordinates.draw.register(Image)  # type: ignore[attr-defined]
def _image(run: Coordinates, field: Image) -> Track:
    source = run.track(field.source)
    slope = None if source.tangent is None else field.activation.derivative(source.value) * source.tangent
    return Track(field.activation.function(source.value), slope)


@Coordinates.draw.register(Local)  # type: ignore[attr-defined]
def _local(run: Coordinates, field: Local) -> Track:
    return run.function(field.function, [run.track(source) for source in field.sources])


@Coordinates.draw.register(Joint)  # type: ignore[attr-defined]
def _joint(run: Coordinates, field: Joint) -> Track:
    return run.function(run.over_samples(field), [run.track(source) for source in field.sources])


@Coordinates.draw.register(Concat)  # type: ignore[attr-defined]
def _concat(run: Coordinates, field: Concat) -> Blocks:
    return Blocks(tuple(run.track(part) for part in field.parts), field.fractions)


@Coordinates.draw.register(Averaged)  # type: ignore[attr-defined]
def _averaged(run: Coordinates, field: Averaged) -> Track:
    """One number for each input; its derivative is of another order, and left to the backward pass."""
    source = run.track(field.source)
    return Track((field.scale * source.value.mean(0)).expand(run.samples, *source.value.shape[1:]))


class NotDrawable(UnsupportedOperation):
    """Samples of one coordinate cannot show a kind of field."""


def check_drawable(fields: list[Field]) -> None:
    """Samples of one coordinate have to show all that the fields depend on.

    Raises:
        NotDrawable: they cannot.
    """
    draw = Coordinates.__dict__["draw"].dispatcher
    for one in (one for field in fields for one in in_order(field)):
        if draw.dispatch(type(one)) is draw.dispatch(Field):
            raise NotDrawable(_word(one), "", "samples of one coordinate cannot show it")


def _word(field: Field) -> str:
    return {"Attended": "attention", "Rotated": "rotary positions"}.get(
        type(field).__name__, type(field).__name__.lower()
    )
