"""A register full of numbers as a type of Numba's: loads, stores, arithmetic, and what the kernel of ReLU needs.

Loops over vectors are compiled as they are written: without checks for arrays that overlap, without remainders, and
with what the next step needs kept in registers, which LLVM's own vectorisation of loops over numbers does not give.
Processors with narrower registers take several for one vector.
"""

import operator
from collections.abc import Callable
from typing import Any, no_type_check

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

REGISTER_BYTES = 64


class Vector(types.Type):
    """`lanes` numbers side by side."""

    def __init__(self, real: types.Float) -> None:
        self.real = real
        self.lanes = REGISTER_BYTES * 8 // real.bitwidth
        super().__init__(name=f"Vector({real})")


@register_model(Vector)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        real = ir.FloatType() if kind.real == types.float32 else ir.DoubleType()
        super().__init__(manager, kind, ir.VectorType(real, kind.lanes))


def _define(symbol: Callable, instruction: str) -> None:
    """The operator between two vectors."""

    @infer_global(symbol)
    class Rule(AbstractTemplate):
        @no_type_check
        def generic(self, args, kws):
            alike = len(args) == 2 and isinstance(args[0], Vector) and args[0] == args[1]
            return signature(args[0], *args) if alike else None

    @lower_builtin(symbol, Vector, Vector)
    @no_type_check
    def lower(context, builder, sig, args):
        return getattr(builder, instruction)(*args)


for _symbol, _instruction in ((operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul")):
    _define(_symbol, _instruction)


def _pointer(context: Any, builder: Any, kind: Any, array: Any, at: Any, lanes: int = 0) -> Any:
    start = builder.gep(context.make_array(kind)(context, builder, array).data, [at])
    vector = ir.VectorType(context.get_value_type(kind.dtype), lanes or Vector(kind.dtype).lanes)
    return builder.bitcast(start, vector.as_pointer())


def _size(kind: Any) -> int:
    return kind.dtype.bitwidth // 8


@intrinsic
@no_type_check
def load(typingctx: Any, array: Any, at: Any) -> Any:
    """The vector that begins at ``array[at]``."""

    def codegen(context, builder, sig, args):
        kind = sig.args[0]
        return builder.load(_pointer(context, builder, kind, *args), align=_size(kind))

    return Vector(array.dtype)(array, types.intp), codegen


@intrinsic
@no_type_check
def store(typingctx: Any, array: Any, at: Any, vector: Any) -> Any:
    """Write a vector to where ``array[at]`` begins."""

    def codegen(context, builder, sig, args):
        kind = sig.args[0]
        builder.store(args[2], _pointer(context, builder, kind, *args[:2]), align=_size(kind))
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), codegen


@intrinsic
@no_type_check
def accumulate(typingctx: Any, sums: Any, at: Any, vector: Any, weight: Any) -> Any:
    """``sums[at + lane] += weight * vector[lane]`` in double precision."""

    def codegen(context, builder, sig, args):
        place = _pointer(context, builder, sig.args[0], *args[:2], lanes=sig.args[2].lanes)
        kind, single = place.type.pointee, sig.args[2].real == types.float32
        more = builder.fpext(args[2], kind) if single else args[2]
        found = builder.fadd(builder.load(place, align=8), builder.fmul(more, _spread(builder, args[3], kind)))
        builder.store(found, place, align=8)
        return context.get_dummy_value()

    return types.void(sums, types.intp, vector, types.float64), codegen


@intrinsic
@no_type_check
def spread(typingctx: Any, number: Any) -> Any:
    """A vector of one number."""

    def codegen(context, builder, sig, args):
        return _spread(builder, args[0], context.get_value_type(sig.return_type))

    return Vector(number)(number), codegen


def _spread(builder: Any, number: Any, kind: Any) -> Any:
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), number, ir.IntType(32)(0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
    return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), zeros)


def _function(builder: Any, name: str, kind: Any, count: int) -> Any:
    full = f"llvm.{name}.v{kind.count}{kind.element.intrinsic_name}"
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * count), full)


def _named(name: str, count: int) -> Any:
    """LLVM's function of this name, entry by entry."""

    @no_type_check
    def codegen(context, builder, sig, args):
        kind = context.get_value_type(sig.return_type)
        return builder.call(_function(builder, name, kind, count), args)

    if count == 1:

        @intrinsic
        @no_type_check
        def unary(typingctx: Any, x: Any) -> Any:
            return x(x), codegen

        return unary

    @intrinsic
    @no_type_check
    def binary(typingctx: Any, x: Any, y: Any) -> Any:
        return x(x, y), codegen

    return binary


magnitude = _named("fabs", 1)
with_sign = _named("copysign", 2)  # the size of the first with the sign of the second


@intrinsic
@no_type_check
def root_above(typingctx: Any, x: Any, limit: Any) -> Any:
    """The square root of x where x is above the limit, 0 elsewhere."""

    def codegen(context, builder, sig, args):
        kind = context.get_value_type(sig.return_type)
        function = _function(builder, "sqrt", kind, 1)
        above = builder.fcmp_ordered(">", *args)
        return builder.select(above, builder.call(function, args[:1]), ir.Constant(kind, [0.0] * kind.count))

    return x(x, limit), codegen


def polynomial(count: Callable[[Any], int]) -> Any:
    """A polynomial in w whose coefficients, that of the lowest power first, lie at ``table[at]``.

    They are read from memory, which costs nothing next to a product; as constants each would need its own address.

    Args:
        count: how many there are for numbers of a type.
    """

    @intrinsic
    @no_type_check
    def value(typingctx: Any, w: Any, table: Any, at: Any) -> Any:
        def codegen(context, builder, sig, args):
            w, kind = args[0], context.get_value_type(sig.return_type)
            data = context.make_array(sig.args[1])(context, builder, args[1]).data
            start = builder.gep(data, [args[2]])
            found = None
            for power in reversed(range(count(sig.args[1].dtype))):
                one = builder.load(builder.gep(start, [args[2].type(power)]))
                number = _spread(builder, one, kind)
                found = number if found is None else builder.fadd(builder.fmul(found, w), number)
            return found

        return w(w, table, types.intp), codegen

    return value
