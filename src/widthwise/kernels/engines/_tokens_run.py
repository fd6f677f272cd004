"""Runs token plans: reads the inputs, works out what they bring along, and evaluates pairs in threads."""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from widthwise.core import progress
from widthwise.kernels._moments import _indices
from widthwise.kernels.engines._tokens_blocks import REGISTER_BYTES
from widthwise.kernels.engines._tokens_machine import run_blocks
from widthwise.kernels.engines._tokens_plan import Program, TokenPlan

if TYPE_CHECKING:
    from widthwise.kernels._evaluator import Evaluator
    from widthwise.kernels._limit import Limit

KEPT_BYTES = 1 << 28
CHUNKS_PER_THREAD = 8
LEAST_SIDE, MOST_SIDE = 64, 4096

started: set[torch.dtype] = set()
"""Precisions in which the machine has run in this process."""


def read(plan: TokenPlan, run: "Evaluator") -> np.ndarray | None:
    """What is read of the inputs of an evaluator, ``[n, places]`` with room for the rest; None where it does not fit.

    Raises:
        DataError: a token is not in its table.
    """
    count = run.count(0)
    found = np.zeros((count, plan.places))

    def put(kind: str, number: int, values: Tensor) -> None:
        flat = values.reshape(values.shape[0], -1)
        at = plan.starts[kind, number]
        found[:, at : at + flat.shape[1]] = flat.numpy()

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
        if mean is not None:
            put("mean", number, mean)
    return found


class Runner:
    """One evaluation of a plan."""

    def __init__(self, limit: "Limit", plan: TokenPlan, dtype: torch.dtype) -> None:
        self.limit, self.plan = limit, plan
        self.real = np.float32 if dtype == torch.float32 else np.float64
        self.known: dict[tuple[int, int], np.ndarray] = {}

    def grams(self, x1: Tensor, x2: Tensor | None, show: bool) -> Tensor | None:
        """``[outputs, 2, n1, n2]``; None where an input does not fit."""
        sides = (x1, x1 if x2 is None else x2)
        n1, n2 = (x.shape[0] for x in sides)
        side = min(max(KEPT_BYTES // (8 * self.plan.places), LEAST_SIDE), MOST_SIDE)
        tiles = [(i, j) for i in range(0, n1, side) for j in range(0, n2, side) if x2 is not None or j >= i]
        result = np.empty((self.plan.outputs, 2, n1, n2), self.real)
        with progress("kernel tiles", len(tiles), show=show and len(tiles) > 1) as advance:
            for i, j in tiles:
                rows, columns = slice(i, min(i + side, n1)), slice(j, min(j + side, n2))
                same = x2 is None and i == j
                left = self._side(sides, 0, rows)
                right = left if same else self._side(sides, 0 if x2 is None else 1, columns)
                if left is None or right is None:
                    return None
                tile = self._pairs(left, right, same)
                result[:, :, rows, columns] = tile
                if x2 is None and not same:
                    result[:, :, columns, rows] = tile.swapaxes(2, 3)
                advance(1)
        found = torch.from_numpy(result)
        started.add(found.dtype)
        return found

    def _side(self, sides: tuple[Tensor, Tensor], which: int, rows: slice) -> np.ndarray | None:
        """What some of the inputs bring along; that of two tiles is kept."""
        key = (which, rows.start)
        if key not in self.known:
            run = self.limit.evaluator(sides[which][rows], None, torch.float64)
            found = read(self.plan, run)
            if found is None:
                return None
            if len(self.plan.own.ops):
                self._own(found)
            if self.plan.zero_tangents and any((found[:, at : at + size] == 0).any() for at, size in self.plan.stds):
                return None
            while len(self.known) > 1:
                del self.known[next(iter(self.known))]
            self.known[key] = found.astype(self.real, copy=False)
        return self.known[key]

    def _own(self, data: np.ndarray) -> None:
        starts = np.arange(0, len(data), REGISTER_BYTES // 8)
        self._run(self.plan.own, np.zeros_like(starts), starts, True, False, data, data, np.zeros(1))

    def _pairs(self, left: np.ndarray, right: np.ndarray, same: bool) -> np.ndarray:
        lanes = REGISTER_BYTES // np.dtype(self.real).itemsize
        lefts, rights = blocks(len(left), len(right), lanes, same)
        results = np.zeros((self.plan.outputs, 2, len(left), len(right)), self.real)
        self._run(self.plan.pair, lefts, rights, False, same, left, right, results)
        if same:
            whole = torch.from_numpy(results)
            torch.add(whole.triu(), whole.triu(1).mT, out=whole)
        return results

    def _run(
        self,
        program: Program,
        lefts: np.ndarray,
        rights: np.ndarray,
        own: bool,
        same: bool,
        left: np.ndarray,
        right: np.ndarray,
        results: np.ndarray,
    ) -> None:
        plan, real = self.plan, left.dtype
        lanes = REGISTER_BYTES // real.itemsize
        sizes = (lanes, plan.area, program.slots, plan.longest, plan.places, plan.known, len(right), len(left))
        room = ((2 * program.slots + 1) * plan.area + 4 * plan.longest + 2 + plan.places) * lanes
        ops, pars, fixed = program.ops.ravel(), program.pars.ravel().astype(real), plan.fixed.astype(real)
        data1, data2, out = left.reshape(-1), right.reshape(-1), results.reshape(-1)

        def work(cuts: Iterator[tuple[int, int]]) -> None:
            ws = aligned(room, real)
            for cut in cuts:
                run_blocks(cut, lefts, rights, own, same, data1, data2, sizes, ops, pars, fixed, plan.table, ws, out)

        threads = max(1, min(torch.get_num_threads(), len(lefts)))
        chunks = min(len(lefts), CHUNKS_PER_THREAD * threads if threads > 1 else 1)
        ends = [len(lefts) * index // chunks for index in range(chunks + 1)]
        cuts = iter(list(itertools.pairwise(ends)))
        if threads == 1:
            work(cuts)
            return
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, [cuts] * threads))


def aligned(count: int, real: np.dtype) -> np.ndarray:
    """Room for `count` numbers that begins where a vector register's worth of memory does."""
    spare = REGISTER_BYTES // real.itemsize
    found = np.empty(count + spare, real)
    start = (-found.ctypes.data % REGISTER_BYTES) // real.itemsize
    return found[start : start + count]


def blocks(n1: int, n2: int, lanes: int, same: bool) -> tuple[np.ndarray, np.ndarray]:
    """Left input and first right input of every block; on a symmetric tile, those that reach the upper half."""
    starts = np.arange(0, n2, lanes)
    counts = np.minimum(starts + lanes, n1) if same else np.full(len(starts), n1)
    lefts = np.concatenate([np.arange(count) for count in counts])
    return lefts.astype(np.int64), np.repeat(starts, counts).astype(np.int64)
