"""One stage of a plan on a GPU: a program takes a few pairs of inputs at one displacement through all operations.

The plane of covariances and that of tangents stay in registers as blocks ``[lanes, height, width]``, padded to powers
of two and zero where a position or its partner lies outside the image. Window sums shift them along one axis at a
time. Only branches that are read again later (residual sums) go to a scratch plane of the program.
"""

from typing import no_type_check

import triton
import triton.language as tl

from widthwise.kernels.engines import _codes as code
from widthwise.kernels.engines._triton_math import activate

INTS = tl.constexpr(code.INTS + 2)
REALS = tl.constexpr(code.REALS)
FETCH = tl.constexpr(code.INTS)
KEEP = tl.constexpr(code.INTS + 1)
CODE, DST, SRC, H, W = (tl.constexpr(n) for n in (code.CODE, code.DST, code.SRC, code.H, code.W))
MY, MX, SH, SW = (tl.constexpr(n) for n in (code.MY, code.MX, code.SH, code.SW))
KY, SY, PY, DY = (tl.constexpr(n) for n in (code.KY, code.SY, code.PY, code.DY))
KX, SX, PX, DX = (tl.constexpr(n) for n in (code.KX, code.SX, code.PX, code.DX))
PLUS, PHI, FEATURE, FEATURE2 = (tl.constexpr(n) for n in (code.PLUS, code.PHI, code.FEATURE, code.FEATURE2))
WHERE, ROWS, COLUMNS, INDEX = (tl.constexpr(n) for n in (code.WHERE, code.ROWS, code.COLUMNS, code.INDEX))
TH, TW, CHANNELS = (tl.constexpr(n) for n in (code.TH, code.TW, code.CHANNELS))
SCALE, SCALE_T, RATIO = (tl.constexpr(n) for n in (code.SCALE, code.SCALE_T, code.RATIO))
CONSTANT, CONSTANT_T = tl.constexpr(code.CONSTANT), tl.constexpr(code.CONSTANT_T)
CONSTANT0, CONSTANT_T0 = tl.constexpr(code.CONSTANT0), tl.constexpr(code.CONSTANT_T0)
FIRST, SECOND = tl.constexpr(code.FIRST), tl.constexpr(code.SECOND)
RAW, AFFINE, CONV, NORM, LOAD = (tl.constexpr(n) for n in (code.RAW, code.AFFINE, code.CONV, code.NORM, code.LOAD))
SCATTER, REDUCE, FLAT, OUT = (tl.constexpr(n) for n in (code.SCATTER, code.REDUCE, code.FLAT, code.OUT))
GIVEN = tl.constexpr(code.GIVEN)


@triton.jit
@no_type_check
def window(k, t, place, taps, stride, before, dilation, AXIS: tl.constexpr):
    """Sums of both planes over windows along one axis; `place` is each element's position on it."""
    size: tl.constexpr = k.shape[AXIS]
    total = tl.zeros_like(k)
    total_t = tl.zeros_like(t)
    for tap in range(taps):
        at = place * stride + (tap * dilation - before)
        inside = (at >= 0) & (at < size)
        index = tl.where(inside, at, 0)
        total += tl.where(inside, tl.gather(k, index, AXIS), 0.0)
        total_t += tl.where(inside, tl.gather(t, index, AXIS), 0.0)
    return total, total_t


@triton.jit
@no_type_check
def targets(lists, weights, at, position, number, inside):
    """The target of rank `number` of each position of an axis, its weight, and whether it exists."""
    first = tl.load(lists + at + position, mask=inside, other=0)
    last = tl.load(lists + at + position + 1, mask=inside, other=0)
    exists = inside & (first + number < last)
    target = tl.load(lists + first + number, mask=exists, other=0)
    weight = tl.load(weights + first + number, mask=exists, other=0.0)
    return target, weight, exists


