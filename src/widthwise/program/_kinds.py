"""What each factor stands for, decided when all operations have been read."""

from collections.abc import Iterable, Mapping

from widthwise.program._axes import Axes, Labels
from widthwise.program._types import Axis, AxisKind, Factor


def resolve(labels: Labels, outputs: Iterable[str], wider_sizes: Mapping[int, int] | None = None) -> dict[int, Factor]:
    """The factor for every atomic id, with its kind.

    Width is what a weight makes and another weight, a norm or a reduction takes up again; what a weight makes and
    the program gives out is a feature, as is what a weight sums over in the inputs.

    Args:
        labels: what the pass over the operations found.
        outputs: names of the output nodes.
        wider_sizes: size of each factor in the wider module; those that differ are widths, and no others.
    """
    factors = labels.factors
    for name in outputs:
        axes = labels.axes.get(name)
        for axis in axes if isinstance(axes, tuple) else ():
            factors.flag(axis, "output")
    _pass_upwards(labels)
    heads = _heads(labels)
    seen = dict.fromkeys(leaf for axes in _all_axes(labels) for axis in axes for leaf in factors.leaves(axis))
    found: dict[int, Factor] = {}
    for number, leaf in enumerate(seen):
        kind = _kind(factors.flags[leaf], leaf in heads)
        if wider_sizes is not None and leaf in wider_sizes:
            kind = _measured_kind(kind, wider_sizes[leaf] != factors.sizes[leaf])
        found[leaf] = Factor(number, factors.sizes[leaf], kind)
    return found


def axes_of(labels: Labels, axes: Axes, known: Mapping[int, Factor]) -> tuple[Axis, ...]:
    """Axes in their final form."""
    return tuple(tuple(known[leaf] for leaf in labels.factors.leaves(axis)) for axis in axes)


def is_unknown(labels: Labels, axes: Axes) -> bool:
    """Whether an axis goes back to an operation without a rule."""
    factors = labels.factors
    return any("unknown" in factors.flags[leaf] for axis in axes for leaf in factors.leaves(axis))


def _all_axes(labels: Labels) -> Iterable[Axes]:
    for axes in (*labels.axes.values(), *labels.weight_axes.values()):
        yield from (one for one in (axes if isinstance(axes, list) else [axes]) if one is not None)


def _kind(flags: set[str], head: bool) -> AxisKind:
    taken_up = bool(flags & {"contracted", "normalised"})
    if "batch" in flags:
        return AxisKind.BATCH
    if "input" in flags:
        return AxisKind.FEATURE if "contracted" in flags else AxisKind.POSITION
    if "spatial" in flags:
        return AxisKind.POSITION
    if "made" in flags or ("param" in flags and taken_up):
        if "output" in flags and not taken_up:
            return AxisKind.FEATURE
        return AxisKind.HEAD if head else AxisKind.WIDTH
    return AxisKind.POSITION


def _measured_kind(guess: AxisKind, grows: bool) -> AxisKind:
    if grows:
        return AxisKind.WIDTH
    return AxisKind.FEATURE if guess is AxisKind.WIDTH else guess


def _pass_upwards(labels: Labels) -> None:
    """A part of an axis that is summed over or given out says so about the whole; the latest parts come last."""
    factors = labels.factors
    for part, whole in reversed(factors.links):
        pooled = set().union(*(factors.flags[leaf] for leaf in factors.leaves(part)))
        for leaf in factors.leaves(whole):
            known = pooled & {"contracted", "normalised", "output"}
            if not factors.flags[leaf] & {"batch", "input", "spatial"}:
                known |= pooled & {"made"}
            factors.flags[leaf] |= known


def _heads(labels: Labels) -> set[int]:
    """The outer parts of widths that a view has split, where the innermost part stays a width."""
    factors = labels.factors
    heads: set[int] = set()
    for whole in factors.viewed:
        parts = [leaf for leaf in factors.leaves((whole,)) if _is_width(factors.flags[leaf])]
        heads.update(parts[:-1])
    return heads


def _is_width(flags: set[str]) -> bool:
    return _kind(flags, head=False) is AxisKind.WIDTH
