"""Small matrix products for many pairs of inputs side by side: register blocks written in LLVM's own language.

Every number stands for `lanes` pairs (one 512-bit register): 16 in single and 8 in double precision, side by side in
memory. One factor may be the same number for all lanes. A block of 4 x 4 results stays in registers while the
contracted index runs, so that each loaded register is used four times.
"""

from collections.abc import Callable
from typing import Any, no_type_check

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from widthwise.kernels.engines._rows import FAST, own_code

REGISTER_BYTES = 64
SIDE = 4
OPTIONS = {"cache": True, "fastmath": FAST, "error_model": "numpy", "nogil": True}


@intrinsic
@no_type_check
def lanes_of(typingctx: Any, array: Any) -> Any:
    """How many numbers of an array fill a register, as a constant that loops are unrolled by."""
    lanes = REGISTER_BYTES // (array.dtype.bitwidth // 8)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.get_constant(types.intp, lanes)

    return types.intp(array), codegen


def _register(combine: Callable) -> Callable:
    """``out[out_at + lane] = combine(out[out_at + lane], source[source_at + lane], factor)`` for all lanes at once."""

    @intrinsic
    @no_type_check
    def register(typingctx, out, out_at, source, source_at, factor):
        return types.void(out, types.intp, source, types.intp, out.dtype), _codegen

    @no_type_check
    def _codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        real, size = (ir.DoubleType(), 8) if signature.args[0].dtype == types.float64 else (ir.FloatType(), 4)
        vector = ir.VectorType(real, REGISTER_BYTES // size)
        target, start = (
            builder.bitcast(
                builder.gep(context.make_array(kind)(context, builder, array).data, [at]), vector.as_pointer()
            )
            for kind, array, at in zip(signature.args[:4:2], args[:4:2], args[1:4:2], strict=True)
        )
        old, new = (lambda: builder.load(target, align=size)), (lambda: builder.load(start, align=size))
        builder.store(combine(builder, old, new, lambda: _spread(builder, vector, args[4])), target, align=size)
        return context.get_dummy_value()

    return register


@no_type_check
def _spread(builder: Any, vector: Any, number: Any) -> Any:
    """A register full of one number."""
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), zeros)


@no_type_check
def _fused(builder: Any, x: Any, y: Any, z: Any) -> Any:
    return builder.fadd(builder.fmul(x, y, flags=("contract",)), z, flags=("contract",))


