"""From a graph of fields to a plan: the operations of the fused engine, stage by stage."""

from math import prod

import numpy as np

from widthwise.kernels._fields import Field, Moved
from widthwise.kernels.engines import _codes as code
from widthwise.kernels.engines._maps import Unfit
from widthwise.kernels.engines._plan_operations import Operations
from widthwise.kernels.engines._plan_stages import Stage
from widthwise.kernels.engines._plan_types import Contribution, Feature, Mean, Plan

__all__ = ["Feature", "Plan", "compile_plan"]


def compile_plan(*outputs: Field, contribution: Contribution) -> Plan | None:
    """A plan for the moments and tangents of fields with themselves, None where the fused engine does not fit.

    Args:
        outputs: fields to evaluate; those with positions give their mean over equal positions.
        contribution: how much a trained parameter adds to the tangent kernel.
    """
    try:
        return _Compiler(contribution).compile(outputs)
    except Unfit:
        return None


class _Compiler(Operations):
    def __init__(self, contribution: Contribution) -> None:
        super().__init__(contribution)
        self.lists: list[int] = []
        self.weights: list[float] = []

    def compile(self, outputs: tuple[Field, ...]) -> Plan:
        roots = [Mean(u) if u.positions else u for u in outputs]
        self.kept += roots
        top = max(self.level(u) for u in roots)
        self.stages = [Stage() for _ in range(top + 1)]
        self.stages[top].shifts = {(0, 0)}
        for u in roots:
            self._visit(u, top, (1, 1))
        for level in range(top, -1, -1):
            self._wanted(level)
        for level in range(top + 1):
            for u in [u for u in self.boundaries.values() if self.levels[id(u)] == level + 1]:
                self._close(u, level)
        last = self.stages[top]
        for index, u in enumerate(roots):
            slot = self._emit(u, top)
            self._op(last, code.OUT, u, SRC=slot, INDEX=index)
        return self._plan(len(outputs))

    def _close(self, u: Field, level: int) -> None:
        """The operation that ends a stage for a boundary."""
        stage = self.stages[level]
        source = self.children(u)[0]
        slot = self._emit(source, level)
        index, where = self.buffers[id(u)]
        last = stage.ops[-1]
        if index >= 0 and stage.uses[id(source)] == 1 and last[code.CODE] == code.CONV and last[code.DST] == slot:
            last[code.SUMMED] = 1
        sites = prod(source.positions)
        if not isinstance(u, Moved):
            self._op(stage, code.FLAT, source, SRC=slot, INDEX=index, SCALE=1.0 / sites)
        elif index >= 0:
            weight = self.maps[id(u)].reduces  # type: ignore[union-attr]
            assert weight is not None
            self._op(stage, code.REDUCE, source, SRC=slot, INDEX=index, SCALE=weight * weight)
        else:
            found = self.maps[id(u)]
            assert found is not None
            rows, columns = self._targets(found.rows.matrix), self._targets(found.columns.matrix)
            target = dict(zip(("TH", "TW"), found.target, strict=True))
            self._op(stage, code.SCATTER, source, SRC=slot, WHERE=where, ROWS=rows, COLUMNS=columns, **target)
        self._release(source, stage)

    def _targets(self, matrix: np.ndarray) -> int:
        """Lists of the targets of each source position of one axis; returns where they start."""
        start, count = len(self.lists), matrix.shape[1]
        columns = [np.flatnonzero(column) for column in matrix.T]
        ends = np.cumsum([0, *(len(c) for c in columns)]) + start + count + 1
        self.lists += [int(end) for end in ends] + [int(target) for c in columns for target in c]
        self.weights += [0.0] * (count + 1) + [float(matrix[t, s]) for s, c in enumerate(columns) for t in c]
        return start

    def _plan(self, outputs: int) -> Plan:
        ops = np.array([op for stage in self.stages for op in stage.ops])
        slots = max(stage.taken for stage in self.stages)
        for name in (code.DST, code.SRC):
            ops[:, name] *= self.slot_size
        shifts = [sorted(stage.shifts) for stage in self.stages]
        work = sum(
            float(max(0, op[code.H] - abs(dy * op[code.MY])) * max(0, op[code.W] - abs(dx * op[code.MX])))
            for stage, found in zip(self.stages, shifts, strict=True)
            for op in stage.ops
            for dy, dx in found
            if op[code.CODE] in (code.CONV, code.ACT) or op[code.PHI] >= 0
        )
        return Plan(
            outputs, ops, np.array([par for stage in self.stages for par in stage.pars]),
            np.cumsum([0, *(len(stage.ops) for stage in self.stages)]),
            np.array([shift for found in shifts for shift in found], np.int64).reshape(-1, 2),
            np.cumsum([0, *(len(found) for found in shifts)]),
            np.array(self.where or [0], np.int64), np.array(self.lists or [0], np.int64),
            np.array(self.weights or [0.0]), tuple(self.features), tuple(self.given),
            slots * self.slot_size, max(1, self.buffer), int(ops[:, (code.W, code.SW)].max()),
            int(((ops[:, code.KY] - 1) * ops[:, code.DY]).max()) + 2 if len(ops) else 2,
            max(1, self.total_sums), self.offset_tangents, work,
        )  # fmt: skip
