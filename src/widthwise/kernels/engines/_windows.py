"""Convolutions with windows of 3 x 3 that keep the size of the image, and the ReLU after them, in one pass.

The sum of a window is that of three columns, which stay in registers from one position to the next. The result may
overwrite its source: the row above is kept aside.
"""

from typing import no_type_check

import numpy as np
from numba import njit

from widthwise.kernels.engines._arcs import arc_polynomial
from widthwise.kernels.engines._codes import (
    ABRELU,
    CHANNELS,
    CONSTANT,
    CONSTANT0,
    CONSTANT_T,
    CONSTANT_T0,
    DST,
    DX,
    DY,
    FEATURE,
    FEATURE2,
    FIRST,
    KX,
    KY,
    NO_TANGENT,
    PHI,
    PLUS,
    PX,
    PY,
    RATIO,
    SCALE,
    SCALE_T,
    SECOND,
    SRC,
    SUMMED,
    SX,
    SY,
    H,
    W,
)
from widthwise.kernels.engines._passes import OPTIONS, span
from widthwise.kernels.engines._rows import own_code, wide_vectors
from widthwise.kernels.engines._vectors import (
    REGISTER_BYTES,
    accumulate,
    load,
    magnitude,
    root_above,
    spread,
    store,
    with_sign,
)

INLINED = {**OPTIONS, "forceinline": True}


@njit(**OPTIONS)
@no_type_check
def fits(op):
    """Whether a convolution is one of those that are meant here."""
    ones = op[SY] == 1 and op[SX] == 1 and op[PY] == 1 and op[PX] == 1 and op[DY] == 1 and op[DX] == 1
    return ones and op[KY] == 3 and op[KX] == 3


@njit(**OPTIONS)
@no_type_check
def is_summed(op):
    """Whether one of those adds its result up instead of keeping it, for the operation after it."""
    return op[SUMMED] and fits(op) and (op[PHI] < 0 or op[PHI] == ABRELU)


@njit(**INLINED)
@no_type_check
def column(ws, at, below, above):
    """The sum of three rows at one position; the row above moves on."""
    middle = load(ws, at)
    total = load(ws, above) + middle + load(ws, below)
    store(ws, above, middle)
    return total


