"""Matrices from the Triton kernels: what the host prepares, and which kernel runs on what."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import triton
from torch import Tensor

from widthwise.core import progress
from widthwise.kernels.engines import _codes as code
from widthwise.kernels.engines._features import _feature, has_zero_variance
from widthwise.kernels.engines._plan import Plan
from widthwise.kernels.engines._triton_dense import run_dense
from widthwise.kernels.engines._triton_machine import run_stage

if TYPE_CHECKING:
    from widthwise.kernels._limit import Limit

Precision = Literal["ieee", "tf32", "tf32x3"]

LANE_ELEMENTS = 1024  # covariances per program: eight in each of 128 threads
STAGE_BYTES = 32 << 20  # what passes between stages for the pairs in flight; below the second cache of large GPUs
PAIRS_AT_ONCE = 1 << 16
TILE_SIDE, DENSE_SIDE, SIDE, DEPTH = 256, 8192, 64, 32
PROGRAMS_PER_PROCESSOR = 8
WRITES = (code.RAW, code.AFFINE, code.CONV, code.ACT, code.NORM, code.LOAD, code.GIVEN)
READS = (code.AFFINE, code.CONV, code.ACT, code.NORM, code.SCATTER, code.REDUCE, code.FLAT, code.OUT)


@dataclass(frozen=True)
class Stage:
    """One stage of a plan on a device.

    Attributes:
        ops: ``[count, INTS + 2]``; the last two columns say whether an operation reads its source from memory and
            whether its result has to be written there.
        pars: ``[count, REALS]``.
        shifts: ``[displacements, 2]``.
        grid: largest height and width, rounded up to powers of two.
        slots: planes that a program keeps in memory.
        most: largest number of targets of a position in a position map.
    """

    ops: Tensor
    pars: Tensor
    shifts: Tensor
    grid: tuple[int, int]
    slots: int
    most: int


def through_memory(ops: np.ndarray) -> np.ndarray:
    """Which operations read from memory (they do not follow on the one before), and which are read from there.

    Returns:
        ``[count, 2]`` of 0 and 1.
    """
    flags = np.zeros((len(ops), 2), np.int64)
    writer: dict[int, int] = {}
    held = -1
    for index, op in enumerate(ops):
        slot = int(op[code.SRC])
        if op[code.CODE] in READS and slot != held:
            flags[index, 0] = 1
            flags[writer[slot], 1] = 1
        if op[code.CODE] in READS:
            held = slot
        if op[code.CODE] in WRITES:
            held = int(op[code.DST])
            if op[code.PLUS]:
                flags[writer[held], 1] = 1
            writer[held] = index
    return flags


def stages_of(plan: Plan, device: torch.device) -> list[Stage]:
    """The stages of a plan, ready for `run_stage`."""
    found = []
    slot_size = _slot_size(plan)
    for number in range(len(plan.starts) - 1):
        part = slice(plan.starts[number], plan.starts[number + 1])
        ops, pars = plan.ops[part].copy(), plan.pars[part]
        ops[:, [code.DST, code.SRC]] //= slot_size
        flags = through_memory(ops)
        tall, broad = int(ops[:, [code.H, code.SH]].max()), int(ops[:, [code.W, code.SW]].max())
        shifts = plan.shifts[plan.shift_starts[number] : plan.shift_starts[number + 1]]
        found.append(
            Stage(
                torch.from_numpy(np.concatenate([ops, flags], 1)).to(device, torch.int32).contiguous(),
                torch.from_numpy(pars).to(device, torch.float32).contiguous(),
                torch.from_numpy(shifts).to(device, torch.int32).contiguous(),
                (triton.next_power_of_2(tall), triton.next_power_of_2(broad)),
                int(ops[flags[:, 1] > 0, code.DST].max(initial=-1)) + 1,
                _most_targets(plan, ops),
            )
        )
    return found


def _slot_size(plan: Plan) -> int:
    """Positions of one slot: slots are numbered from zero, so that it is what all their starts share."""
    return int(np.gcd.reduce(plan.ops[:, [code.DST, code.SRC]].ravel())) or 1


def _most_targets(plan: Plan, ops: np.ndarray) -> int:
    most = 1
    for op in ops[ops[:, code.CODE] == code.SCATTER]:
        for at, size in ((op[code.ROWS], op[code.H]), (op[code.COLUMNS], op[code.W])):
            most = max(most, int(np.diff(plan.lists[at : at + size + 1]).max()))
    return most


@dataclass(frozen=True)
class Side:
    """Inputs of one side: ``features [n, places]``, and ``given``: one ``[n, features]`` for each given field."""

    features: Tensor
    given: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.features)


def grams(
    limit: "Limit", plan: Plan, x1: Tensor, x2: Tensor | None, *, show: bool, precision: Precision = "ieee"
) -> Tensor | None:
    """Moments and tangents, ``[outputs, 2, n1, n2]``, float32, in main memory as those of the other engines.

    Args:
        precision: of the products of inputs of dense networks.

    Returns:
        None where an input has zero variance and the plan cannot take it.
    """
    left = side_of(limit, plan, x1)
    right = left if x2 is None else side_of(limit, plan, x2)
    if plan.zero_tangents and any(has_zero_variance(plan, side.features) for side in (left, right)):  # type: ignore[arg-type]
        return None
    device = left.features.device
    stages = stages_of(plan, device)
    in_tiles = len(plan.given) == 1 and len(stages) == 1 and not stages[0].slots and not int(stages[0].ops[:, -2].sum())
    if in_tiles:
        return dense(plan, stages[0], left, right, same=x2 is None, precision=precision).cpu()
    machine = _Machine(plan, stages, left, right, device)
    result = torch.empty(plan.outputs, 2, len(left), len(right))
    tiles = [
        (i, j)
        for i in range(0, len(left), TILE_SIDE)
        for j in range(0, len(right), TILE_SIDE)
        if x2 is not None or j >= i
    ]
    with progress("kernel tiles", len(tiles), show=show and len(tiles) > 1) as advance:
        for i, j in tiles:
            height, width = min(TILE_SIDE, len(left) - i), min(TILE_SIDE, len(right) - j)
            tile = machine.tile((i, j), (height, width), x2 is None).cpu()
            result[:, :, i : i + height, j : j + width] = tile
            if x2 is None and i != j:
                result[:, :, j : j + width, i : i + height] = tile.transpose(2, 3)
            advance(1)
    return result


def side_of(limit: "Limit", plan: Plan, x: Tensor) -> Side:
    """What the inputs bring along, evaluated in float64 and rounded."""
    step = limit.tile_side() ** 2
    columns, given = [], []
    for start in range(0, x.shape[0], step):
        evaluator = limit.evaluator(x[start : start + step], None, torch.float64)
        found = [_feature(feature, evaluator) for feature in plan.features] or [x.new_zeros(evaluator.count(0), 1)]
        columns.append(torch.cat(found, 1).to(x.device, torch.float32))
        read = [field.read(evaluator.data[0][field.node].to(torch.float64))[:, 0] for field in plan.given]
        given.append([matrix.to(x.device, torch.float32) for matrix in read])
    return Side(torch.cat(columns).contiguous(), tuple(torch.cat(p).contiguous() for p in zip(*given, strict=True)))


def dense(plan: Plan, stage: Stage, left: Side, right: Side, *, same: bool, precision: Precision) -> Tensor:
    """A dense network on tiles of X X^T, ``[outputs, 2, n1, n2]`` on the device."""
    n1, n2 = len(left), len(right)
    result = torch.empty(plan.outputs, 2, n1, n2, device=left.features.device)
    grid = (triton.cdiv(n1, SIDE), triton.cdiv(n2, SIDE))
    run_dense[grid](
        left.features, right.features, left.given[0], right.given[0], stage.ops, stage.pars, result, len(stage.ops),
        left.features.shape[1], left.given[0].shape[1], n1, n2, SAME=same, SIDE=SIDE, DEPTH=DEPTH, PRECISION=precision,
        num_warps=8,
    )  # fmt: skip
    return result


class _Machine:
    """Stages of a plan between two sides."""

    def __init__(self, plan: Plan, stages: list[Stage], left: Side, right: Side, device: torch.device) -> None:
        self.plan, self.stages, self.left, self.right, self.device = plan, stages, left, right, device
        self.where = torch.from_numpy(plan.where).to(device, torch.int32)
        self.lists = torch.from_numpy(plan.lists).to(device, torch.int32)
        self.weights = torch.from_numpy(plan.weights).to(device, torch.float32)
        between = 8 * plan.buffer if plan.buffer > 1 else 0
        self.at_once = int(np.clip(STAGE_BYTES // max(1, between + 16 * plan.sums), 1, PAIRS_AT_ONCE))

    def tile(self, corner: tuple[int, int], shape: tuple[int, int], symmetric: bool) -> Tensor:
        """``[outputs, 2, height, width]``; a tile on the diagonal of a symmetric matrix is computed by half."""
        same = symmetric and corner[0] == corner[1]
        height, width = shape
        if same:
            rows, columns = torch.triu_indices(height, width, device=self.device)
        else:
            index = torch.arange(height * width, device=self.device)
            rows, columns = index // width, index % width
        result = torch.empty(self.plan.outputs, 2, height, width, device=self.device)
        for first, last in _chunks(len(rows), self.at_once):
            r, c = rows[first:last], columns[first:last]
            found = self.pairs(r + corner[0], c + corner[1], symmetric)
            result[:, :, r, c] = found
            if same:
                result[:, :, c, r] = found
        return result

    def pairs(self, rows: Tensor, columns: Tensor, symmetric: bool) -> Tensor:
        """``[outputs, 2, pairs]``: every stage for all of them, one after the other."""
        pairs, plan = len(rows), self.plan
        diagonal = (rows == columns if symmetric else torch.zeros_like(rows)).to(torch.int32)
        given = torch.zeros(max(1, len(plan.given)), pairs, device=self.device)
        for index, (a, b) in enumerate(zip(self.left.given, self.right.given, strict=True)):
            given[index] = torch.linalg.vecdot(a[rows], b[columns]) / a.shape[1]
        buffers = torch.zeros(pairs if plan.buffer > 1 else 1, 2, plan.buffer, device=self.device)
        sums = torch.zeros(pairs, plan.sums, 2, device=self.device, dtype=torch.float64)
        results = torch.empty(plan.outputs, 2, pairs, device=self.device)
        left, right = rows.to(torch.int32), columns.to(torch.int32)
        for stage in self.stages:
            lanes = max(1, LANE_ELEMENTS // (stage.grid[0] * stage.grid[1]))
            programs = min(triton.cdiv(pairs, lanes) * len(stage.shifts), most_programs(self.device))
            area = lanes * stage.grid[0] * stage.grid[1]
            scratch = torch.empty(max(1, programs * stage.slots * 2 * area), device=self.device)
            run_stage[(programs,)](
                self.left.features, self.right.features, left, right, diagonal, given, stage.ops, stage.pars,
                stage.shifts, self.where, self.lists, self.weights, buffers, sums, results, scratch, len(stage.ops),
                self.left.features.shape[1], pairs, len(stage.shifts), plan.buffer, plan.sums,
                LANES=lanes, HEIGHT=stage.grid[0], WIDTH=stage.grid[1], SLOTS=stage.slots, MOST=stage.most, num_warps=4,
            )  # fmt: skip
        return results


def _chunks(count: int, size: int) -> Iterator[tuple[int, int]]:
    for first in range(0, count, size):
        yield first, min(first + size, count)


def most_programs(device: torch.device) -> int:
    """Programs that are started at once; each takes several pairs and displacements in turn."""
    if device.type != "cuda":
        return 4
    return PROGRAMS_PER_PROCESSOR * torch.cuda.get_device_properties(device).multi_processor_count
