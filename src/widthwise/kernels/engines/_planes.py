"""Operations on one plane: convolutions, rows with activations, loads and sums."""

from typing import no_type_check

import numpy as np
from numba import njit

from widthwise.kernels.engines import _rows as rows
from widthwise.kernels.engines._codes import (
    ABRELU,
    AFFINE,
    CODE,
    CONSTANT,
    CONSTANT0,
    CONSTANT_T,
    CONSTANT_T0,
    CONV,
    DST,
    DX,
    DY,
    ERF,
    FEATURE,
    FEATURE2,
    FIRST,
    GELU,
    INDEX,
    KX,
    KY,
    LOAD,
    NO_TANGENT,
    NORM,
    PHI,
    PLUS,
    PX,
    PY,
    RATIO,
    SCALE,
    SCALE_T,
    SECOND,
    SH,
    SIN,
    SRC,
    SW,
    SX,
    SY,
    WHERE,
    H,
    W,
)
from widthwise.kernels.engines._passes import (
    OPTIONS,
    add,
    affine,
    affine3,
    affine3_with,
    copy,
    fill,
    multiply,
    span,
    window_row,
)
from widthwise.kernels.engines._rows import view


@njit(**OPTIONS)
@no_type_check
def activate(k, t, op, par, x, y, px, py, lanes, least):
    """An activation of one row; px, py are the first positions of the left and right inputs' features."""
    n = k.size
    rows.own_code()
    a = (op[FEATURE] + px) * lanes
    b = (op[FEATURE] + py) * lanes
    phi = op[PHI]
    if phi == ABRELU:
        c, d = (op[FEATURE2] + px) * lanes, (op[FEATURE2] + py) * lanes
        rows.abrelu_row(
            k, t, view(x, a, n), view(y, b, n), view(x, c, n), view(y, d, n), view(least, 0, n), par[FIRST], par[SECOND]
        )
    elif phi == ERF:
        rows.erf_row(k, t, view(x, a, n), view(y, b, n))
    elif phi == GELU:
        c, d = (op[FEATURE2] + px) * lanes, (op[FEATURE2] + py) * lanes
        rows.gelu_row(k, t, view(x, a, n), view(y, b, n), view(x, c, n), view(y, d, n))
    elif phi == SIN:
        rows.sin_row(k, t, view(x, a, n), view(y, b, n), par[FIRST], par[SECOND])


@njit(**OPTIONS)
@no_type_check
def convolve(ws, size, op, par, shift, lanes, ring, x, y, least, none):
    """Box sums, scale and constants of both planes, then the activation, row by row."""
    rows.own_code()
    height, width, sh, sw = op[H], op[W], op[SH], op[SW]
    dy, dx = shift
    y0, y1 = span(height, dy)
    x0, x1 = span(width, dx)
    s0, s1 = span(sh, dy * op[SY])
    c0, c1 = span(sw, dx * op[SX])
    taps, kept = op[KY], (op[KY] - 1) * op[DY] + 1
    dst, src, n, left = op[DST] * lanes, op[SRC] * lanes, (x1 - x0) * lanes, x0 * lanes
    line = width * lanes if width > sw else sw * lanes
    half = ring.size // 2
    zero = view(none, 0, n)
    tangent = op[NO_TANGENT] == 0
    here = dy == 0 and dx == 0
    constant = par[CONSTANT] + (par[CONSTANT0] if here else par.dtype.type(0.0))
    constant_t = par[CONSTANT_T] + (par[CONSTANT_T0] if here else par.dtype.type(0.0))
    done = s0
    for p in range(y0, y1):
        first = p * op[SY] - op[PY]
        while done <= min(first + kept - 1, s1 - 1):
            if done >= first:
                at = src + done * sw * lanes
                window_row(
                    view(ring, done % kept * line, line),
                    view(ws, at, sw * lanes),
                    lanes,
                    op[KX],
                    op[SX],
                    op[PX],
                    op[DX],
                    x0,
                    x1,
                    c0,
                    c1,
                )
                if tangent:
                    at += size
                    window_row(
                        view(ring, half + done % kept * line, line),
                        view(ws, at, sw * lanes), lanes, op[KX], op[SX], op[PX], op[DX], x0, x1, c0, c1,
                    )  # fmt: skip
            done += 1
        at = dst + (p * width + x0) * lanes
        k, t = view(ws, at, n), view(ws, at + size, n)
        if taps == 3 and op[PLUS] == 0:
            a, b, c = first, first + op[DY], first + 2 * op[DY]
            ina, inb, inc = s0 <= a < s1, s0 <= b < s1, s0 <= c < s1
            affine3(
                k,
                view(ring, a % kept * line + left, n) if ina else zero,
                view(ring, b % kept * line + left, n) if inb else zero,
                view(ring, c % kept * line + left, n) if inc else zero,
                par[SCALE],
                constant,
            )
            if tangent:
                affine3_with(
                    t,
                    k,
                    view(ring, half + a % kept * line + left, n) if ina else zero,
                    view(ring, half + b % kept * line + left, n) if inb else zero,
                    view(ring, half + c % kept * line + left, n) if inc else zero,
                    par[SCALE_T],
                    par[RATIO],
                    constant_t - par[RATIO] * constant,
                )
            else:
                affine(t, k, par[RATIO], constant_t - par[RATIO] * constant)
        else:
            sum_k, sum_t = view(ring, kept * line, n), view(ring, half + kept * line, n)
            fill(sum_k, par.dtype.type(0.0))
            fill(sum_t, par.dtype.type(0.0))
            for tap in range(taps):
                a = first + tap * op[DY]
                if s0 <= a < s1:
                    add(sum_k, view(ring, a % kept * line + left, n))
                    if tangent:
                        add(sum_t, view(ring, half + a % kept * line + left, n))
            store(k, t, sum_k, sum_t, op, par, constant, constant_t)
        if op[PHI] >= 0:
            activate(k, t, op, par, x, y, p * width + x0, (p + dy) * width + x0 + dx, lanes, least)


