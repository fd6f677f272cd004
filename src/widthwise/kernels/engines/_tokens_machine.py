"""The token machine: all layers of a network on the covariances between all positions of a few pairs of inputs.

A block is one left input with a window of right inputs: each number of a plane is one vector register wide. In a first
run the lanes are inputs with themselves; it works out what inputs bring along: variances in the form that
activations read, scales of norms, attention weights.
"""

from typing import no_type_check

import numpy as np
from numba import njit

from widthwise.kernels.engines._passes import copy, fill
from widthwise.kernels.engines._rows import own_code, view
from widthwise.kernels.engines._tokens_activations import activate, activate_own, rescale
from widthwise.kernels.engines._tokens_blocks import OPTIONS, lanes_of, move_register
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
    MIX,
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
from widthwise.kernels.engines._tokens_kept import keep_variance, keep_weights, mix
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
def bring(y, columns, wide, first, start, end):
    """What some inputs next to each other bring along."""
    own_code()
    lanes, one = lanes_of(y), y.dtype.type(1.0)
    for at in range(start, end):
        move_register(y, at * lanes, columns, at * wide + first, one)


@njit(**OPTIONS)
@no_type_check
def turn(y, rows, places, known, first):
    """What has been read of some inputs, from one input behind the other to side by side."""
    own_code()
    lanes = lanes_of(y)
    for lane in range(lanes):
        row = view(rows, (first + lane) * places, places)
        for at in range(known):
            y[at * lanes + lane] = row[at]


@njit(**OPTIONS)
@no_type_check
def take(rows, columns, y, places, known, wide, first):
    """All that some inputs bring along to columns, and what was worked out to rows."""
    own_code()
    lanes, one = lanes_of(y), y.dtype.type(1.0)
    for at in range(places):
        move_register(columns, at * wide + first, y, at * lanes, one)
    for lane in range(lanes):
        row = view(rows, (first + lane) * places, places)
        for at in range(known, places):
            row[at] = y[at * lanes + lane]


@njit(**OPTIONS)
@no_type_check
def put(results, means, ws, size, src, op, par, left, start, tile, count, n1, n2, same):
    """Means over equal positions to their places, moments and tangents; to the mirrored ones too where sides agree."""
    own_code()
    lanes = lanes_of(ws)
    diagonal_mean(means, n1 - n1, ws, src, op[N], lanes)
    if op[READS]:
        diagonal_mean(means, lanes, ws, src + size, op[N], lanes)
    first = op[INDEX] * 2 * n1 * n2
    for lane in range(count):
        j = tile[BASE] + (start + lane) % tile[SIZE]
        tangent = means[lanes + lane] if op[READS] else par[RATIO] * means[lane]
        results[first + left * n2 + j] = means[lane]
        results[first + (n1 + left) * n2 + j] = tangent
        if same:
            results[first + j * n2 + left] = means[lane]
            results[first + (n1 + j) * n2 + left] = tangent


