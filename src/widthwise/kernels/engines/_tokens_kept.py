"""What an input brings along to its pairs, worked out from its plane with itself."""

from typing import no_type_check

import numpy as np
from numba import njit

from widthwise.kernels.engines._rows import exponential, own_code, view, wide_vectors
from widthwise.kernels.engines._tokens_blocks import OPTIONS, lanes_of
from widthwise.kernels.engines._tokens_codes import (
    AT,
    COUNT,
    ERF_ROOT,
    FIRST,
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
def scores(row, y, ws, at, given, op, par, fixed, place):
    """Scores of one position with all others.

    Args:
        at, given: where covariances of its key, and masks that are data, begin.
        place: where its row of constants begins.
    """
    own_code()
    wide_vectors()
    n, to, lanes = op[M], op[N], lanes_of(ws)
    for s in range(n):
        constant = fixed[op[MASK] + place + s]
        for lane in range(lanes):
            row[s * lanes + lane] = constant
        for more in range(op[COUNT]):
            first = given + (more * to * n + s) * lanes
            for lane in range(lanes):
                row[s * lanes + lane] += y[first + lane]
        if at >= 0:
            wave = fixed[op[WAVES] + place % (to * n) + s] if op[WAVES] >= 0 else ws.dtype.type(1.0)
            scale = par[SCALE] * wave
            for lane in range(lanes):
                row[s * lanes + lane] += scale * ws[at + s * lanes + lane]


@njit(**OPTIONS)
@no_type_check
def softmax(row, top, total, n):
    """Of every lane; one that may attend to nothing gets zeros."""
    own_code()
    wide_vectors()
    lanes = lanes_of(row)
    lowest, zero = row.dtype.type(-np.inf), row.dtype.type(0.0)
    for lane in range(lanes):
        top[lane], total[lane] = lowest, zero
    for s in range(n):
        for lane in range(lanes):
            top[lane] = max(top[lane], row[s * lanes + lane])
    for lane in range(lanes):
        top[lane] = top[lane] if top[lane] > lowest else zero
    for s in range(n):
        for lane in range(lanes):
            row[s * lanes + lane] = exponential(row[s * lanes + lane] - top[lane])
    for s in range(n):
        for lane in range(lanes):
            total[lane] += row[s * lanes + lane]
    for lane in range(lanes):
        total[lane] = row.dtype.type(1.0) / max(total[lane], row.dtype.type(1e-37))
    for s in range(n):
        for lane in range(lanes):
            row[s * lanes + lane] *= total[lane]


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