@no_type_check
def _larger(builder: Any, x: Any, y: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", x, y), x, y)


move_register = _register(lambda builder, old, new, factor: new())
spread_register = _register(lambda builder, old, new, factor: factor())
add_register = _register(lambda builder, old, new, factor: _fused(builder, factor(), new(), old()))
times_register = _register(lambda builder, old, new, factor: builder.fmul(old(), new()))
largest_register = _register(lambda builder, old, new, factor: _larger(builder, old(), new()))


def _block(rows: int, columns: int, shared: bool) -> Callable:
    """``out[i, j] = scale * sum_k a[i, k] b[j, k]`` (added to what is there, if `plus`) for `rows` i and `columns` j.

    Args:
        shared: whether an entry of `a` is one number for all lanes.
    """

    @intrinsic
    @no_type_check
    def block(
        typingctx, out, out_at, out_i, out_j, a, a_at, a_i, a_k, b, b_at, b_j, b_k, depth, plus, scale
    ):  # fmt: skip
        place = types.intp
        numbers = (out, place, place, place, a, place, place, place, b, place, place, place, place, types.boolean)
        return types.void(*numbers, out.dtype), _codegen

    @no_type_check
    def _codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wide = signature.args[0].dtype == types.float64
        real = ir.DoubleType() if wide else ir.FloatType()
        size = 8 if wide else 4
        lanes = REGISTER_BYTES // size
        vector = ir.VectorType(real, lanes)
        out_at, out_i, out_j, _, a_at, a_i, a_k, _, b_at, b_j, b_k, depth, plus, scale = args[1:]
        data = [context.make_array(signature.args[i])(context, builder, args[i]).data for i in (0, 4, 8)]

        def pointer(base, *offsets):
            for offset in offsets:
                base = builder.gep(base, [offset])
            return base

        def times(count, step):
            return builder.mul(ir.Constant(step.type, count), step)

        def load(base):
            return builder.load(builder.bitcast(base, vector.as_pointer()), align=size)

        def spread(number):
            return _spread(builder, vector, number)

        def fused(x, y, z):
            return _fused(builder, x, y, z)

        zero = ir.Constant(vector, [0.0] * lanes)
        kept = [[cgutils.alloca_once_value(builder, zero) for _ in range(columns)] for _ in range(rows)]
        starts_a = [pointer(data[1], a_at, times(i, a_i)) for i in range(rows)]
        starts_b = [pointer(data[2], b_at, times(j, b_j)) for j in range(columns)]
        with cgutils.for_range(builder, depth) as loop:
            along_a, along_b = builder.mul(loop.index, a_k), builder.mul(loop.index, b_k)
            right = [load(pointer(start, along_b)) for start in starts_b]
            for i, start in enumerate(starts_a):
                entry = pointer(start, along_a)
                left = spread(builder.load(entry)) if shared else load(entry)
                for j in range(columns):
                    builder.store(fused(left, right[j], builder.load(kept[i][j])), kept[i][j])
        factor = spread(scale)
        for i in range(rows):
            for j in range(columns):
                kept[i][j] = (
                    builder.fmul(factor, builder.load(kept[i][j])),
                    pointer(data[0], out_at, times(i, out_i), times(j, out_j)),
                )
        with builder.if_else(plus) as (added, put):
            for case, new in ((added, False), (put, True)):
                with case:
                    for found, target in (one for row in kept for one in row):
                        total = found if new else builder.fadd(found, load(target), flags=("contract",))
                        builder.store(total, builder.bitcast(target, vector.as_pointer()), align=size)
        return context.get_dummy_value()

    return block


whole, tall, broad, single = (_block(i, j, False) for i, j in ((SIDE, SIDE), (SIDE, 1), (1, SIDE), (1, 1)))
whole1, tall1, broad1, single1 = (_block(i, j, True) for i, j in ((SIDE, SIDE), (SIDE, 1), (1, SIDE), (1, 1)))


@njit(**OPTIONS)
@no_type_check
def product(out, out_at, out_i, out_j, a, a_at, a_i, a_k, b, b_at, b_j, b_k, sizes, plus, scale):
    """``out[i, j] (+)= scale * sum_k a[i, k] b[j, k]``; sizes: how many i, j and k. Strides count numbers."""
    own_code()
    rows, columns, depth = sizes
    for i in range(0, rows - SIDE + 1, SIDE):
        at, to = a_at + i * a_i, out_at + i * out_i
        for j in range(0, columns - SIDE + 1, SIDE):
            whole(out, to + j * out_j, out_i, out_j, a, at, a_i, a_k, b, b_at + j * b_j, b_j, b_k, depth, plus, scale)
        for j in range(columns // SIDE * SIDE, columns):
            tall(out, to + j * out_j, out_i, out_j, a, at, a_i, a_k, b, b_at + j * b_j, b_j, b_k, depth, plus, scale)
    for i in range(rows // SIDE * SIDE, rows):
        at, to = a_at + i * a_i, out_at + i * out_i
        for j in range(0, columns - SIDE + 1, SIDE):
            broad(out, to + j * out_j, out_i, out_j, a, at, a_i, a_k, b, b_at + j * b_j, b_j, b_k, depth, plus, scale)
        for j in range(columns // SIDE * SIDE, columns):
            single(out, to + j * out_j, out_i, out_j, a, at, a_i, a_k, b, b_at + j * b_j, b_j, b_k, depth, plus, scale)


@njit(**OPTIONS)
@no_type_check
def product1(out, out_at, out_i, out_j, a, a_at, a_i, a_k, b, b_at, b_j, b_k, sizes, plus, scale):
    """The same where an entry of `a` is one number for all lanes."""
    own_code()
    rows, columns, depth = sizes
    for i in range(0, rows - SIDE + 1, SIDE):
        at, to = a_at + i * a_i, out_at + i * out_i
        for j in range(0, columns - SIDE + 1, SIDE):
            whole1(out, to + j * out_j, out_i, out_j, a, at, a_i, a_k, b, b_at + j * b_j, b_j, b_k, depth, plus, scale)
        for j in range(columns // SIDE * SIDE, columns):
            tall1(out, to + j * out_j, out_i, out_j, a, at, a_i, a_k, b, b_at + j * b_j, b_j, b_k, depth, plus, scale)
    for i in range(rows // SIDE * SIDE, rows):
        at, to = a_at + i * a_i, out_at + i * out_i
        for j in range(0, columns - SIDE + 1, SIDE):
            broad1(out, to + j * out_j, out_i, out_j, a, at, a_i, a_k, b, b_at + j * b_j, b_j, b_k, depth, plus, scale)
        for j in range(columns // SIDE * SIDE, columns):
            single1(out, to + j * out_j, out_i, out_j, a, at, a_i, a_k, b, b_at + j * b_j, b_j, b_k, depth, plus, scale)
