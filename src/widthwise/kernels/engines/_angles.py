"""Functions of the angle, read off rows of cosines and written to both halves of the result in one pass."""

from typing import no_type_check

import numpy as np
from numba import njit

from widthwise.kernels.engines._passes import OPTIONS
from widthwise.kernels.engines._rows import HALF_PI, arc, own_code, wide_vectors

GROUP, BLOCK = 16, 256  # a group's transpose fills whole cache lines, and a block of rows stays in the first cache


@njit(**OPTIONS)
@no_type_check
def spread(cosines, corner, coefficients, offset, by_row, by_column, out, first, last, mirror):
    """Groups `first` to `last` of 16 rows of cosines; `out[f, i, j]`, with `mirror` also `out[f, j, i]`.

    Args:
        corner: row and column of the result where the panel of cosines begins.
        coefficients: ``[functions, degree + 1, segments]``; offset: see `Table`.
        mirror: the matrix is symmetric; a panel on its diagonal begins there, and what is left of that is not read.
    """
    own_code()
    functions, segments = coefficients.shape[0], coefficients.shape[2]
    height, width = cosines.shape
    top, left = corner
    on_diagonal = mirror and top == left
    places = np.empty((GROUP, BLOCK), cosines.dtype)
    where = np.empty((GROUP, BLOCK), np.int32)
    values = np.empty((GROUP, BLOCK), cosines.dtype)
    for group in range(first, last):
        start = group * GROUP
        rows = min(GROUP, height - start)
        for begin in range(start if on_diagonal else 0, width, BLOCK):
            size = min(BLOCK, width - begin)
            diagonal = on_diagonal and begin == start
            for r in range(rows):
                row = cosines[start + r, begin : begin + size]
                if diagonal:
                    row[r] = 1
                if segments == 1:
                    place(row, places[r], offset)
                else:
                    locate(row, places[r], where[r], segments)
            for f in range(functions):
                for r in range(rows):
                    scale, across = by_row[top + start + r], by_column[left + begin : left + begin + size]
                    if segments == 1:
                        polynomial(values[r, :size], coefficients[f], places[r], scale, across)
                    else:
                        read(values[r, :size], coefficients[f], places[r], where[r], scale, across)
                    skip = r if diagonal else 0
                    keep(out[f, top + start + r, left + begin + skip : left + begin + size], values[r, skip:size])
                if mirror:
                    turn(values, rows, out[f, left + begin : left + begin + size], top + start, diagonal)


@njit(**OPTIONS)
@no_type_check
def keep(out, row):
    wide_vectors()
    for j in range(out.size):
        out[j] = row[j]


@njit(**OPTIONS)
@no_type_check
def turn(values, rows, out, at, diagonal):
    """Write the transpose; on the diagonal only what is below it."""
    own_code()
    for j in range(out.shape[0]):
        if rows == GROUP and not (diagonal and j < GROUP):
            for r in range(GROUP):
                out[j, at + r] = values[r, j]
        else:
            for r in range(min(j, rows) if diagonal else rows):
                out[j, at + r] = values[r, j]


@njit(**OPTIONS)
@no_type_check
def place(cosines, places, offset):
    """The place of each angle in [-1, 1]: linear in the angle, or in 1 / (angle + offset)."""
    own_code()
    wide_vectors()
    real = cosines.dtype.type
    one, rate = real(1.0), real(-1.0 / HALF_PI)
    for j in range(cosines.size):
        places[j] = rate * arc(cosines[j], real(0.0))[0]
    if offset > 0:
        share = real(offset / HALF_PI)
        for j in range(cosines.size):
            places[j] = one + share - share * (real(2.0) + share) / (one + share + places[j])


@njit(**OPTIONS)
@no_type_check
def polynomial(out, coefficients, places, scale, by_column):
    """Four powers at a time; the degree is a multiple of four."""
    own_code()
    wide_vectors()
    power = coefficients.shape[0] - 5
    a, b = coefficients[power, 0], coefficients[power + 1, 0]
    c, d, e = coefficients[power + 2, 0], coefficients[power + 3, 0], coefficients[power + 4, 0]
    for j in range(out.size):
        u = places[j]
        out[j] = a + u * (b + u * (c + u * (d + u * e)))
    while power > 0:
        power -= 4
        a, b = coefficients[power, 0], coefficients[power + 1, 0]
        c, d = coefficients[power + 2, 0], coefficients[power + 3, 0]
        for j in range(out.size):
            u = places[j]
            out[j] = a + u * (b + u * (c + u * (d + u * out[j])))
    for j in range(out.size):
        out[j] *= scale * by_column[j]


@njit(**OPTIONS)
@no_type_check
def locate(cosines, places, where, segments):
    """The segment of each angle and the place in it, in [-1, 1]."""
    own_code()
    wide_vectors()
    real = cosines.dtype.type
    rate, half_pi = real(segments / np.pi), real(HALF_PI)
    for j in range(cosines.size):
        angle = (half_pi - arc(cosines[j], real(0.0))[0]) * rate
        segment = min(max(np.int32(angle), np.int32(0)), np.int32(segments - 1))
        where[j] = segment
        places[j] = (angle - real(segment)) * real(2.0) - real(1.0)


@njit(**OPTIONS)
@no_type_check
def read(out, coefficients, places, where, scale, by_column):
    own_code()
    wide_vectors()
    top = coefficients.shape[0] - 1
    for j in range(out.size):
        out[j] = coefficients[top, where[j]]
    for power in range(top - 1, -1, -1):
        row = coefficients[power]
        for j in range(out.size):
            out[j] = out[j] * places[j] + row[np.uint32(where[j])]
    for j in range(out.size):
        out[j] *= scale * by_column[j]
