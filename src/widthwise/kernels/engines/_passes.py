"""Linear passes over planes of covariances: box sums, affine maps, position maps.

A plane holds one covariance per position p (of the left input; the right one is p + displacement) and lane, as
``plane[(y * width + x) * lanes + lane]``; a lane is one pair of inputs. Only positions with both p and p +
displacement inside the image count.
"""

from typing import no_type_check

from numba import njit

from widthwise.kernels.engines._rows import FAST, own_code, view, wide_vectors

OPTIONS = {"cache": True, "fastmath": FAST, "error_model": "numpy", "nogil": True}


@njit(**OPTIONS)
@no_type_check
def span(size, shift):
    """First and last + 1 of the positions p with p and p + shift in ``range(size)``."""
    return max(0, -shift), min(size, size - shift)


@njit(**OPTIONS)
@no_type_check
def fill(row, value):
    wide_vectors()
    for i in range(row.size):
        row[i] = value


@njit(**OPTIONS)
@no_type_check
def copy(out, row):
    wide_vectors()
    for i in range(out.size):
        out[i] = row[i]


@njit(**OPTIONS)
@no_type_check
def add(out, row):
    wide_vectors()
    for i in range(out.size):
        out[i] += row[i]


@njit(**OPTIONS)
@no_type_check
def add_scaled(out, row, weight):
    wide_vectors()
    for i in range(out.size):
        out[i] += weight * row[i]


@njit(**OPTIONS)
@no_type_check
def multiply(k, t, x, y):
    wide_vectors()
    for i in range(k.size):
        both = x[i] * y[i]
        k[i] *= both
        t[i] *= both


@njit(**OPTIONS)
@no_type_check
def sum3(out, a, b, c):
    wide_vectors()
    for i in range(out.size):
        out[i] = (a[i] + b[i]) + c[i]


@njit(**OPTIONS)
@no_type_check
def affine(out, a, scale, constant):
    wide_vectors()
    for i in range(out.size):
        out[i] = scale * a[i] + constant


@njit(**OPTIONS)
@no_type_check
def affine3(out, a, b, c, scale, constant):
    wide_vectors()
    for i in range(out.size):
        out[i] = scale * ((a[i] + b[i]) + c[i]) + constant


@njit(**OPTIONS)
@no_type_check
def affine_with(out, k, a, scale, ratio, constant):
    wide_vectors()
    for i in range(out.size):
        out[i] = scale * a[i] + (ratio * k[i] + constant)


@njit(**OPTIONS)
@no_type_check
def affine3_with(out, k, a, b, c, scale, ratio, constant):
    wide_vectors()
    for i in range(out.size):
        out[i] = scale * ((a[i] + b[i]) + c[i]) + (ratio * k[i] + constant)


@njit(**OPTIONS)
@no_type_check
def window_row(out, row, lanes, taps, stride, before, dilation, x0, x1, s0, s1):
    """Horizontal window sums of one row: result positions [x0, x1) from source positions [s0, s1)."""
    own_code()
    if stride != 1:
        fill(view(out, x0 * lanes, (x1 - x0) * lanes), out.dtype.type(0.0))
        for x in range(x0, x1):
            for tap in range(taps):
                s = x * stride - before + tap * dilation
                if s0 <= s < s1:
                    add(view(out, x * lanes, lanes), view(row, s * lanes, lanes))
        return
    inner0, inner1 = max(x0, s0 + before), min(x1, s1 + before - (taps - 1) * dilation)
    if taps != 3 or inner1 <= inner0:
        inner0 = inner1 = x0
    else:
        a = (inner0 - before) * lanes
        step, size = dilation * lanes, (inner1 - inner0) * lanes
        sum3(
            view(out, inner0 * lanes, size),
            view(row, a, size),
            view(row, a + step, size),
            view(row, a + 2 * step, size),
        )
    for first, last in ((x0, inner0), (inner1, x1)):
        if last <= first:
            continue
        fill(view(out, first * lanes, (last - first) * lanes), out.dtype.type(0.0))
        for tap in range(taps):
            shift = tap * dilation - before
            p0, p1 = max(first, s0 - shift), min(last, s1 - shift)
            if p1 > p0:
                add(view(out, p0 * lanes, (p1 - p0) * lanes), view(row, (p0 + shift) * lanes, (p1 - p0) * lanes))


@njit(**OPTIONS)
@no_type_check
def scatter(k, t, lanes, grid, shift, target, where, where_at, lists, weights, rows_at, columns_at, acc, acc_t):
    """Add a plane at one displacement into planes of a coarser (or other) grid, at all displacements it reaches.

    Each axis has a list of targets per source position: ``lists[at + p] .. lists[at + p + 1]`` index into
    ``lists`` (target) and ``weights``.
    """
    own_code()
    height, width = grid
    tall, broad = target
    y0, y1 = span(height, shift[0])
    x0, x1 = span(width, shift[1])
    for y in range(y0, y1):
        z = y + shift[0]
        for i in range(lists[rows_at + y], lists[rows_at + y + 1]):
            for j in range(lists[rows_at + z], lists[rows_at + z + 1]):
                dy = lists[j] - lists[i]
                top = lists[i] - max(0, -dy)
                for x in range(x0, x1):
                    v = x + shift[1]
                    start = (y * width + x) * lanes
                    for m in range(lists[columns_at + x], lists[columns_at + x + 1]):
                        for n in range(lists[columns_at + v], lists[columns_at + v + 1]):
                            dx = lists[n] - lists[m]
                            base = where[where_at + (dy + tall - 1) * (2 * broad - 1) + dx + broad - 1]
                            if base < 0:
                                continue
                            place = base + top * (broad - abs(dx)) + lists[m] - max(0, -dx)
                            weight = weights[i] * weights[j] * weights[m] * weights[n]
                            add_scaled(view(acc, place * lanes, lanes), view(k, start, lanes), weight)
                            add_scaled(view(acc_t, place * lanes, lanes), view(t, start, lanes), weight)