@njit(**OPTIONS)
@no_type_check
def store(k, t, source, source_t, op, par, constant, constant_t):
    """k (+)= scale source + constant, t (+)= scale_t source_t + ratio scale source + constant_t."""
    rows.own_code()
    rows.wide_vectors()
    scale, scale_t, mixed = par[SCALE], par[SCALE_T], par[RATIO] * par[SCALE]
    if op[PLUS]:
        for i in range(k.size):
            k[i] += scale * source[i] + constant
        for i in range(k.size):
            t[i] += scale_t * source_t[i] + (mixed * source[i] + constant_t)
    else:
        for i in range(k.size):
            t[i] = scale_t * source_t[i] + (mixed * source[i] + constant_t)
        for i in range(k.size):
            k[i] = scale * source[i] + constant


@njit(**OPTIONS)
@no_type_check
def run_rows(ws, size, op, par, shift, lanes, x, y, least):
    """Operations that act on each row alone; of a convolution that is done, the activation."""
    rows.own_code()
    height, width, code = op[H], op[W], op[CODE]
    dy, dx = shift
    y0, y1 = span(height, dy)
    x0, x1 = span(width, dx)
    n = (x1 - x0) * lanes
    zero = par.dtype.type(0.0)
    here = dy == 0 and dx == 0
    constant = par[CONSTANT] + (par[CONSTANT0] if here else zero)
    constant_t = par[CONSTANT_T] + (par[CONSTANT_T0] if here else zero)
    for p in range(y0, y1):
        px, py = p * width + x0, (p + dy) * width + x0 + dx
        at = (op[DST] + px) * lanes
        k, t = view(ws, at, n), view(ws, at + size, n)
        if code == AFFINE or (code not in (CONV, LOAD) and op[DST] != op[SRC]):
            at = (op[SRC] + px) * lanes
            source, source_t = view(ws, at, n), view(ws, at + size, n)
            if code == AFFINE:
                store(k, t, source, source_t, op, par, constant, constant_t)
            else:
                copy(k, source)
                copy(t, source_t)
        if code == NORM:
            a, b = (op[FEATURE] + px) * lanes, (op[FEATURE] + py) * lanes
            multiply(k, t, view(x, a, n), view(y, b, n))
        if op[PHI] >= 0:
            activate(k, t, op, par, x, y, px, py, lanes, least)


@njit(**OPTIONS)
@no_type_check
def load(ws, size, op, shift, lanes, where, buffers, sums):
    """A plane of the stage below, at one displacement."""
    rows.own_code()
    height, width = op[H], op[W]
    y0, y1 = span(height, shift[0])
    x0, x1 = span(width, shift[1])
    dst = op[DST] * lanes
    if op[INDEX] >= 0:
        for lane in range(lanes):
            ws[dst + lane] = sums[op[INDEX] * 2 * lanes + lane]
            ws[dst + size + lane] = sums[(op[INDEX] * 2 + 1) * lanes + lane]
        return
    base = where[op[WHERE] + (shift[0] + height - 1) * (2 * width - 1) + shift[1] + width - 1]
    n = (x1 - x0) * lanes
    for p in range(y0, y1):
        at, a = dst + (p * width + x0) * lanes, base * lanes + (p - y0) * n
        copy(view(ws, at, n), view(buffers, a, n))
        copy(view(ws, at + size, n), view(buffers, buffers.size // 2 + a, n))


@njit(**OPTIONS)
@no_type_check
def reduce(ws, size, op, par, shift, lanes, ring, sums):
    """Add the whole plane to one number per lane."""
    rows.own_code()
    rows.wide_vectors()
    width = op[W]
    y0, y1 = span(op[H], shift[0])
    x0, x1 = span(width, shift[1])
    n = (x1 - x0) * lanes
    if y1 <= y0 or n <= 0:
        return
    k, t = view(ring, 0, n), view(ring, ring.size // 2, n)
    fill(k, par.dtype.type(0.0))
    fill(t, par.dtype.type(0.0))
    for p in range(y0, y1):
        at = (op[SRC] + p * width + x0) * lanes
        add(k, view(ws, at, n))
        add(t, view(ws, at + size, n))
    first = op[INDEX] * 2 * lanes
    total, total_t = view(sums, first, lanes), view(sums, first + lanes, lanes)
    weight = np.float64(par[SCALE])
    for place in range(x1 - x0):
        for lane in range(lanes):
            total[lane] += weight * k[place * lanes + lane]
            total_t[lane] += weight * t[place * lanes + lane]