@triton.jit
@no_type_check
def scatter(
    k, t, op, py, px, dy, dx, inside, where, lists, weights, buffers, lane, buffer, MOST: tl.constexpr
):  # fmt: skip
    """Add a plane at one displacement into the planes of a coarser grid, at all displacements that it reaches."""
    tall = tl.load(op + TH)
    broad = tl.load(op + TW)
    rows = tl.load(op + ROWS)
    columns = tl.load(op + COLUMNS)
    table = where + tl.load(op + WHERE)
    # py and px are one axis each, so that lists are read once per row and column; `inside` is the whole block.
    y_in = (py >= 0) & (py < tl.load(op + H)) & (py + dy >= 0) & (py + dy < tl.load(op + H))
    x_in = (px >= 0) & (px < tl.load(op + W)) & (px + dx >= 0) & (px + dx < tl.load(op + W))
    for i in range(MOST):
        ty, wy, y_ok = targets(lists, weights, rows, py, i, y_in)
        for j in range(MOST):
            sy, vy, z_ok = targets(lists, weights, rows, py + dy, j, y_in)
            by = sy - ty
            top = ty - tl.maximum(0, -by)
            for m in range(MOST):
                tx, wx, x_ok = targets(lists, weights, columns, px, m, x_in)
                for n in range(MOST):
                    sx, vx, v_ok = targets(lists, weights, columns, px + dx, n, x_in)
                    bx = sx - tx
                    ok = inside & (y_ok & z_ok) & (x_ok & v_ok)
                    base = tl.load(table + (by + tall - 1) * (2 * broad - 1) + bx + broad - 1, mask=ok, other=-1)
                    ok = ok & (base >= 0)
                    place = base + top * (broad - tl.abs(bx)) + tx - tl.maximum(0, -bx)
                    weight = (wy * vy) * (wx * vx)
                    to = buffers + lane.to(tl.int64) * 2 * buffer + place
                    tl.atomic_add(to, weight * k, mask=ok)
                    tl.atomic_add(to + buffer, weight * t, mask=ok)


