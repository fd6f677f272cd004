"""The token machine: all layers of a network on the covariances between all positions of a few pairs of inputs.

A block is one left input with a window of right inputs: each number of a plane is one vector register wide. In a first
run (`own`) the lanes are inputs with themselves; it works out what inputs bring along: variances in the form that
activations read, scales of norms, attention weights.
"""

from typing import no_type_check

from numba import njit

from widthwise.kernels.engines._passes import copy, fill
from widthwise.kernels.engines._rows import own_code, view
from widthwise.kernels.engines._tokens_activations import activate, activate_own, rescale
from widthwise.kernels.engines._tokens_blocks import OPTIONS, lanes_of, move
from widthwise.kernels.engines._tokens_codes import (
    ACT,
    ADD,
    AFFINE,
    CENTRE,
    CODE,
    DIAGONAL,
    DST,
    GATHER,
    GRAM,
    INDEX,
    INTS,
    MAP,
    NORM,
    OUT,
    PLACE,
    RATIO,
    READS,
    REALS,
    SCORES,
    SRC,
    TAPS,
    TOKENS,
    VARIANCE,
    WRITES,
    ZERO,
    M,
    N,
)
from widthwise.kernels.engines._tokens_kept import keep_variance, keep_weights
from widthwise.kernels.engines._tokens_pairs import BASE, BLOCK, COUNT, LEFT, OFFSET, SIZE, START, TABLE
from widthwise.kernels.engines._tokens_pairs import PLACE as TILE
from widthwise.kernels.engines._tokens_planes import (
    affine,
    average,
    constants,
    diagonal_mean,
    gather,
    gram,
    place,
    same_tokens,
    windows,
)


@njit(**OPTIONS)
@no_type_check
def bring(y, columns, wide, first, count):
    """What some inputs next to each other bring along, `count` numbers of each."""
    own_code()
    lanes = lanes_of(y)
    for at in range(count):
        move(y, at * lanes, columns, at * wide + first)


@njit(**OPTIONS)
@no_type_check
def take(rows, columns, y, places, known, wide, first):
    """The reverse, for what the first run found; and all that each input brings along, input by input."""
    own_code()
    lanes = lanes_of(y)
    for at in range(known, places):
        move(columns, at * wide + first, y, at * lanes)
    for lane in range(lanes):
        row = view(rows, (first + lane) * places, places)
        for at in range(places):
            row[at] = y[at * lanes + lane]


@njit(**OPTIONS)
@no_type_check
def put(results, means, ws, size, src, op, par, left, start, tile, count, n1, n2, own, same):
    """Means over equal positions to their places, moments and tangents; to the mirrored ones too where sides agree."""
    own_code()
    lanes = lanes_of(ws)
    diagonal_mean(means, 0, ws, src, op[N], lanes)
    if op[READS]:
        diagonal_mean(means, lanes, ws, src + size, op[N], lanes)
    first = op[INDEX] * 2 * n1 * n2
    for lane in range(count):
        j = tile[BASE] + (start + lane) % tile[SIZE]
        i = 0 if own else left
        tangent = means[lanes + lane] if op[READS] else par[RATIO] * means[lane]
        results[first + i * n2 + j] = means[lane]
        results[first + (n1 + i) * n2 + j] = tangent
        if same:
            results[first + j * n2 + i] = means[lane]
            results[first + (n1 + j) * n2 + i] = tangent


