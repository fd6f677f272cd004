"""Dense networks on a GPU: a tile of X X^T, taken through all layers in registers before it is written once."""

from typing import no_type_check

import triton
import triton.language as tl

from widthwise.kernels.engines._triton_machine import (
    AFFINE,
    CODE,
    CONSTANT,
    CONSTANT0,
    CONSTANT_T,
    CONSTANT_T0,
    FEATURE,
    FEATURE2,
    FIRST,
    GIVEN,
    INDEX,
    INTS,
    NORM,
    OUT,
    PHI,
    RATIO,
    REALS,
    SCALE,
    SCALE_T,
    SECOND,
)
from widthwise.kernels.engines._triton_math import activate


@triton.jit(do_not_specialize=("count", "n1", "n2"))
@no_type_check
def run_dense(
    x, y, data1, data2, ops, pars, results, count, places, width, n1, n2,
    SAME: tl.constexpr, SIDE: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Moments and tangents between the rows of two matrices, ``[outputs, 2, n1, n2]``.

    Args:
        x, y: features of the inputs, ``[n, places]``.
        data1, data2: inputs, ``[n, width]``.
        ops, pars: arguments of the operations, of which there are `count`; each reads what the one before left.
        SAME: both sides are the same inputs: tiles above the diagonal are computed, and written twice.
        SIDE, DEPTH: rows of a tile, and columns of the inputs that are multiplied at once.
        PRECISION: of the products: ``"ieee"`` (float32), ``"tf32"`` or ``"tf32x3"``.
    """
    i = tl.program_id(0)
    j = tl.program_id(1)
    if SAME and j < i:
        return
    rows = i * SIDE + tl.arange(0, SIDE)
    columns = j * SIDE + tl.arange(0, SIDE)
    row_in = rows < n1
    column_in = columns < n2
    along = tl.arange(0, DEPTH)
    gram = tl.zeros((SIDE, SIDE), tl.float32)
    ours = rows.to(tl.int64)
    theirs = columns.to(tl.int64)
    for start in range(0, width, DEPTH):
        rest = start + along < width
        a = tl.load(data1 + ours[:, None] * width + start + along[None, :], row_in[:, None] & rest[None, :], 0.0)
        b = tl.load(data2 + theirs[None, :] * width + start + along[:, None], column_in[None, :] & rest[:, None], 0.0)
        gram = tl.dot(a, b, gram, input_precision=PRECISION)
    gram = gram / width
    least = tl.zeros((SIDE, SIDE), tl.float32)
    if SAME:
        least = (rows[:, None] == columns[None, :]).to(tl.float32)
    k = gram
    t = tl.zeros((SIDE, SIDE), tl.float32)
    for number in range(count):
        op = ops + number * INTS
        par = pars + number * REALS
        what = tl.load(op + CODE)
        phi = tl.load(op + PHI)
        if what == GIVEN:
            k = gram
            t = tl.zeros((SIDE, SIDE), tl.float32)
        elif what == AFFINE:
            source = k * tl.load(par + SCALE)
            k = source + (tl.load(par + CONSTANT) + tl.load(par + CONSTANT0))
            constant = tl.load(par + CONSTANT_T) + tl.load(par + CONSTANT_T0)
            t = t * tl.load(par + SCALE_T) + source * tl.load(par + RATIO) + constant
        elif what == OUT:
            square = tl.full((), 1, tl.int64) * n1 * n2
            at = results + tl.load(op + INDEX) * 2 * square
            both_in = row_in[:, None] & column_in[None, :]
            to = at + ours[:, None] * n2 + theirs[None, :]
            if SAME:
                both_in = both_in & (columns[None, :] >= rows[:, None])
                mirrored = at + theirs[None, :] * n2 + ours[:, None]
                tl.store(mirrored, k, mask=both_in)
                tl.store(mirrored + square, t, mask=both_in)
            tl.store(to, k, mask=both_in)
            tl.store(to + square, t, mask=both_in)
        if (phi >= 0) | (what == NORM):
            first = tl.load(op + FEATURE)
            second = tl.load(op + FEATURE2)
            a = tl.load(x + ours * places + first, mask=row_in, other=0.0)[:, None]
            b = tl.load(y + theirs * places + first, mask=column_in, other=0.0)[None, :]
            c = tl.load(x + ours * places + second, mask=row_in, other=0.0)[:, None]
            d = tl.load(y + theirs * places + second, mask=column_in, other=0.0)[None, :]
            if what == NORM:
                k *= a * b
                t *= a * b
            if phi >= 0:
                k, t = activate(k, t, phi, a, b, c, d, least, tl.load(par + FIRST), tl.load(par + SECOND))
