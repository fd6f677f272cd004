"""The token machine: all layers of a network on the covariances between all positions of a few pairs of inputs.

A block is one left input with `lanes` right inputs: each number of a plane is one vector register wide. In a first
run (`own`) the lanes are inputs with themselves; it works out what inputs bring along: variances in the form that
activations read, scales of norms, attention weights.
"""

from typing import no_type_check

import numpy as np
from numba import njit

from widthwise.kernels.engines._passes import add_scaled, copy, fill
from widthwise.kernels.engines._rows import exponential, own_code, view, wide_vectors
from widthwise.kernels.engines._tokens_blocks import OPTIONS
from widthwise.kernels.engines._tokens_codes import (
    ACT,
    ADD,
    AFFINE,
    AT,
    CENTRE,
    CODE,
    COUNT,
    DIAGONAL,
    DST,
    ERF_ROOT,
    FIRST,
    GATHER,
    GRAM,
    HALF,
    HEADS,
    INDEX,
    INTS,
    INVERSE_STD,
    KIND,
    MAP,
    MASK,
    MASK_GIVEN,
    NORM,
    OUT,
    PLACE,
    RATIO,
    READS,
    REALS,
    SCALE,
    SCALE_OF_NORM,
    SCORES,
    SECOND,
    SPREAD,
    SRC,
    STD,
    TAPS,
    TOKENS,
    VARIANCE,
    WAVES,
    WRITES,
    ZERO,
    M,
    N,
)
from widthwise.kernels.engines._tokens_planes import (
    activate,
    activate_own,
    affine,
    average,
    constants,
    diagonal_mean,
    gather,
    gram,
    place,
    rescale,
    same_tokens,
    windows,
)


@njit(**OPTIONS)
@no_type_check
def keep_variance(y, ws, src, op, par, lanes):
    """The variance of every position in the form that a row function (or a norm) reads."""
    own_code()
    n, kind = op[N], op[KIND]
    one = ws.dtype.type(1.0)
    for lane in range(lanes):
        mean = ws.dtype.type(0.0)
        for p in range(n):
            mean += ws[src + (p * n + p) * lanes + lane] / n
        for p in range(n):
            v = ws[src + (p * n + p) * lanes + lane]
            if kind == SCALE_OF_NORM:
                value = one / np.sqrt((mean if par[SECOND] != 0 else v) + par[FIRST])
            elif kind == STD:
                value = np.sqrt(max(v, ws.dtype.type(0.0)))
            elif kind == INVERSE_STD:
                value = one / np.sqrt(v) if v > 0 else ws.dtype.type(0.0)
            elif kind == SPREAD:
                value = v
            elif kind == HALF:
                value = par[FIRST] * v / 2
            elif kind == ERF_ROOT:
                value = one / np.sqrt(one + 2 * v)
            else:
                value = one / np.sqrt(one + v)
            y[(op[AT] + p) * lanes + lane] = value


@njit(**OPTIONS)
@no_type_check
def largest(top, row):
    wide_vectors()
    for i in range(top.size):
        top[i] = max(top[i], row[i])


@njit(**OPTIONS)
@no_type_check
def exponentials(row, top):
    wide_vectors()
    for i in range(row.size):
        row[i] = exponential(row[i] - top[i])


@njit(**OPTIONS)
@no_type_check
def divided(row, by):
    wide_vectors()
    for i in range(row.size):
        row[i] = row[i] / by[i]


@njit(**OPTIONS)
@no_type_check
def keep_weights(y, ws, src, op, par, fixed, lanes, buffers):
    """Attention weights of every input: scores from the covariance of its keys, and masks."""
    own_code()
    to, n = op[N], op[M]
    top, total = view(buffers, 0, lanes), view(buffers, lanes, lanes)
    lowest = ws.dtype.type(-np.inf)
    for head in range(op[HEADS]):
        for p in range(to):
            start = (op[AT] + (head * to + p) * n) * lanes
            fill(top, lowest)
            for s in range(n):
                row = view(y, start + s * lanes, lanes)
                fill(row, fixed[op[MASK] + (head * to + p) * n + s])
                for given in range(op[COUNT]):
                    at = (op[MASK_GIVEN] + (given * to + p) * n + s) * lanes
                    add_scaled(row, view(y, at, lanes), ws.dtype.type(1.0))
                if op[SRC] >= 0:
                    wave = fixed[op[WAVES] + p * n + s] if op[WAVES] >= 0 else ws.dtype.type(1.0)
                    add_scaled(row, view(ws, src + (p * n + s) * lanes, lanes), par[SCALE] * wave)
                largest(top, row)
            if op[KIND] == 0:
                continue
            for lane in range(lanes):
                top[lane] = top[lane] if top[lane] > lowest else ws.dtype.type(0.0)
            fill(total, ws.dtype.type(0.0))
            for s in range(n):
                row = view(y, start + s * lanes, lanes)
                exponentials(row, top)
                add_scaled(total, row, ws.dtype.type(1.0))
            for lane in range(lanes):
                total[lane] = max(total[lane], ws.dtype.type(1e-37))
            for s in range(n):
                divided(view(y, start + s * lanes, lanes), total)


