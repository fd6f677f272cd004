"""Samples of fields that later rules brought in: stacks along a position axis, depthwise filters, dropout masks."""

import torch

from widthwise.core import derived_seed
from widthwise.kernels._coordinates_matrices import Track
from widthwise.kernels._coordinates_values import Coordinates
from widthwise.kernels._fields_filtered import Dropped, Filtered, Tap
from widthwise.kernels._fields_stacked import Stacked


@Coordinates.draw.register(Stacked)  # type: ignore[attr-defined]
def _stacked(run: Coordinates, field: Stacked) -> Track:
    """Parts side by side; one that covers a single entry lacks the axis."""
    tracks = [run.track(part) for part in field.parts]

    def joined(arrays: list[torch.Tensor]) -> torch.Tensor:
        placed = [a.unsqueeze(2 + field.axis) if n == 1 else a for a, n in zip(arrays, field.lengths, strict=True)]
        return torch.cat(placed, 2 + field.axis)

    value = joined([track.value for track in tracks])
    if all(track.tangent is None for track in tracks):
        return Track(value)
    return Track(value, joined([torch.zeros_like(t.value) if t.tangent is None else t.tangent for t in tracks]))


@Coordinates.draw.register(Filtered)  # type: ignore[attr-defined]
def _filtered(run: Coordinates, field: Filtered) -> Track:
    return run.function(field.function, [run.track(source) for source in field.sources])


@Coordinates.draw.register(Tap)  # type: ignore[attr-defined]
def _tap(run: Coordinates, field: Tap) -> Track:
    """A number of each coordinate, the same for all inputs and positions."""
    shape = (run.samples, run.count, *field.positions)

    def entries(what: str, variance: float) -> torch.Tensor:
        numbers = run.vector(f"{field.weight.name}[{field.index}]", what, ()) * variance**0.5
        return numbers.reshape(-1, *(1,) * (len(shape) - 1)).expand(shape)

    factor = 0.0
    if run.tangents:
        factor = run.contribution(field.weight, field.variance * field.contracted, field.contracted) / field.contracted
    return Track(entries("value", float(field.variance)), entries("tangent", factor) if factor else None)


@Coordinates.draw.register(Dropped)  # type: ignore[attr-defined]
def _dropped(run: Coordinates, field: Dropped) -> Track:
    """Kept with probability `keep`; each input draws its own mask."""
    source = run.track(field.source)
    shape = source.value.shape[:2] if field.everywhere else source.value.shape
    chance = torch.Generator().manual_seed(derived_seed(run.seed, "mask", field.mask))
    mask = (torch.rand(shape, generator=chance, dtype=torch.float64) < field.keep).to(run.dtype) / field.keep
    mask = mask.reshape(*shape, *(1,) * (source.value.dim() - len(shape)))
    return Track(source.value * mask, None if source.tangent is None else source.tangent * mask)
