"""What an input brings along to its pairs, worked out from its plane with itself."""

from typing import no_type_check

import numpy as np
from numba import njit

from widthwise.kernels.engines._rows import exponential, own_code, view, wide_vectors
from widthwise.kernels.engines._tokens_blocks import (
    OPTIONS,
    add_register,
    lanes_of,
    largest_register,
    product,
    spread_register,
    times_register,
)
from widthwise.kernels.engines._tokens_codes import (
    AT,
    COUNT,
    ERF_ROOT,
    FIRST,
    FIRST_AT,
    GIVEN,
    HALF,
    HEADS,
    INVERSE_STD,
    KIND,
    MASK,
    MASK_GIVEN,
    SCALE,
    SCALE_OF_NORM,
    SECOND,
    SPREAD,
    SRC,
    STD,
    WAVES,
    M,
    N,
)


@njit(**OPTIONS)
@no_type_check
def keep_variance(y, ws, src, op, par):
    """The variance of every position in the form that a row function (or a norm) reads."""
    own_code()
    n, kind, lanes = op[N], op[KIND], lanes_of(ws)
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
def mix(y, op):
    """Data of all positions, averaged with attention weights; heads side by side."""
    own_code()
    to, n, heads, count, lanes = op[N], op[M], op[HEADS], op[COUNT], lanes_of(y)
    for head in range(heads):
        product(
            y, (op[AT] + head * count) * lanes, heads * count * lanes, lanes,
            y, (op[GIVEN] + head * to * n) * lanes, n * lanes, lanes,
            y, op[FIRST_AT] * lanes, lanes, count * lanes, (to, count, n), head < 0, y.dtype.type(1.0),
        )  # fmt: skip


@njit(**OPTIONS)
@no_type_check
def scores(row, y, ws, at, given, op, par, fixed, place):
    """Scores of one position with all others.

    Args:
        at, given: where covariances of its key, and masks that are data, begin.
        place: where its row of constants begins.
    """
    own_code()
    n, to, lanes = op[M], op[N], lanes_of(ws)
    one = ws.dtype.type(1.0)
    for s in range(n):
        spread_register(row, s * lanes, row, s * lanes, fixed[op[MASK] + place + s])
        for more in range(op[COUNT]):
            add_register(row, s * lanes, y, given + (more * to * n + s) * lanes, one)
        if at >= 0:
            wave = fixed[op[WAVES] + place % (to * n) + s] if op[WAVES] >= 0 else one
            add_register(row, s * lanes, ws, at + s * lanes, par[SCALE] * wave)


@njit(**OPTIONS)
@no_type_check
def exponentials(row):
    own_code()
    wide_vectors()
    for i in range(row.size):
        row[i] = exponential(row[i])


@njit(**OPTIONS)
@no_type_check
def softmax(row, top, total, n):
    """Of every lane; one that may attend to nothing gets zeros."""
    own_code()
    lanes = lanes_of(row)
    lowest, zero, one = row.dtype.type(-np.inf), row.dtype.type(0.0), row.dtype.type(1.0)
    spread_register(top, 0, top, 0, lowest)
    for s in range(n):
        largest_register(top, 0, row, s * lanes, one)
    for lane in range(lanes):
        top[lane] = top[lane] if top[lane] > lowest else zero
    for s in range(n):
        add_register(row, s * lanes, top, 0, -one)
    exponentials(row)
    spread_register(total, 0, total, 0, zero)
    for s in range(n):
        add_register(total, 0, row, s * lanes, one)
    for lane in range(lanes):
        total[lane] = one / max(total[lane], row.dtype.type(1e-37))
    for s in range(n):
        times_register(row, s * lanes, total, 0, one)


@njit(**OPTIONS)
@no_type_check
def keep_weights(y, ws, src, op, par, fixed, buffers):
    """Attention weights of every input: scores from the covariance of its keys, and masks."""
    own_code()
    to, n, lanes = op[N], op[M], lanes_of(ws)
    top, total = view(buffers, 0, lanes), view(buffers, lanes, lanes)
    for head in range(op[HEADS]):
        for p in range(to):
            place = (head * to + p) * n
            row = view(y, (op[AT] + place) * lanes, n * lanes)
            at = src + p * n * lanes if op[SRC] >= 0 else -1
            scores(row, y, ws, at, (op[MASK_GIVEN] + p * n) * lanes, op, par, fixed, place)
            if op[KIND] != 0:
                softmax(row, top, total, n)
