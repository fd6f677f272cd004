"""Run a plan on tiles of inputs: pairs cut into blocks of lanes, blocks spread over threads."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from widthwise.kernels.engines._arcs import tables
from widthwise.kernels.engines._codes import FIRST, SECOND
from widthwise.kernels.engines._machine import run_blocks
from widthwise.kernels.engines._plan import Plan

LANE_BYTES = 64
PLANE_BYTES = 1 << 15
ROW_LANES = 256
MANY_SHIFTS = 64
CHUNKS_PER_THREAD, LONG_CHUNKS = 4, 16  # the latter where a block takes long, and there are few


@dataclass(frozen=True)
class Side:
    """The inputs of one side of a tile.

    Attributes:
        features: ``[n, places]``.
        given: one matrix ``[n, features]`` for each of the plan's given fields.
    """

    features: np.ndarray
    given: tuple[torch.Tensor, ...] = ()

    def part(self, which: slice) -> "Side":
        """Some of the inputs."""
        return Side(self.features[which], tuple(matrix[which] for matrix in self.given))


def evaluate(plan: Plan, left: Side, right: Side, *, same: bool, dtype: torch.dtype) -> torch.Tensor:
    """Moments and tangents between two sides, ``[outputs, 2, n1, n2]``.

    Args:
        same: whether both sides are the same inputs: half of the pairs are computed, and the diagonal is exact.
    """
    real = np.float32 if dtype == torch.float32 else np.float64
    lanes = lanes_of(plan, np.dtype(real).itemsize)
    packed = len(plan.shifts) > MANY_SHIFTS
    rows, columns = pair_blocks(len(left.features), len(right.features), lanes, same, packed)
    given = np.zeros((1, len(rows)), real)
    if plan.given:
        grams = [a.to(dtype) @ (b.to(dtype).T / b.shape[1]) for a, b in zip(left.given, right.given, strict=True)]
        given = np.stack([gram.numpy()[rows, columns] for gram in grams])
    results = np.zeros((plan.outputs, 2, len(rows)), real)
    data = (left.features.astype(real, copy=False), right.features.astype(real, copy=False))
    run = _runner(plan, lanes, rows, columns, same, data, given, results, real)
    in_threads(len(rows) // lanes, run, LONG_CHUNKS if packed else CHUNKS_PER_THREAD)
    out = np.empty((plan.outputs, 2, len(left.features), len(right.features)), real)
    out[:, :, rows, columns] = results
    if same:
        out = np.triu(out) + np.triu(out, 1).swapaxes(2, 3)
    return torch.from_numpy(out)


def evaluate_given(plan: Plan, row: np.ndarray, covariances: np.ndarray) -> np.ndarray:
    """Moments and tangents of pairs of one input's features at given covariances, ``[2 * outputs, pairs]``, float64."""
    missing = -len(covariances) % ROW_LANES
    given = np.concatenate([covariances, np.zeros(missing)])
    results = np.zeros((plan.outputs, 2, len(given)))
    zeros = np.zeros(len(given), np.int64)
    data = (row.reshape(1, -1), row.reshape(1, -1))
    run = _runner(plan, ROW_LANES, zeros, zeros, False, data, given, results, np.float64)
    run(0, len(given) // ROW_LANES)
    return results.reshape(2 * plan.outputs, -1)[:, : len(covariances)]


def _runner(
    plan: Plan,
    lanes: int,
    rows: np.ndarray,
    columns: np.ndarray,
    same: bool,
    data: tuple[np.ndarray, np.ndarray],
    given: np.ndarray,
    results: np.ndarray,
    real: type,
) -> Callable[[int, int], None]:
    diagonal = (rows == columns) if same else np.zeros(len(rows), bool)
    sizes = np.array([plan.area, plan.buffer, plan.longest, plan.ring, plan.sums, data[0].shape[1]])
    pars: np.ndarray = plan.pars.astype(real).ravel()
    weights: np.ndarray = plan.weights.astype(real)
    arcs = tables(plan.pars[:, FIRST], plan.pars[:, SECOND], real).ravel()
    flat = [np.ascontiguousarray(array).ravel() for array in data]

    def run(first: int, last: int) -> None:
        run_blocks(
            (first, last), lanes, rows, columns, diagonal, *flat, given.ravel(), plan.ops.ravel(), pars,
            plan.starts, plan.shifts, plan.shift_starts, plan.where, plan.lists, weights, arcs, sizes,
            results.reshape(-1),
        )  # fmt: skip

    return run


def lanes_of(plan: Plan, itemsize: int) -> int:
    """Pairs that a block carries: a register's worth, more where planes are small."""
    if plan.given:
        return ROW_LANES
    lanes = LANE_BYTES // itemsize
    sites = max(1, plan.longest * plan.longest)
    while lanes * itemsize * sites * 2 <= PLANE_BYTES and lanes < ROW_LANES:
        lanes *= 2
    return lanes


def pair_blocks(n1: int, n2: int, lanes: int, same: bool, packed: bool) -> tuple[np.ndarray, np.ndarray]:
    """Indices of all pairs that are computed, in blocks of `lanes`; the last pair is repeated to fill the last block.

    Args:
        packed: pairs of different rows may share a block; otherwise a block has one row and neighbouring columns
            (some of them below the diagonal), which suits plans that read much per pair and compute little.
    """
    if not packed:
        starts = np.arange(0, n2, lanes)
        counts = np.minimum(starts + lanes, n1) if same else np.full(len(starts), n1)
        rows = np.concatenate([np.arange(count) for count in counts])
        columns = np.minimum(np.repeat(starts, counts)[:, None] + np.arange(lanes), n2 - 1)
        return np.repeat(rows, lanes), columns.ravel()
    rows, columns = np.triu_indices(n1) if same else np.divmod(np.arange(n1 * n2), n2)
    missing = -len(rows) % lanes
    fill = [np.concatenate([index, np.repeat(index[-1:], missing)]) for index in (rows, columns)]
    return fill[0].astype(np.int64), fill[1].astype(np.int64)


def in_threads(count: int, run: Callable[[int, int], None], chunks: int = CHUNKS_PER_THREAD) -> None:
    """Call ``run(first, last)`` for ranges that cover ``range(count)``, in as many threads as PyTorch uses.

    Args:
        chunks: ranges per thread.
    """
    threads = max(1, min(torch.get_num_threads(), count))
    if threads == 1:
        run(0, count)
        return
    chunks = min(count, chunks * threads)
    cuts = [count * index // chunks for index in range(chunks + 1)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(run, cuts[:-1], cuts[1:]))