@triton.jit(do_not_specialize=("count", "places", "pairs", "shift_count", "buffer", "sum_count"))
@no_type_check
def run_stage(
    x, y, left, right, diagonal, given, ops, pars, shifts, where, lists, weights, buffers, sums, results, scratch,
    count, places, pairs, shift_count, buffer, sum_count,
    LANES: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, SLOTS: tl.constexpr, MOST: tl.constexpr,
):  # fmt: skip
    """All operations of one stage, for every pair and displacement; programs take them in turn.

    Args:
        x, y: features of the inputs, ``[n, places]``.
        left, right, diagonal: rows of x and y of each pair, and whether it is an input with itself, ``[pairs]``.
        given: covariances at the input, ``[fields, pairs]``.
        ops, pars: arguments of the stage's operations, of which there are `count`.
        buffers: planes between stages, ``[pairs, 2, buffer]``.
        sums: numbers between stages, ``[pairs, sum_count, 2]``, float64.
        results: ``[outputs, 2, pairs]``.
        scratch: ``[programs, SLOTS, 2, LANES * HEIGHT * WIDTH]``.
        MOST: largest number of targets that a position has in a position map.
    """
    row = tl.arange(0, HEIGHT)[None, :, None]
    column = tl.arange(0, WIDTH)[None, None, :]
    lanes = tl.arange(0, LANES)
    nothing = tl.zeros((LANES, HEIGHT, WIDTH), tl.float32)
    rows = row + tl.zeros((LANES, HEIGHT, WIDTH), tl.int32)
    columns = column + tl.zeros((LANES, HEIGHT, WIDTH), tl.int32)
    PLANE: tl.constexpr = LANES * HEIGHT * WIDTH
    own = scratch + tl.program_id(0).to(tl.int64) * (SLOTS * 2 * PLANE)
    own_at = (lanes[:, None, None] * HEIGHT + rows) * WIDTH + columns
    items = tl.cdiv(pairs, LANES) * shift_count
    for item in range(tl.program_id(0), items, tl.num_programs(0)):
        pair = (item // shift_count) * LANES + lanes
        known = pair < pairs
        ours = x + tl.load(left + pair, mask=known, other=0).to(tl.int64)[:, None, None] * places
        theirs = y + tl.load(right + pair, mask=known, other=0).to(tl.int64)[:, None, None] * places
        itself = tl.load(diagonal + pair, mask=known, other=0)[:, None, None]
        shift = shifts + 2 * (item % shift_count)
        k = nothing
        t = nothing
        for number in range(count):
            op = ops + number * INTS
            par = pars + number * REALS
            what = tl.load(op + CODE)
            dy = tl.load(shift) * tl.load(op + MY)
            dx = tl.load(shift + 1) * tl.load(op + MX)
            here = (dy == 0) & (dx == 0)
            height = tl.load(op + H)
            width = tl.load(op + W)
            inside = (row < height) & (row + dy >= 0) & (row + dy < height)
            inside = inside & (column < width) & (column + dx >= 0) & (column + dx < width) & known[:, None, None]
            if tl.load(op + FETCH) != 0:
                tl.debug_barrier()
                fetched = own + tl.load(op + SRC) * (2 * PLANE) + own_at
                k = tl.load(fetched)
                t = tl.load(fetched + PLANE)
            px = row * width + column
            py = (row + dy) * width + column + dx
            if what == RAW:
                k = nothing
                t = nothing
                pixel = tl.load(op + FEATURE)
                for _ in range(tl.load(op + CHANNELS)):
                    k += tl.load(ours + pixel + px, mask=inside, other=0.0) * tl.load(
                        theirs + pixel + py, mask=inside, other=0.0
                    )
                    pixel += height * width
                k *= tl.load(par + SCALE)
            elif what == GIVEN:
                gram = given + tl.load(op + INDEX).to(tl.int64) * pairs + pair[:, None, None]
                k = tl.load(gram + 0 * px, mask=inside, other=0.0)
                t = nothing
            elif what == LOAD:
                index = tl.load(op + INDEX)
                if index >= 0:
                    summed = sums + (pair.to(tl.int64)[:, None, None] * sum_count + index) * 2 + 0 * px
                    k = tl.load(summed, mask=inside, other=0.0).to(tl.float32)
                    t = tl.load(summed + 1, mask=inside, other=0.0).to(tl.float32)
                else:
                    table = where + tl.load(op + WHERE)
                    base = tl.load(table + (dy + height - 1) * (2 * width - 1) + dx + width - 1)
                    y0 = tl.maximum(0, -dy)
                    x0 = tl.maximum(0, -dx)
                    place = base + (row - y0) * (width - tl.abs(dx)) + column - x0
                    below = buffers + pair.to(tl.int64)[:, None, None] * 2 * buffer + place
                    k = tl.load(below, mask=inside, other=0.0)
                    t = tl.load(below + buffer, mask=inside, other=0.0)
            elif what == NORM:
                scale = tl.load(op + FEATURE)
                both = tl.load(ours + scale + px, mask=inside, other=0.0) * tl.load(
                    theirs + scale + py, mask=inside, other=0.0
                )
                k *= both
                t *= both
            elif what == CONV:
                k, t = window(k, t, columns, tl.load(op + KX), tl.load(op + SX), tl.load(op + PX), tl.load(op + DX), 2)
                k, t = window(k, t, rows, tl.load(op + KY), tl.load(op + SY), tl.load(op + PY), tl.load(op + DY), 1)
            elif what == SCATTER:
                scatter(
                    k, t, op, row, column, dy, dx, inside, where, lists, weights, buffers, pair[:, None, None], buffer,
                    MOST,
                )  # fmt: skip
            elif what == OUT:
                to = results + (tl.load(op + INDEX) * 2).to(tl.int64) * pairs + pair[:, None, None] + 0 * px
                tl.store(to, k, mask=inside)
                tl.store(to + pairs, t, mask=inside)
            elif (what == REDUCE) | ((what == FLAT) & here):
                weight = tl.load(par + SCALE)
                total = sums + (pair.to(tl.int64) * sum_count + tl.load(op + INDEX)) * 2
                tl.atomic_add(total, (weight * tl.sum(tl.sum(k, 2), 1)).to(tl.float64), mask=known)
                tl.atomic_add(total + 1, (weight * tl.sum(tl.sum(t, 2), 1)).to(tl.float64), mask=known)
            if (what == CONV) | (what == AFFINE):
                at_zero = here.to(tl.float32)
                source = k * tl.load(par + SCALE)
                k = source + (tl.load(par + CONSTANT) + at_zero * tl.load(par + CONSTANT0))
                constant = tl.load(par + CONSTANT_T) + at_zero * tl.load(par + CONSTANT_T0)
                t = t * tl.load(par + SCALE_T) + source * tl.load(par + RATIO) + constant
                if tl.load(op + PLUS) != 0:
                    tl.debug_barrier()
                    before = own + tl.load(op + DST) * (2 * PLANE) + own_at
                    k += tl.load(before)
                    t += tl.load(before + PLANE)
            phi = tl.load(op + PHI)
            if phi >= 0:
                first = tl.load(op + FEATURE)
                second = tl.load(op + FEATURE2)
                a = tl.load(ours + first + px, mask=inside, other=0.0)
                b = tl.load(theirs + first + py, mask=inside, other=0.0)
                c = tl.load(ours + second + px, mask=inside, other=0.0)
                d = tl.load(theirs + second + py, mask=inside, other=0.0)
                least = itself.to(tl.float32) * here.to(tl.float32)
                k, t = activate(k, t, phi, a, b, c, d, least, tl.load(par + FIRST), tl.load(par + SECOND))
            k = tl.where(inside, k, 0.0)
            t = tl.where(inside, t, 0.0)
            if tl.load(op + KEEP) != 0:
                tl.debug_barrier()
                kept = own + tl.load(op + DST) * (2 * PLANE) + own_at
                tl.store(kept, k)
                tl.store(kept + PLANE, t)
