"""Activations of planes of covariances with the linear maps in front and behind, in one pass through registers.

Formulas and the per-input quantities are those of `_rows.py`; what the left input brings is one number for a row.
``before`` and ``behind`` hold ``(scale, constant, scale_t, ratio, constant_t)``: moments become ``scale k + constant``
and tangents ``scale_t t + ratio k + constant_t``. Rows of tangents lie `step` numbers apart (0: they are not wanted);
where `reads` is false there are none before.
"""

import math
from typing import no_type_check

import numpy as np
from numba import njit
from numba.extending import register_jitable

from widthwise.kernels.engines._rows import arc, exponential, own_code, snapped, view, wide_vectors
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
def abrelu(k, t, step, reads, xs, ys, xi, yi, low, high, before, behind):
    """Slopes `low` and `high`; xs, ys: standard deviations, xi, yi: their inverses (0 for 0)."""
    own_code()
    wide_vectors()
    real = k.dtype.type
    jump = real((high - low) * (high - low) / (2 * math.pi))
    middle = real((low * low + high * high) / 2 - (high - low) * (high - low) / 4)
    unit, zero = np.finfo(k.dtype).eps, real(0.0)
    for p in range(xs.size):
        row, along, scale, inverse = view(k, p * ys.size, ys.size), view(t, p * step, ys.size), jump * xs[p], xi[p]
        for i in range(ys.size):
            c = moment(row[i], before)
            old = tangent(row[i], along[i] if reads else zero, before)
            a, root = arc(snapped(c * (inverse * yi[i]), unit), zero)
            slope = middle + jump * a
            value = scale * root * ys[i] + slope * c
            row[i] = moment(value, behind)
            along[i] = tangent(value, slope * old, behind)


@njit(**OPTIONS)
@no_type_check
def erf(k, t, step, reads, xi, yi, before, behind):
    """xi, yi: 1/sqrt(1 + 2 variance)."""
    own_code()
    wide_vectors()
    real = k.dtype.type
    for p in range(xi.size):
        row, along, left = view(k, p * yi.size, yi.size), view(t, p * step, yi.size), xi[p]
        for i in range(yi.size):
            both = left * yi[i]
            old = tangent(row[i], along[i] if reads else real(0.0), before)
            a, root = arc(real(2.0) * moment(row[i], before) * both, real(0.0))
            value = real(2 / math.pi) * a
            row[i] = moment(value, behind)
            along[i] = tangent(value, real(4 / math.pi) * both / root * old, behind)


@njit(**OPTIONS)
@no_type_check
def gelu(k, t, step, reads, xv, yv, xi, yi, before, behind):
    """xv, yv: variances, xi, yi: 1/sqrt(1 + variance)."""
    own_code()
    wide_vectors()
    real = k.dtype.type
    for p in range(xv.size):
        row, along, left, inner = view(k, p * yv.size, yv.size), view(t, p * step, yv.size), xv[p], xi[p]
        for i in range(yv.size):
            c, ab, both = moment(row[i], before), left * yv[i], inner * yi[i]
            old = tangent(row[i], along[i] if reads else real(0.0), before)
            rho = c * both
            a, root = arc(rho, real(0.0))
            inverse, square = real(1.0) / root, both * both
            product = (rho * rho * inverse + ab * root) * both + c * a
            slope = (square * inverse * inverse + (real(1.0) - ab) * square + real(1.0)) * rho * inverse + a
            value = product * real(0.5 / math.pi) + c * real(0.25)
            row[i] = moment(value, behind)
            along[i] = tangent(value, (slope * real(0.5 / math.pi) + real(0.25)) * old, behind)


@njit(**OPTIONS)
@no_type_check
def sin(k, t, step, reads, xh, yh, square, swing, before, behind):
    """sin(w x + phase): square = w^2, swing = cos(2 phase); xh, yh: w^2 variance / 2."""
    own_code()
    wide_vectors()
    real = k.dtype.type
    rate, turn = real(square), real(swing)
    for p in range(xh.size):
        row, along, left = view(k, p * yh.size, yh.size), view(t, p * step, yh.size), xh[p]
        for i in range(yh.size):
            c, damp = rate * moment(row[i], before), left + yh[i]
            old = tangent(row[i], along[i] if reads else real(0.0), before)
            near, far = exponential(c - damp), turn * exponential(-c - damp)
            value = (near - far) * real(0.5)
            row[i] = moment(value, behind)
            along[i] = tangent(value, (near + far) * (rate * real(0.5)) * old, behind)