@njit(**INLINED)
@no_type_check
def abrelu(k, t, stds, inverses, unit, constants, table):
    """Moment and tangent behind a piecewise linear activation.

    Args:
        stds, inverses: products of the standard deviations, and of their inverses.
        unit: distance from one below which a correlation counts as one.
        table: coefficients of the polynomials of `_arcs.py`, times the jump of the slope's covariance per angle.
    """
    one, most, middle = constants
    rho = k * inverses
    w = one - magnitude(rho)
    distance = root_above(w, unit)
    slope = middle + with_sign(most - distance * arc_polynomial(w, table, 0), rho)
    return (distance * arc_polynomial(w, table, table.size // 2)) * stds + slope * k, t * slope


@njit(**INLINED)
@no_type_check
def abrelu_constants(par):
    """One, a quarter of the squared jump of the slope, and the mean of the slope's covariance at both ends."""
    real = par.dtype.type
    low, high = par[FIRST], par[SECOND]
    most = (high - low) * (high - low) * real(0.25)
    middle = (low * low + high * high) * real(0.5) - most
    return spread(real(1.0)), spread(most), spread(middle)


@njit(**INLINED)
@no_type_check
def plane(ws, size, op, par, shift, lanes, x, y, own, spare, longest, table, relu, tangent, plus, sums, weight):
    """The same, compiled for each case (see `windows`)."""
    real = par.dtype.type
    step = REGISTER_BYTES // ws.itemsize
    width, dy, dx = op[W], shift[0], shift[1]
    y0, y1 = span(op[H], dy)
    x0, x1 = span(width, dx)
    here = dy == 0 and dx == 0
    offset = par[CONSTANT] + (par[CONSTANT0] if here else real(0.0))
    offset_t = par[CONSTANT_T] + (par[CONSTANT_T0] if here else real(0.0)) - par[RATIO] * offset
    scale, scale_t, ratio = spread(par[SCALE]), spread(par[SCALE_T]), spread(par[RATIO])
    constant, constant_t, zero = spread(offset), spread(offset_t), spread(real(0.0))
    constants = abrelu_constants(par)
    source, target = op[SRC] * lanes, op[DST] * lanes
    std, inverse = op[FEATURE] * lanes, op[FEATURE2] * lanes
    line, count, move = width * lanes, (x1 - x0) * lanes, (dy * width + dx) * lanes
    above, none = spare, spare + 2 * longest
    for group in range(0, lanes, step):
        unit = spread(real(2 * np.finfo(ws.dtype).eps)) + load(own, group)
        for at in range(above + group, above + count + group, lanes):
            store(ws, at, zero)
            store(ws, at + longest, zero)
        for p in range(y0, y1):
            first = (p * width + x0) * lanes + group
            here_k, below = source + first, (source + first + line if p + 1 < y1 else none)
            here_t, below_t = here_k + size, (source + first + line + size if p + 1 < y1 else none)
            left, left_t, centre_t, total, total_t = zero, zero, zero, zero, zero
            centre = column(ws, here_k, below, above + group)
            if tangent:
                centre_t = column(ws, here_t, below_t, above + longest + group)
            for i in range(0, count, lanes):
                right, right_t = zero, zero
                if i + lanes < count:
                    next = i + lanes
                    right = column(ws, here_k + next, below + next, above + group + next)
                    if tangent:
                        right_t = column(ws, here_t + next, below_t + next, above + longest + group + next)
                k = scale * ((left + right) + centre) + constant
                t = ratio * k + constant_t
                if tangent:
                    t = scale_t * ((left_t + right_t) + centre_t) + t
                left, centre, left_t, centre_t = centre, right, centre_t, right_t
                at = target + first + i
                if plus:
                    k, t = k + load(ws, at), t + load(ws, at + size)
                if relu:
                    a, b = std + first + i, inverse + first + i
                    stds = load(x, a) * load(y, a + move)
                    inverses = load(x, b) * load(y, b + move)
                    k, t = abrelu(k, t, stds, inverses, unit, constants, table)
                if sums is None:
                    store(ws, at, k)
                    store(ws, at + size, t)
                else:
                    total, total_t = total + k, total_t + t
            if sums is not None:
                accumulate(sums, group, total, weight)
                accumulate(sums, lanes + group, total_t, weight)


@njit(**OPTIONS)
@no_type_check
def windows(ws, size, op, par, shift, lanes, x, y, own, spare, longest, table):
    """A convolution of one plane, and its activation if that is piecewise linear.

    Args:
        own: 1 for a lane in which the correlation is one, 0 elsewhere.
        table: see `abrelu`.
        spare: where `ws` has room for three rows of `longest` numbers, the last of them zeros.
    """
    own_code()
    wide_vectors()
    relu, tangent, plus = op[PHI] == ABRELU, op[NO_TANGENT] == 0, op[PLUS] != 0
    if relu and tangent and not plus:
        plane(ws, size, op, par, shift, lanes, x, y, own, spare, longest, table, True, True, False, None, 0.0)
    else:
        plane(ws, size, op, par, shift, lanes, x, y, own, spare, longest, table, relu, tangent, plus, None, 0.0)


@njit(**OPTIONS)
@no_type_check
def summed_windows(ws, size, op, par, shift, lanes, x, y, own, spare, longest, table, sums, weight):
    """The same, where nothing but the sum over the plane is wanted: it is added to ``sums``, ``[2 * lanes]``."""
    own_code()
    wide_vectors()
    relu, tangent, plus = op[PHI] == ABRELU, op[NO_TANGENT] == 0, op[PLUS] != 0
    plane(ws, size, op, par, shift, lanes, x, y, own, spare, longest, table, relu, tangent, plus, sums, weight)


@njit(**OPTIONS)
@no_type_check
def products(ws, op, par, shift, lanes, x, y):
    """Covariances of pixels: products of features, averaged over channels. Their tangents are zero and never read."""
    own_code()
    wide_vectors()
    step = REGISTER_BYTES // ws.itemsize
    height, width = op[H], op[W]
    y0, y1 = span(height, shift[0])
    x0, x1 = span(width, shift[1])
    scale, plane_size, move = spread(par[SCALE]), height * width * lanes, (shift[0] * width + shift[1]) * lanes
    source, target = op[FEATURE] * lanes, op[DST] * lanes
    for p in range(y0, y1):
        for at in range((p * width + x0) * lanes, (p * width + x1) * lanes, step):
            a = source + at
            total = load(x, a) * load(y, a + move)
            for _ in range(1, op[CHANNELS]):
                a += plane_size
                total = total + load(x, a) * load(y, a + move)
            store(ws, target + at, scale * total)