@njit(**OPTIONS)
@no_type_check
def lay_out(found, columns, places, wide, table, lanes):
    """Columns by tile and in another precision, the first inputs of each tile repeated behind it."""
    own_code()
    whole = found.size // places
    for at in range(places):
        for number in range(table.size // TABLE):
            tile = view(table, number * TABLE, TABLE)
            size = tile[SIZE]
            source, target = view(columns, at * wide + tile[BASE], size), view(found, at * whole + tile[OFFSET], size)
            copy(target, source)
            for first in range(0, lanes, size):
                count = min(size, lanes - first)
                copy(view(found, at * whole + tile[OFFSET] + size + first, count), view(source, 0, count))


@njit(**OPTIONS)
@no_type_check
def step(ws, size, scratch, op, par, fixed, lists, x, x_at, y, own):
    """One operation that does the same for pairs and for inputs with themselves."""
    own_code()
    lanes, code, count = lanes_of(ws), op[CODE], op[N] * op[N] * lanes_of(ws)
    for which in range(2 if op[WRITES] else 1):
        to, at = op[DST] * 2 * size + which * size, op[SRC] * 2 * size + which * size
        if code == MAP:
            average(ws, scratch, to, at, op, fixed, x, x_at, y, lanes, own)
        elif code == ZERO:
            fill(view(ws, to, count), ws.dtype.type(0.0))
        elif code == GATHER:
            gather(ws, to, at, op, lists, lanes)
        elif code == TAPS:
            windows(ws, to, at, op, lists, lanes)
        elif code == PLACE:
            place(ws, to, at, op, lists, lanes)
        elif code == DIAGONAL:
            diagonal_mean(ws, to, ws, at, op[M], lanes)
        elif code in (NORM, CENTRE, ACT) and to != at:
            copy(view(ws, to, count), view(ws, at, count))
    dst, src = op[DST] * 2 * size, op[SRC] * 2 * size
    if code == GRAM:
        gram(ws, dst, op, par, x, x_at, y, lanes, own)
    elif code == TOKENS:
        same_tokens(ws, dst, op, par, x, x_at, y, lanes, own)
    elif code == AFFINE:
        affine(ws, size, dst, src, op, par, lanes)
    elif code == ADD:
        constants(ws, size, dst, op, fixed, lanes)


@njit(**OPTIONS)
@no_type_check
def run_pairs(cut, blocks, table, same, rows, columns, sizes, ops, pars, fixed, lists, ws, results):
    """Evaluate a range of blocks.

    Args:
        cut: first and last + 1.
        blocks, table: of left inputs with windows of right ones, and the tiles of these (see `_tokens_pairs`).
        same: both sides are the same inputs.
        rows: what left inputs bring along, ``[n1 * places]``.
        columns: what right inputs bring along, ``[places * wide]``.
        sizes: numbers of a plane, slots, longest row, places, those that are data, first and last + 1 that pairs read,
            wide, left and right inputs.
        ops, pars: integer and real arguments of all operations.
        fixed, lists: constants, and lists of positions.
        ws: room for the planes (aligned).
        results: ``[outputs * 2 * n1 * n2]``.
    """
    area, slots, longest, places, _, low, high, wide, n1, n2 = sizes
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
            bring(y, columns, wide, before, low, high)
        x_at = left * places
        for index in range(ops.size // INTS):
            op, par = view(ops, index * INTS, INTS), view(pars, index * REALS, REALS)
            if op[CODE] == ACT:
                activate(ws, size, op[DST] * 2 * size, op[SRC] * 2 * size, op, par, rows, x_at, y, lanes, buffers)
            elif op[CODE] == OUT:
                put(results, means, ws, size, op[SRC] * 2 * size, op, par, left, start, tile, count, n1, n2, same)
            else:
                step(ws, size, scratch, op, par, fixed, lists, rows, x_at, y, n1 < 0)
                if op[CODE] in (NORM, CENTRE):
                    rescale(ws, size, op[DST] * 2 * size, op, rows, x_at, y, lanes, n1 < 0, buffers)


@njit(**OPTIONS)
@no_type_check
def run_own(cut, rows, columns, sizes, ops, pars, fixed, lists, ws, results):
    """Inputs with themselves, a register of them at a time: `rows` hold what was read, the rest is worked out.

    Args:
        cut: first and last + 1 of the groups of inputs.
        rows: what inputs bring along, ``[n * places]``.
        columns: the same side by side, ``[places * wide]``, to be filled.
        results: ``[outputs * 2 * n]``.
    """
    area, slots, longest, places, known, _, _, wide, n1, n2 = sizes
    lanes = lanes_of(ws)
    size = area * lanes
    scratch = slots * 2 * size
    buffers = view(ws, scratch + size, 4 * longest * lanes)
    means = view(ws, scratch + size + 4 * longest * lanes, 2 * lanes)
    y = view(ws, scratch + size + (4 * longest + 2) * lanes, places * lanes)
    tile = np.array([0, n2, 0])
    for group in range(cut[0], cut[1]):
        start = group * lanes
        turn(y, rows, places, known, start)
        for index in range(ops.size // INTS):
            op, par = view(ops, index * INTS, INTS), view(pars, index * REALS, REALS)
            code, dst, src = op[CODE], op[DST] * 2 * size, op[SRC] * 2 * size
            if code == VARIANCE:
                keep_variance(y, ws, src, op, par)
            elif code == MIX:
                mix(y, op)
            elif code == SCORES:
                keep_weights(y, ws, src, op, par, fixed, buffers)
            elif code == OUT:
                count = min(lanes, n2 - start)
                put(results, means, ws, size, src, op, par, n1 - n1, start, tile, count, n1, n2, n1 < 0)
            else:
                step(ws, size, scratch, op, par, fixed, lists, y, n1 - n1, y, n1 > 0)
                if code == ACT:
                    activate_own(ws, size, dst, op, par, y, lanes, buffers)
                elif code in (NORM, CENTRE):
                    rescale(ws, size, dst, op, y, n1 - n1, y, lanes, n1 > 0, buffers)
        take(rows, columns, y, places, known, wide, start)
