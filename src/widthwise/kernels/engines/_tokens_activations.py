"""Activations and scales of positions: operations that read what both inputs bring along.

A slot holds a plane of moments and, `size` numbers later, one of tangents.
"""

from typing import no_type_check

from numba import njit

from widthwise.kernels.engines import _rows as rows
from widthwise.kernels.engines._codes import ABRELU, ERF, GELU, SIN
from widthwise.kernels.engines._passes import copy, fill
from widthwise.kernels.engines._rows import own_code, view, wide_vectors
from widthwise.kernels.engines._tokens_blocks import OPTIONS
from widthwise.kernels.engines._tokens_codes import (
    CENTRE,
    CODE,
    CONSTANT,
    CONSTANT_BEHIND,
    CONSTANT_T,
    CONSTANT_T_BEHIND,
    FIRST,
    FIRST_AT,
    PHI,
    RATIO,
    RATIO_BEHIND,
    READS,
    SCALE,
    SCALE_BEHIND,
    SCALE_T,
    SCALE_T_BEHIND,
    SECOND,
    SECOND_AT,
    WRITES,
    N,
)
from widthwise.kernels.engines._tokens_rows import abrelu, erf, gelu, sin


@njit(**OPTIONS)
@no_type_check
def spread_left(row, x, x_at, y, place, n, lanes, own):
    """What the left input brings for one position, for each position of the right input."""
    if own:
        for r in range(n):
            copy(view(row, r * lanes, lanes), view(y, place * lanes, lanes))
    else:
        fill(view(row, 0, n * lanes), x[x_at + place])


@njit(**OPTIONS)
@no_type_check
def activate_own(ws, size, dst, op, par, y, lanes, buffers):
    """An activation of inputs with themselves."""
    own_code()
    n = op[N]
    wide = n * lanes
    longest = buffers.size // 4
    first, second = view(buffers, 0, wide), view(buffers, longest, wide)
    least, other = view(buffers, 2 * longest, wide), view(buffers, 3 * longest, wide)
    fill(least, ws.dtype.type(0.0))
    fill(other, ws.dtype.type(0.0))
    ya = view(y, op[FIRST_AT] * lanes, wide)
    yb = view(y, max(op[SECOND_AT], 0) * lanes, wide)
    for p in range(n):
        k = view(ws, dst + p * wide, wide)
        t = view(ws, dst + size + p * wide, wide) if op[WRITES] else other
        spread_left(first, y, n, y, op[FIRST_AT] + p, n, lanes, n > 0)
        spread_left(second, y, n, y, max(op[SECOND_AT], 0) + p, n, lanes, n > 0)
        if op[PHI] == ABRELU:
            equal = view(least, p * lanes, lanes)
            fill(equal, ws.dtype.type(1.0))
            rows.abrelu_row(k, t, first, ya, second, yb, least, par[FIRST], par[SECOND])
            fill(equal, ws.dtype.type(0.0))
        elif op[PHI] == ERF:
            rows.erf_row(k, t, first, ya)
        elif op[PHI] == GELU:
            rows.gelu_row(k, t, first, ya, second, yb)
        elif op[PHI] == SIN:
            rows.sin_row(k, t, first, ya, par[FIRST], par[SECOND])


@njit(**OPTIONS)
@no_type_check
def activate(ws, size, dst, src, op, par, x, x_at, y, lanes, buffers):
    """A linear map, an activation, a linear map."""
    own_code()
    n, reads = op[N], op[READS] != 0
    wide = n * lanes
    k, t, step = view(ws, dst, n * wide), view(buffers, 0, wide), 0
    if dst != src:
        copy(k, view(ws, src, n * wide))
    if op[WRITES]:
        t, step = view(ws, dst + size, n * wide), wide
        if reads and dst != src:
            copy(t, view(ws, src + size, n * wide))
    first, second = op[FIRST_AT], max(op[SECOND_AT], 0)
    xa, xb = view(x, x_at + first, n), view(x, x_at + second, n)
    ya, yb = view(y, first * lanes, wide), view(y, second * lanes, wide)
    before = (par[SCALE], par[CONSTANT], par[SCALE_T], par[RATIO], par[CONSTANT_T])
    behind = (
        par[SCALE_BEHIND], par[CONSTANT_BEHIND], par[SCALE_T_BEHIND], par[RATIO_BEHIND], par[CONSTANT_T_BEHIND]
    )  # fmt: skip
    if op[PHI] == ABRELU:
        abrelu(k, t, step, reads, xa, ya, xb, yb, par[FIRST], par[SECOND], before, behind)
    elif op[PHI] == ERF:
        erf(k, t, step, reads, xa, ya, before, behind)
    elif op[PHI] == GELU:
        gelu(k, t, step, reads, xa, ya, xb, yb, before, behind)
    elif op[PHI] == SIN:
        sin(k, t, step, reads, xa, ya, par[FIRST], par[SECOND], before, behind)


@njit(**OPTIONS)
@no_type_check
def scaled_row(k, x, y):
    wide_vectors()
    for i in range(k.size):
        k[i] *= x[i] * y[i]


@njit(**OPTIONS)
@no_type_check
def less_row(k, x, y):
    wide_vectors()
    for i in range(k.size):
        k[i] -= x[i] * y[i]


@njit(**OPTIONS)
@no_type_check
def rescale(ws, size, dst, op, x, x_at, y, lanes, own, buffers):
    """Multiply by what both inputs bring for their positions (or subtract the product, from the moments alone)."""
    own_code()
    n = op[N]
    wide = n * lanes
    left, right = view(buffers, 0, wide), view(y, op[FIRST_AT] * lanes, wide)
    for p in range(n):
        spread_left(left, x, x_at, y, op[FIRST_AT] + p, n, lanes, own)
        if op[CODE] == CENTRE:
            less_row(view(ws, dst + p * wide, wide), left, right)
            continue
        scaled_row(view(ws, dst + p * wide, wide), left, right)
        if op[WRITES]:
            scaled_row(view(ws, dst + size + p * wide, wide), left, right)
