"""Stages of a plan: the displacements that each computes, and where its planes are kept."""

from collections import Counter
from dataclasses import dataclass, field
from math import prod

import numpy as np

from widthwise.kernels._fields import Field, Moved, Product
from widthwise.kernels.engines import _codes as code
from widthwise.kernels.engines._maps import Shift, Unfit, all_shifts, grid_of
from widthwise.kernels.engines._plan_rules import convolution
from widthwise.kernels.engines._plan_structure import Structure
from widthwise.kernels.engines._plan_types import Contribution


@dataclass
class Stage:
    """Operations on one displacement at a time."""

    ops: list[np.ndarray] = field(default_factory=list)
    pars: list[np.ndarray] = field(default_factory=list)
    multiple: dict[int, Shift] = field(default_factory=dict)
    uses: Counter = field(default_factory=Counter)
    slots: dict[int, int] = field(default_factory=dict)
    free: list[int] = field(default_factory=list)
    taken: int = 0
    shifts: set[Shift] = field(default_factory=set)


class Stages(Structure):
    """The stages, their displacements, slots and buffers."""

    def __init__(self, contribution: Contribution) -> None:
        super().__init__(contribution)
        self.stages: list[Stage] = []
        self.boundaries: dict[int, Field] = {}
        self.buffers: dict[int, tuple[int, int]] = {}
        self.where: list[int] = []
        self.buffer = 0
        self.total_sums = 0
        self.slot_size = 1

    def _visit(self, u: Field, level: int, multiple: Shift) -> None:
        """Note uses and displacement multiples of everything that stage `level` computes for `u`."""
        stage = self.stages[level]
        stage.uses[id(u)] += 1
        known = stage.multiple.setdefault(id(u), multiple)
        if known != multiple:
            raise Unfit("branches of different stride are joined")
        if stage.uses[id(u)] > 1:
            return
        if self.boundary(u):
            self.levels.setdefault(id(u), level)
            if id(u) not in self.boundaries:
                self.boundaries[id(u)] = u
                self._visit(self.children(u)[0], self.level(u) - 1, (1, 1))
            return
        stride = (1, 1)
        if isinstance(u, Product) and u.contraction.key[0] in ("convolved", "patches"):
            stride = convolution(u)[3]
        inner = (multiple[0] * stride[0], multiple[1] * stride[1])
        for child in self.children(u):
            self._visit(child, level, inner)

    def _wanted(self, level: int) -> None:
        """Displacements that the stage below needs for what `level` loads."""
        stage = self.stages[level]
        for key, u in self.boundaries.items():
            if key not in stage.multiple:
                continue
            my, mx = stage.multiple[key]
            below = self.stages[self.levels[key] - 1]
            shifts = {(my * dy, mx * dx) for dy, dx in stage.shifts} & all_shifts(grid_of(u.positions))
            if isinstance(u, Moved):
                found = self.maps[key]
                assert found is not None
                below.shifts |= found.needed(shifts)
            else:
                below.shifts.add((0, 0))
            self._reserve(u, shifts)

    def _reserve(self, u: Field, shifts: set[Shift]) -> None:
        """Room for the planes of a boundary: a sum per lane, or one plane per displacement."""
        grid = grid_of(u.positions)
        if not isinstance(u, Moved) or (self.maps[id(u)].reduces is not None):  # type: ignore[union-attr]
            if id(u) not in self.buffers:
                self.buffers[id(u)] = (self.total_sums, -1)
                self.total_sums += 1
            return
        if id(u) in self.buffers:
            raise Unfit("a pooled field is read in two stages")
        table = np.full((2 * grid[0] - 1, 2 * grid[1] - 1), -1, np.int64)
        for dy, dx in sorted(shifts):
            table[dy + grid[0] - 1, dx + grid[1] - 1] = self.buffer
            self.buffer += (grid[0] - abs(dy)) * (grid[1] - abs(dx))
        self.buffers[id(u)] = (-1, len(self.where))
        self.where += table.ravel().tolist()

    def _op(self, stage: Stage, kind: int, u: Field, **arguments: float) -> None:
        """Append an operation; grid and multiple are those of `u`."""
        ints, reals = np.zeros(code.INTS, np.int64), np.zeros(code.REALS)
        ints[code.CODE], ints[code.PHI] = kind, -1
        ints[code.H], ints[code.W] = grid_of(u.positions)
        ints[code.MY], ints[code.MX] = stage.multiple.get(id(u), (1, 1))
        for name, value in arguments.items():
            place = getattr(code, name)
            if name in code.REAL_NAMES:
                reals[place] = value
            else:
                ints[place] = value
        stage.ops.append(ints)
        stage.pars.append(reals)

    def _take(self, stage: Stage, u: Field) -> int:
        self.slot_size = max(self.slot_size, prod(grid_of(u.positions)))
        if not stage.free:
            stage.free.append(stage.taken)
            stage.taken += 1
        slot = stage.free.pop()
        stage.slots[id(u)] = slot
        return slot

    def _release(self, u: Field, stage: Stage) -> None:
        stage.uses[id(u)] -= 1
        if not stage.uses[id(u)]:
            stage.free.append(stage.slots[id(u)])
