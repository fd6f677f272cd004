"""Activations of one row of covariances with the linear maps in front and behind, in one pass through registers.

The left position is one number for the whole row. Formulas and the per-input quantities are those of `_rows.py`.
``before`` and ``behind`` hold ``(scale, constant, scale_t, ratio, constant_t)``: moments become ``scale k + constant``
and tangents ``scale_t t + ratio k + constant_t``.
"""

import math
from typing import no_type_check

import numpy as np
from numba import njit
from numba.extending import register_jitable

from widthwise.kernels.engines._rows import arc, exponential, own_code, snapped, wide_vectors
from widthwise.kernels.engines._tokens_blocks import OPTIONS


@register_jitable(inline="always")
@no_type_check
def moment(k, by):
    """The moment after a linear map."""
    return by[0] * k + by[1]


@register_jitable(inline="always")
@no_type_check
def tangent(k, t, by):
    """The tangent after a linear map."""
    return by[2] * t + (by[3] * k + by[4])


@njit(**OPTIONS)
@no_type_check
def abrelu(k, t, xs, ys, xi, yi, least, low, high, before, behind):
    """Slopes `low` and `high`; xs, ys: standard deviations, xi, yi: their inverses (0 for 0)."""
    own_code()
    wide_vectors()
    real = k.dtype.type
    jump = real((high - low) * (high - low) / (2 * math.pi))
    middle = real((low * low + high * high) / 2 - (high - low) * (high - low) / 4)
    scale = jump * xs
    unit = np.finfo(k.dtype).eps
    for i in range(k.size):
        c = moment(k[i], before)
        a, root = arc(snapped(c * (xi * yi[i]), unit), least[i])
        slope = middle + jump * a
        value, along = scale * root * ys[i] + slope * c, slope * tangent(k[i], t[i], before)
        k[i] = moment(value, behind)
        t[i] = tangent(value, along, behind)


@njit(**OPTIONS)
@no_type_check
def erf(k, t, xi, yi, before, behind):
    """xi, yi: 1/sqrt(1 + 2 variance)."""
    own_code()
    wide_vectors()
    real = k.dtype.type
    for i in range(k.size):
        both = xi * yi[i]
        a, root = arc(real(2.0) * moment(k[i], before) * both, real(0.0))
        value = real(2 / math.pi) * a
        along = real(4 / math.pi) * both / root * tangent(k[i], t[i], before)
        k[i] = moment(value, behind)
        t[i] = tangent(value, along, behind)


@njit(**OPTIONS)
@no_type_check
def gelu(k, t, xv, yv, xi, yi, before, behind):
    """xv, yv: variances, xi, yi: 1/sqrt(1 + variance)."""
    own_code()
    wide_vectors()
    real = k.dtype.type
    for i in range(k.size):
        c, ab, both = moment(k[i], before), xv * yv[i], xi * yi[i]
        rho = c * both
        a, root = arc(rho, real(0.0))
        inverse, square = real(1.0) / root, both * both
        product = (rho * rho * inverse + ab * root) * both + c * a
        slope = (square * inverse * inverse + (real(1.0) - ab) * square + real(1.0)) * rho * inverse + a
        value = product * real(0.5 / math.pi) + c * real(0.25)
        along = (slope * real(0.5 / math.pi) + real(0.25)) * tangent(k[i], t[i], before)
        k[i] = moment(value, behind)
        t[i] = tangent(value, along, behind)


@njit(**OPTIONS)
@no_type_check
def sin(k, t, xh, yh, square, swing, before, behind):
    """sin(w x + phase): square = w^2, swing = cos(2 phase); xh, yh: w^2 variance / 2."""
    own_code()
    wide_vectors()
    real = k.dtype.type
    rate, turn = real(square), real(swing)
    for i in range(k.size):
        c, damp = rate * moment(k[i], before), xh + yh[i]
        near, far = exponential(c - damp), turn * exponential(-c - damp)
        value = (near - far) * real(0.5)
        along = (near + far) * (rate * real(0.5)) * tangent(k[i], t[i], before)
        k[i] = moment(value, behind)
        t[i] = tangent(value, along, behind)
