"""What inputs bring along: read, worked out from each input with itself, and laid out as pairs read it."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from widthwise.kernels._moments import _indices
from widthwise.kernels.engines._tokens_blocks import REGISTER_BYTES
from widthwise.kernels.engines._tokens_machine import run_blocks
from widthwise.kernels.engines._tokens_pairs import blocks, tiles
from widthwise.kernels.engines._tokens_plan import Program, TokenPlan
from widthwise.kernels.engines._tokens_threads import room, together

if TYPE_CHECKING:
    from widthwise.kernels._evaluator import Evaluator

CHUNKS_PER_THREAD = 6


@dataclass(frozen=True)
class Side:
    """Inputs of one side.

    Attributes:
        count: how many.
        rows: what each of them brings, ``[count * places]``.
        columns: the same for all inputs of a tile (see `_tokens_pairs.Tiles`) side by side, ``[places, wide]``.
        diagonal: moments and tangents of the outputs, each input with itself, ``[outputs, 2, count]``.
    """

    count: int
    rows: np.ndarray
    columns: np.ndarray
    diagonal: np.ndarray


def read(plan: TokenPlan, run: "Evaluator") -> np.ndarray | None:
    """What is read of the inputs of an evaluator, ``[places, n]`` with room for the rest; None where it does not fit.

    Raises:
        DataError: a token is not in its table.
    """
    count = run.count(0)
    found = np.empty((plan.places, count + -count % (REGISTER_BYTES // 8)))

    def put(kind: str, number: int, values: Tensor) -> None:
        flat = values.reshape(values.shape[0], -1)
        at = plan.starts[kind, number]
        found[at : at + flat.shape[1], :count] = flat.numpy().T

    for number, field in enumerate(plan.data):
        put("data", number, field.read(run.data[0][field.node].to(torch.float64)))
    for number, tokens in enumerate(plan.tokens):
        put("tokens", number, _indices(run, tokens, 0).expand(count, *tokens.positions))
    for number, mask in enumerate(plan.masks):
        values = mask.read(run.data[0][mask.node])  # type: ignore[index]
        if values.shape[1] != 1:
            return None
        put("mask", number, values)
    for number, source in enumerate(plan.means):
        mean = run.mean(source, 0)
        put("mean", number, torch.zeros(count, *source.positions) if mean is None else mean)
    found[: plan.known, count:] = found[: plan.known, count - 1 : count]
    return found


def side_of(plan: TokenPlan, run: "Evaluator", real: np.dtype, *, diagonal: bool) -> Side | None:
    """What the inputs of an evaluator bring along; None where it does not fit.

    Args:
        diagonal: whether the outputs of inputs with themselves are wanted.
    """
    columns = read(plan, run)
    if columns is None:
        return None
    count, wide = run.count(0), columns.shape[1]
    own = np.empty((plan.outputs, 2, 1, count) if diagonal else (0, 2, 1, count))
    rows = np.empty((wide, plan.places))
    starts = np.arange(0, wide, REGISTER_BYTES // 8)
    cuts = np.stack([starts, starts * 0, starts, np.minimum(count - starts, REGISTER_BYTES // 8)], 1).astype(np.int32)
    table = np.array([(0, wide, 0)], np.int64)
    program = plan.whole if diagonal else plan.own
    evaluate(plan, program, cuts, table, (rows.reshape(-1), columns.reshape(-1)), own, own=True, same=False)
    if plan.zero_tangents and any((columns[at : at + size, :count] == 0).any() for at, size in plan.stds):
        return None
    return Side(
        count, rows[:count].astype(real, copy=False).reshape(-1), _tiled(columns, count, real), own[:, :, 0]
    )  # fmt: skip


def _tiled(columns: np.ndarray, count: int, real: np.dtype) -> np.ndarray:
    """Columns by tile, the first inputs of each repeated behind it."""
    lanes = REGISTER_BYTES // real.itemsize
    layout = tiles(count, lanes)
    found = np.empty((len(columns), layout.wide), real)
    for offset, size, base in layout.table.tolist():
        found[:, offset : offset + size] = columns[:, base : base + size]
        for at in range(offset + size, offset + size + lanes, size):
            end = min(at + size, offset + size + lanes)
            found[:, at:end] = columns[:, base : base + end - at]
    return found.reshape(-1)


def pairs_of(plan: TokenPlan, left: Side, right: Side, real: np.dtype, *, same: bool) -> np.ndarray:
    """Moments and tangents of the outputs of all pairs of inputs, ``[outputs, 2, n1, n2]``."""
    lanes = REGISTER_BYTES // real.itemsize
    results = np.empty((plan.outputs, 2, left.count, right.count), real)
    if same:
        np.einsum("ouii->oui", results)[...] = left.diagonal
    cuts = blocks(left.count, right.count, lanes, same)
    table = tiles(right.count, lanes).table
    evaluate(plan, plan.pair, cuts, table, (left.rows, right.columns), results, own=False, same=same)
    return results


def evaluate(
    plan: TokenPlan,
    program: Program,
    blocks: np.ndarray,
    table: np.ndarray,
    data: tuple[np.ndarray, np.ndarray],
    results: np.ndarray,
    *,
    own: bool,
    same: bool,
) -> None:
    """All blocks, in threads."""
    real = data[0].dtype
    lanes = REGISTER_BYTES // real.itemsize
    n1, n2 = results.shape[2:]
    wide = data[1].size // plan.places
    sizes = (plan.area, program.slots, plan.longest, plan.places, plan.known, wide, n1, n2)
    space = ((2 * program.slots + 1) * plan.area + 4 * plan.longest + 2 + plan.places) * lanes
    ops, (pars, fixed) = program.ops.reshape(-1), plan.numbers(program, real)
    flat, out = blocks.reshape(-1), results.reshape(-1)

    def work() -> None:
        ws = room(space, real)
        for cut in cuts:
            run_blocks(cut, flat, table, own, same, *data, sizes, ops, pars, fixed, plan.table, ws, out)

    threads = max(1, min(torch.get_num_threads(), len(blocks)))
    chunks = max(1, min(len(blocks), CHUNKS_PER_THREAD * threads if threads > 1 else 1))
    ends = [len(blocks) * index // chunks for index in range(chunks + 1)]
    cuts: Iterator[tuple[int, int]] = iter(list(itertools.pairwise(ends)))
    together(work, threads)