@njit(**OPTIONS)
@no_type_check
def run_blocks(cut, blocks, table, own, same, rows, columns, sizes, ops, pars, fixed, lists, ws, results):
    """Evaluate a range of blocks.

    Args:
        cut: first and last + 1.
        blocks, table: of left inputs with windows of right ones, and the tiles of these (see `_tokens_pairs`).
        own: lanes are inputs with themselves; what they bring along is written to `rows` and `columns`.
        same: both sides are the same inputs.
        rows: what left inputs bring along, ``[n1 * places]``.
        columns: what right inputs bring along, ``[places * wide]``.
        sizes: numbers of a plane, slots, longest row, places, places that are data, wide, left and right inputs.
        ops, pars: integer and real arguments of all operations.
        fixed, lists: constants, and lists of positions.
        ws: room for the planes (aligned).
        results: ``[outputs * 2 * n1 * n2]``; for inputs with themselves ``[outputs * 2 * n2]``.
    """
    area, slots, longest, places, known, wide, n1, n2 = sizes
    lanes = lanes_of(ws)
    size = area * lanes
    scratch = slots * 2 * size
    buffers = view(ws, scratch + size, 4 * longest * lanes)
    means = view(ws, scratch + size + 4 * longest * lanes, 2 * lanes)
    y = view(ws, scratch + size + (4 * longest + 2) * lanes, places * lanes)
    before = -1
    for block in range(cut[0], cut[1]):
        left, start, count = blocks[block * BLOCK + LEFT], blocks[block * BLOCK + START], blocks[block * BLOCK + COUNT]
        tile = view(table, blocks[block * BLOCK + TILE] * TABLE, TABLE)
        if tile[OFFSET] + start != before:
            before = tile[OFFSET] + start
            bring(y, columns, wide, before, known if own else places)
        x, x_at = rows, left * places
        for index in range(ops.size // INTS):
            op, par = view(ops, index * INTS, INTS), view(pars, index * REALS, REALS)
            code = op[CODE]
            dst, src = op[DST] * 2 * size, op[SRC] * 2 * size
            if code == AFFINE:
                affine(ws, size, dst, src, op, par, lanes)
            elif code == MAP:
                average(ws, scratch, dst, src, op, fixed, x, x_at, y, lanes, own)
                if op[WRITES]:
                    average(ws, scratch, dst + size, src + size, op, fixed, x, x_at, y, lanes, own)
            elif code == ACT and not own:
                activate(ws, size, dst, src, op, par, x, x_at, y, lanes, buffers)
            elif code in (ACT, NORM, CENTRE):
                if dst != src:
                    copy(view(ws, dst, op[N] * op[N] * lanes), view(ws, src, op[N] * op[N] * lanes))
                    if op[WRITES]:
                        copy(view(ws, dst + size, op[N] * op[N] * lanes), view(ws, src + size, op[N] * op[N] * lanes))
                if code == ACT:
                    activate_own(ws, size, dst, op, par, y, lanes, buffers)
                else:
                    rescale(ws, size, dst, op, x, x_at, y, lanes, own, buffers, code == CENTRE)
            elif code == GRAM:
                gram(ws, dst, op, par, x, x_at, y, lanes, own)
            elif code == TOKENS:
                same_tokens(ws, dst, op, par, x, x_at, y, lanes, own)
            elif code == ADD:
                constants(ws, size, dst, op, fixed, lanes)
            elif code == ZERO:
                fill(view(ws, dst, op[N] * op[N] * lanes), ws.dtype.type(0.0))
                if op[WRITES]:
                    fill(view(ws, dst + size, op[N] * op[N] * lanes), ws.dtype.type(0.0))
            elif code in (GATHER, TAPS, PLACE, DIAGONAL):
                for which in range(2 if op[WRITES] else 1):
                    to, at = dst + which * size, src + which * size
                    if code == GATHER:
                        gather(ws, to, at, op, lists, lanes)
                    elif code == TAPS:
                        windows(ws, to, at, op, lists, lanes)
                    elif code == PLACE:
                        place(ws, to, at, op, lists, lanes)
                    else:
                        diagonal_mean(ws, to, ws, at, op[M], lanes)
            elif code == VARIANCE:
                keep_variance(y, ws, src, op, par)
            elif code == SCORES:
                keep_weights(y, ws, src, op, par, fixed, buffers)
            elif code == OUT:
                put(results, means, ws, size, src, op, par, left, start, tile, count, n1, n2, own, same)
        if own:
            take(rows, columns, y, places, known, wide, before)