@njit(**OPTIONS)
@no_type_check
def bring(y, data, places, known, first, count, lanes):
    """What `lanes` inputs bring along, lane by lane; the last input fills lanes that are left over."""
    own_code()
    for lane in range(lanes):
        row = view(data, min(first + lane, count - 1) * places, places)
        for at in range(known):
            y[at * lanes + lane] = row[at]


@njit(**OPTIONS)
@no_type_check
def take(data, y, places, known, first, count, lanes):
    """The reverse, for what the first run found."""
    own_code()
    for lane in range(min(lanes, count - first)):
        row = view(data, (first + lane) * places, places)
        for at in range(known, places):
            row[at] = y[at * lanes + lane]


@njit(**OPTIONS)
@no_type_check
def run_blocks(blocks, lefts, rights, own, same, data1, data2, sizes, ops, pars, fixed, table, ws, results):
    """Evaluate a range of blocks.

    Args:
        blocks: first and last + 1.
        lefts, rights: the left input, and the first of `lanes` right inputs, of each block.
        own: lanes are inputs with themselves; what they bring along is written to `data2`.
        same: both sides are the same inputs.
        data1, data2: what inputs bring along, ``[n * places]``.
        sizes: lanes, numbers of a plane, slots, longest row, places, places that are data, right inputs.
        ops, pars: integer and real arguments of all operations.
        fixed, table: constants, and lists of positions.
        ws: room for the planes (aligned).
        results: ``[outputs * 2 * lefts' count * right inputs]``; the last but one factor is the last of `sizes`.
    """
    lanes, area, slots, longest, places, known, count, count1 = sizes
    size = area * lanes
    scratch = slots * 2 * size
    buffers = view(ws, scratch + size, 4 * longest * lanes)
    means = view(ws, scratch + size + 4 * longest * lanes, 2 * lanes)
    y = view(ws, scratch + size + (4 * longest + 2) * lanes, places * lanes)
    before = -1
    for block in range(blocks[0], blocks[1]):
        left, right = lefts[block], rights[block]
        if right != before:
            bring(y, data2, places, known if own else places, right, count, lanes)
            before = right
        x, x_at = data1, left * places
        lane = left - right if same and not own and right <= left < right + lanes else -1
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
                activate(ws, size, dst, src, op, par, x, x_at, y, lanes, lane, buffers)
            elif code in (ACT, NORM, CENTRE):
                if dst != src:
                    copy(view(ws, dst, op[N] * op[N] * lanes), view(ws, src, op[N] * op[N] * lanes))
                    if op[WRITES]:
                        copy(view(ws, dst + size, op[N] * op[N] * lanes), view(ws, src + size, op[N] * op[N] * lanes))
                if code == ACT:
                    activate_own(ws, dst, op, par, y, lanes, buffers)
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
                        gather(ws, to, at, op, table, lanes)
                    elif code == TAPS:
                        windows(ws, to, at, op, table, lanes)
                    elif code == PLACE:
                        place(ws, to, at, op, table, lanes)
                    else:
                        diagonal_mean(ws, to, ws, at, op[M], lanes)
            elif code == VARIANCE:
                keep_variance(y, ws, src, op, par, lanes)
            elif code == SCORES:
                keep_weights(y, ws, src, op, par, fixed, lanes, buffers)
            elif code == OUT:
                diagonal_mean(means, 0, ws, src, op[N], lanes)
                if op[READS]:
                    diagonal_mean(means, lanes, ws, src + size, op[N], lanes)
                for place_ in range(min(lanes, count - right)):
                    at = (op[INDEX] * 2 * count1 + left) * count + right + place_
                    results[at] = means[place_]
                    tangent = means[lanes + place_] if op[READS] else par[RATIO] * means[place_]
                    results[at + count1 * count] = tangent
        if own:
            take(data2, y, places, known, right, count, lanes)
