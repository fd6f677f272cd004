"""What a coordinate check found: exponents of width, verdicts, and what cannot be decided."""

from dataclasses import dataclass, field

import numpy as np

from widthwise.core import Axis, Figure, Line, Value
from widthwise.program import Program
from widthwise.scaling._diagnosis import LayerVerdict, Observation, Status, allowed, verdicts
from widthwise.scaling._observe import Sizes
from widthwise.scaling._slopes import fit_slope

ROUNDING = 1e-5
"""A gradient this small beside the magnitudes it sums up is rounding error in float32 (about 1e-7)."""

INTERNAL = ("rank", "cancelled")
"""What is only used to judge other observables."""


@dataclass(frozen=True)
class CoordinateCheck(Value):
    """Exponents of width of everything that was watched, and what they say.

    Attributes:
        widths: that were built.
        steps, seeds: optimiser steps, and networks per width.
        observations: one per observable and place.
        verdicts: the broken rules; none where all hold.
        notes: what the check cannot see or decide, one sentence each.
        values: sizes by observable and place, ``[seeds, widths]``.
    """

    widths: tuple[int, ...]
    steps: int
    seeds: int
    observations: tuple[Observation, ...]
    verdicts: tuple[LayerVerdict, ...]
    notes: tuple[str, ...]
    values: dict[tuple[str, str], np.ndarray] = field(repr=False, metadata={"plain": False})

    @property
    def passed(self) -> bool:
        """Whether every watched exponent may be what it has to be."""
        return all(seen.status in ("holds", "no effect") for seen in self.observations) and not self.verdicts

    def of(self, observable: str) -> dict[str, Observation]:
        """The observations of one kind by place."""
        return {seen.place: seen for seen in self.observations if seen.observable == observable}

    def __str__(self) -> str:
        rows = [f"{'observable':<14} {'place':<44} {'exponent':>9}  95 % interval    verdict"]
        for seen in self.observations:
            shown = f"{'-':>9}" + " " * 18
            if seen.slope is not None:
                interval = f"[{seen.slope.low:+.2f}, {seen.slope.high:+.2f}]"
                shown = f"{seen.slope.value:>+9.3f}  {interval:<16}"
            rows.append(f"{seen.observable:<14} {seen.place:<44} {shown} {seen.status}")
        rows += [("consequence: " if v.consequence else "BROKEN: ") + f"{v.rule}: {v.sentence}" for v in self.verdicts]
        rows += [f"note: {note}" for note in self.notes]
        broken = sum(not verdict.consequence for verdict in self.verdicts)
        rows.append("every exponent holds" if self.passed else f"{broken} broken rule{'s' * (broken != 1)}")
        return "\n".join(rows)

    def figure(self, observable: str = "change") -> Figure:
        """Sizes against width, one line per place."""
        lines = []
        for slot, (_, place) in enumerate(key for key in self.values if key[0] == observable):
            mean = self.values[observable, place].mean(0)
            lines.append(Line(place or "output", self.widths, tuple(map(float, mean)), slot, markers=True))
        return Figure(
            f"Coordinate check: {observable} after {self.steps} steps",
            Axis("width", "log"),
            Axis("root mean square" if "change" in observable else "size", "log"),
            tuple(lines),
            "Level lines hold at every width; rising or falling ones break a rule.",
        )


@dataclass(frozen=True)
class Kind:
    """What the exponents of a check are read against.

    Attributes:
        gradient: whether updates are proportional to gradients.
        bounded_rank: weights whose update has a rank that does not grow with the width for ever.
    """

    program: Program
    tolerance: float
    gradient: bool
    bounded_rank: frozenset[str]


def result_of(
    widths: tuple[int, ...], steps: int, seeds: int, collected: list[list[Sizes]], kind: Kind
) -> CoordinateCheck:
    keys = [key for key in collected[0][0] if all(key in sizes for row in collected for sizes in row)]
    values = {key: np.array([[sizes[key] for sizes in row] for row in collected]) for key in keys}
    readouts = _readout_paths(kind.program)
    found: dict[tuple[str, str], Observation] = {}
    for (observable, place), table in values.items():
        if observable in INTERNAL:
            continue
        slope = fit_slope(np.array(widths, dtype=float), table)
        low, high = allowed(observable, place, kind.program, readouts, kind.tolerance)
        status: Status
        if slope is None:
            status = "diverged" if not np.isfinite(table).all() else "holds"
        else:
            inside = slope.within(low, high)
            status = "holds" if inside else "uncertain" if inside is None else "broken"
            if observable == "update" and slope.high < low and place in kind.bounded_rank:
                status = judged(widths, table, values.get(("rank", place)), low, high)
            if observable == "update" and (values.get(("cancelled", place), np.ones(1)) < ROUNDING).all():
                status = "no effect"
        if slope is not None or status == "diverged":
            found[observable, place] = Observation(observable, place, slope, status)
    seen = verdicts(found, kind.program, kind.gradient)
    return CoordinateCheck(widths, steps, seeds, tuple(found.values()), seen, _notes(found, kind.program), values)


def judged(widths: tuple[int, ...], norms: np.ndarray, ranks: np.ndarray | None, low: float, high: float) -> Status:
    """Whether an update falls only because its stable rank still grows with the width.

    Norm = Frobenius norm / sqrt(stable rank). Examples times positions bound the rank of a gradient, and up to a factor
    of pi / 2 the stable rank of its signs, so that in the end the norm has the Frobenius norm's exponent; the learning
    rate is wrong only if that one is outside as well.
    """
    saturated = None if ranks is None else fit_slope(np.array(widths, dtype=float), norms * ranks**0.5)
    return "broken" if saturated is None or saturated.within(low, high) is False else "too narrow"


def _notes(found: dict[tuple[str, str], Observation], program: Program) -> tuple[str, ...]:
    notes = [
        f"{weight.name} is used in no forward pass, so that nothing is known of it; leave it out or give it a place."
        for weight in program.weights
        if weight.uses == 0
    ]
    notes += [
        f"{weight.name} is frozen: its initial scale is checked, its learning rate is not."
        for weight in program.weights
        if not weight.value.requires_grad and weight.uses
    ]
    notes += [
        f"{seen.place} does not change the loss (its gradient is rounding error), so that its learning rate is free."
        for seen in found.values()
        if seen.status == "no effect"
    ]
    narrow = sum(seen.status == "too narrow" for seen in found.values())
    if narrow:
        notes.append(
            f"{narrow} updates cannot be judged at these widths, because their stable rank still grows with the width; "
            "go wider, or give a smaller batch."
        )
    return tuple(notes)


def _readout_paths(program: Program) -> frozenset[str]:
    """Modules whose output has no growing axis: those of readouts and tied tables."""
    paths = {node.module_path for node in program.nodes if node.name == program.output}
    for weight in program.weights:
        if weight.role.value == "output":
            paths |= {user.module_path for user in program.users(weight.name)}
    return frozenset(paths)
