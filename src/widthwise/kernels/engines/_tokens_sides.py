"""What inputs bring along: read, worked out from each input with itself, and laid out as pairs read it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from widthwise.kernels._moments import _indices
from widthwise.kernels.engines._tokens_blocks import REGISTER_BYTES
from widthwise.kernels.engines._tokens_machine import lay_out, run_own, run_pairs
from widthwise.kernels.engines._tokens_pairs import BLOCK, blocks, tiles
from widthwise.kernels.engines._tokens_plan import Program, TokenPlan
from widthwise.kernels.engines._tokens_threads import room, together

if TYPE_CHECKING:
    from widthwise.kernels._evaluator import Evaluator

CHUNKS_PER_THREAD = 6
DOUBLE = np.dtype(np.float64)
DOUBLES = REGISTER_BYTES // DOUBLE.itemsize


@dataclass(frozen=True)
class Side:
    """Inputs of one side.

    Attributes:
        count: how many.
        rows: what each of them brings, ``[count * places]``.
        columns: the same for all inputs side by side in tiles (see `_tokens_pairs.Tiles`), ``[places * wide]``.
        diagonal: moments and tangents of the outputs, each input with itself, ``[outputs, 2, count]``.
    """

    count: int
    rows: np.ndarray
    columns: np.ndarray
    diagonal: np.ndarray


def read(plan: TokenPlan, run: "Evaluator") -> np.ndarray | None:
    """What is read of the inputs of an evaluator, ``[n, places]`` with room for the rest; None where it does not fit.

    The last input fills lanes that are left over.

    Raises:
        DataError: a token is not in its table.
    """
    count = run.count(0)
    found = np.empty((count + -count % DOUBLES, plan.places))

    def put(kind: str, number: int, values: Tensor) -> None:
        flat = values.reshape(values.shape[0], -1)
        at = plan.starts[kind, number]
        found[:count, at : at + flat.shape[1]] = flat.numpy()

    for number, field in enumerate(plan.data):
        put("data", number, field.read(run.data[0][field.node]))
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
    found[count:, : plan.known] = found[count - 1, : plan.known]
    return found


def side_of(plan: TokenPlan, run: "Evaluator", real: np.dtype, *, diagonal: bool) -> Side | None:
    """What the inputs of an evaluator bring along; None where it does not fit.

    Args:
        diagonal: whether the outputs of inputs with themselves are wanted.
    """
    rows = read(plan, run)
    if rows is None:
        return None
    count, wide = run.count(0), len(rows)
    columns = np.empty((plan.places, wide))
    own = np.empty((plan.outputs if diagonal else 0, 2, 1, count))
    program = plan.whole if diagonal else plan.own
    data = rows.reshape(-1), columns.reshape(-1)
    arguments = program_arguments(plan, program, data, own.shape)

    def work(cut: tuple[int, int], ws: np.ndarray) -> None:
        run_own(cut, *data, *arguments, ws, own.reshape(-1))

    in_cuts(work, wide // DOUBLES, arguments[0], DOUBLE)
    if plan.zero_tangents and any((columns[at : at + size, :count] == 0).any() for at, size in plan.stds):
        return None
    lanes = REGISTER_BYTES // real.itemsize
    layout = tiles(count, lanes)
    tiled = np.empty(plan.places * layout.wide, real)
    lay_out(tiled, data[1], plan.places, wide, layout.table.reshape(-1), lanes)
    return Side(count, rows[:count].astype(real, copy=False).reshape(-1), tiled, own[:, :, 0])


def pairs_of(plan: TokenPlan, left: Side, right: Side, real: np.dtype, *, same: bool) -> np.ndarray:
    """Moments and tangents of the outputs of all pairs of inputs, ``[outputs, 2, n1, n2]``."""
    lanes = REGISTER_BYTES // real.itemsize
    results = np.empty((plan.outputs, 2, left.count, right.count), real)
    if same:
        np.einsum("ouii->oui", results)[...] = left.diagonal
    cuts = blocks(left.count, right.count, lanes, same).reshape(-1)
    table = tiles(right.count, lanes).table.reshape(-1)
    data = left.rows, right.columns
    arguments = program_arguments(plan, plan.pair, data, results.shape)

    def work(cut: tuple[int, int], ws: np.ndarray) -> None:
        run_pairs(cut, cuts, table, same, *data, *arguments, ws, results.reshape(-1))

    in_cuts(work, len(cuts) // BLOCK, arguments[0], real)
    return results


def program_arguments(
    plan: TokenPlan, program: Program, data: tuple[np.ndarray, np.ndarray], shape: tuple[int, ...]
) -> tuple:
    """Arguments `sizes` to `lists` of the machine."""
    sizes = (
        plan.area, program.slots, plan.longest, plan.places, plan.known, plan.first, plan.last,
        data[1].size // plan.places, *shape[2:],
    )  # fmt: skip
    pars, fixed = plan.numbers(program, data[0].dtype)
    return sizes, program.ops.reshape(-1), pars, fixed, plan.table


def in_cuts(work: Callable[[tuple[int, int], np.ndarray], None], count: int, sizes: tuple, real: np.dtype) -> None:
    """Call `work` with ranges that cover ``range(count)``, and space for planes, in threads."""
    area, slots, longest, places = sizes[:4]
    space = ((2 * slots + 1) * area + 4 * longest + 2 + places) * (REGISTER_BYTES // real.itemsize)
    threads = max(1, min(torch.get_num_threads(), count))
    chunks = max(1, min(count, CHUNKS_PER_THREAD * threads if threads > 1 else 1))
    cuts: Iterator[tuple[int, int]] = iter([(count * i // chunks, count * (i + 1) // chunks) for i in range(chunks)])

    def thread() -> None:
        ws = room(space, real)
        for cut in cuts:
            work(cut, ws)

    together(thread, threads)
