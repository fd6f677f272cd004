"""Operations of the token machine on planes ``[left position, right position, lane]``.

A slot holds a plane of moments and, `size` numbers later, one of tangents. `own` says that each lane is an input with
itself, so that what the left input brings differs from lane to lane too.
"""

from typing import no_type_check

from numba import njit

from widthwise.kernels.engines._passes import add, add_scaled, copy, fill
from widthwise.kernels.engines._rows import own_code, view, wide_vectors
from widthwise.kernels.engines._tokens_blocks import OPTIONS, product, product1
from widthwise.kernels.engines._tokens_codes import (
    AT,
    CONSTANT,
    CONSTANT0,
    CONSTANT_T,
    CONSTANT_T0,
    COUNT,
    GIVEN,
    HEADS,
    KIND,
    PLUS,
    RATIO,
    READS,
    SCALE,
    SCALE_T,
    WRITES,
    M,
    N,
)


@njit(**OPTIONS)
@no_type_check
def affine_row(out, source, scale, constant, plus):
    """``out (+)= scale * source + constant``."""
    wide_vectors()
    if plus:
        for i in range(out.size):
            out[i] += scale * source[i] + constant
    else:
        for i in range(out.size):
            out[i] = scale * source[i] + constant


@njit(**OPTIONS)
@no_type_check
def tangent_row(out, source, tangent, scale, ratio, constant, plus):
    """``out (+)= scale * tangent + ratio * source + constant``."""
    wide_vectors()
    if plus:
        for i in range(out.size):
            out[i] += scale * tangent[i] + (ratio * source[i] + constant)
    else:
        for i in range(out.size):
            out[i] = scale * tangent[i] + (ratio * source[i] + constant)


@njit(**OPTIONS)
@no_type_check
def affine(ws, size, dst, src, op, par, lanes):
    """Scales and constants of both planes; tangents that are a multiple of the moments are not read."""
    own_code()
    n = op[N]
    count = n * n * lanes
    k, source = view(ws, dst, count), view(ws, src, count)
    if op[WRITES]:
        t = view(ws, dst + size, count)
        if op[READS]:
            tangent = view(ws, src + size, count)
            tangent_row(t, source, tangent, par[SCALE_T], par[RATIO], par[CONSTANT_T], op[PLUS] != 0)
        else:
            affine_row(t, source, par[RATIO], par[CONSTANT_T], op[PLUS] != 0)
    affine_row(k, source, par[SCALE], par[CONSTANT], op[PLUS] != 0)
    if par[CONSTANT0] != 0 or par[CONSTANT_T0] != 0:
        for p in range(n):
            for i in range((p * n + p) * lanes, (p * n + p + 1) * lanes):
                k[i] += par[CONSTANT0]
                if op[WRITES]:
                    ws[dst + size + i] += par[CONSTANT_T0]


@njit(**OPTIONS)
@no_type_check
def constants(ws, size, dst, op, fixed, lanes):
    """Add (or put) constants that differ between pairs of positions."""
    own_code()
    for place in range(op[N] * op[N]):
        for lane in range(lanes):
            at = dst + place * lanes + lane
            ws[at] = fixed[op[AT] + place] + (ws[at] if op[PLUS] else ws.dtype.type(0.0))
            if op[WRITES]:
                at += size
                ws[at] = fixed[op[GIVEN] + place] + (ws[at] if op[PLUS] else ws.dtype.type(0.0))


@njit(**OPTIONS)
@no_type_check
def gram(ws, dst, op, par, x, x_at, y, lanes, own):
    """Products of the features of all positions."""
    own_code()
    n, count, at = op[N], op[COUNT], op[AT]
    sizes = (n, n, count)
    if own:
        product(
            ws, dst, n * lanes, lanes, y, at * lanes, count * lanes, lanes, y, at * lanes, count * lanes, lanes,
            sizes, n < 0, par[SCALE],
        )  # fmt: skip
    else:
        product1(
            ws, dst, n * lanes, lanes, x, x_at + at, count, 1, y, at * lanes, count * lanes, lanes,
            sizes, n < 0, par[SCALE],
        )  # fmt: skip


@njit(**OPTIONS)
@no_type_check
def same_tokens(ws, dst, op, par, x, x_at, y, lanes, own):
    """The variance where both inputs hold the same token, other than the padding."""
    own_code()
    n, at = op[N], op[AT]
    padding = ws.dtype.type(op[KIND])
    for p in range(n):
        for r in range(n):
            for lane in range(lanes):
                token = y[(at + p) * lanes + lane] if own else x[x_at + at + p]
                same = token == y[(at + r) * lanes + lane] and token != padding
                ws[dst + (p * n + r) * lanes + lane] = par[SCALE] if same else ws.dtype.type(0.0)


@njit(**OPTIONS)
@no_type_check
def average(ws, scratch, dst, src, op, fixed, x, x_at, y, lanes, own):
    """Mean over heads of ``A K A'``: weights are constants, or what the inputs bring along."""
    own_code()
    to, n, heads = op[N], op[M], op[HEADS]
    share = ws.dtype.type(1.0 / heads)
    one = ws.dtype.type(1.0)
    for head in range(heads):
        at = op[AT] + head * to * n
        left, both = (to, n, n), (to, to, n)
        if op[GIVEN] == 0:
            product1(ws, scratch, n * lanes, lanes, fixed, at, n, 1, ws, src, lanes, n * lanes, left, head < 0, one)
            product1(ws, dst, lanes, to * lanes, fixed, at, n, 1, ws, scratch, n * lanes, lanes, both, head > 0, share)
            continue
        if own:
            product(
                ws, scratch, n * lanes, lanes, y, at * lanes, n * lanes, lanes, ws, src, lanes, n * lanes,
                left, head < 0, one,
            )  # fmt: skip
        else:
            product1(ws, scratch, n * lanes, lanes, x, x_at + at, n, 1, ws, src, lanes, n * lanes, left, head < 0, one)
        product(
            ws, dst, to * lanes, lanes, ws, scratch, n * lanes, lanes, y, at * lanes, n * lanes, lanes,
            both, head > 0, share,
        )  # fmt: skip


@njit(**OPTIONS)
@no_type_check
def gather(ws, dst, src, op, table, lanes):
    """Chosen positions."""
    own_code()
    to, n = op[N], op[M]
    for p in range(to):
        for r in range(to):
            place = (table[op[AT] + p] * n + table[op[AT] + r]) * lanes
            copy(view(ws, dst + (p * to + r) * lanes, lanes), view(ws, src + place, lanes))


@njit(**OPTIONS)
@no_type_check
def windows(ws, dst, src, op, table, lanes):
    """Sums over taps of equally shifted pairs of positions, zero outside."""
    own_code()
    to, n, taps = op[N], op[M], op[COUNT]
    for p in range(to):
        for r in range(to):
            out = view(ws, dst + (p * to + r) * lanes, lanes)
            fill(out, ws.dtype.type(0.0))
            for tap in range(taps):
                a, b = table[op[AT] + p * taps + tap], table[op[AT] + r * taps + tap]
                if a >= 0 and b >= 0:
                    add(out, view(ws, src + (a * n + b) * lanes, lanes))


@njit(**OPTIONS)
@no_type_check
def place(ws, dst, src, op, table, lanes):
    """Put a plane at chosen positions of a larger one."""
    own_code()
    to, n = op[N], op[M]
    for p in range(n):
        for r in range(n):
            at = (table[op[AT] + p] * to + table[op[AT] + r]) * lanes
            copy(view(ws, dst + at, lanes), view(ws, src + (p * n + r) * lanes, lanes))


@njit(**OPTIONS)
@no_type_check
def diagonal_mean(out, at, ws, src, n, lanes):
    """The mean over equal positions."""
    own_code()
    target = view(out, at, lanes)
    fill(target, out.dtype.type(0.0))
    share = out.dtype.type(1.0 / n)
    for p in range(n):
        add_scaled(target, view(ws, src + (p * n + p) * lanes, lanes), share)
