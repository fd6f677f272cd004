"""V-transforms of contiguous rows of covariances, in place, for the fused engine.

Each row function turns covariances ``k`` and tangents ``t`` into those of an activation. Per-input quantities of the
left and right input come in as rows of equal length: see `_features.py` for which. The angle is approximated by
``asin(s) = s + s z A(z)`` and ``sqrt(1 - z) = R(z)`` with z = s^2 in [0, 1/4] (where |rho| > 1/2, through
``asin(u) = pi/2 - 2 asin(sqrt((1 - u)/2))``); A and R are Chebyshev interpolants whose errors are 2e-8 and 6e-9
(float32) and 1e-15 and 3e-16 (float64).
"""

import math
from typing import Any, no_type_check

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload, register_jitable

FAST = {"nsz", "arcp", "contract", "afn", "reassoc"}
"""Fast-math flags: reordering and fusing, but NaN and infinity stay what they are."""

HALF_PI = math.pi / 2


@intrinsic
@no_type_check
def wide_vectors(typingctx: Any) -> Any:
    """Ask LLVM for 512-bit vectors in this function, where the processor has them (its default is 256)."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
@no_type_check
def as_float(typingctx: Any, bits: Any) -> Any:
    """The floating-point number with the bits of an integer of the same size."""
    result = types.float32 if bits.bitwidth == 32 else types.float64

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType() if bits.bitwidth == 32 else ir.DoubleType())

    return result(bits), codegen


@intrinsic
@no_type_check
def view(typingctx: Any, array: Any, start: Any, size: Any) -> Any:
    """``array[start : start + size]`` of a contiguous vector, without checks and without owning it."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = signature.args[0]
        source = context.make_array(kind)(context, builder, args[0])
        result = context.make_array(signature.return_type)(context, builder)
        one = context.get_constant(types.intp, context.get_abi_sizeof(context.get_value_type(kind.dtype)))
        context.populate_array(
            result,
            data=builder.gep(source.data, [args[1]]),
            shape=[args[2]],
            strides=[one],
            itemsize=one,
            meminfo=None,
        )
        return result._getvalue()

    return types.Array(array.dtype, 1, "C")(array, types.intp, types.intp), codegen


@intrinsic
@no_type_check
def own_code(typingctx: Any) -> Any:
    """Keep this function apart from its callers: shorter compilation."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), codegen


def asin_tail(z: float) -> float:
    """A(z) with asin(s) = s + s z A(z), z = s^2 in [0, 1/4]."""
    raise NotImplementedError


def cosine(z: float) -> float:
    """sqrt(1 - z) for z in [0, 1/4]."""
    raise NotImplementedError


def exponential(x: float) -> float:
    """exp(x), 0 below the smallest normal number, relative error a few units in the last place."""
    raise NotImplementedError


F = np.float32


@register_jitable
@no_type_check
def _asin32(z):
    return F(0.16666672414795305) + z * (
        F(0.07498855072600821)
        + z * (F(0.04500138006990061) + z * (F(0.02655454220616123) + z * F(0.03808502356109165)))
    )


@register_jitable
@no_type_check
def _asin64(z):
    high = 0.007802949477353317 + z * (0.016035514349148823 + z * (-0.010749050339697808 + z * 0.028169218060881413))
    middle = 0.02237204763174451 + z * (
        0.01735525995578632 + z * (0.013929652902326633 + z * (0.011875494382636923 + z * high))
    )
    return 0.16666666666666649 + z * (
        0.07500000000020764 + z * (0.04464285710342364 + z * (0.03038194736709848 + z * middle))
    )


@overload(asin_tail)
@no_type_check
def _asin_tail(z):
    return (lambda z: _asin32(z)) if z == types.float32 else (lambda z: _asin64(z))


@register_jitable
@no_type_check
def _cosine32(z):
    return F(1.0000000046733471) + z * (
        F(-0.5000013421770751)
        + z
        * (
            F(-0.124938268028275)
            + z * (F(-0.06352240179385617) + z * (F(-0.03161308982284964) + z * F(-0.050781774374713416)))
        )
    )


@register_jitable
@no_type_check
def _cosine64(z):
    high = -0.010747657925030907 + z * (-0.020068128030797594 + z * (0.012391100985236362 + z * -0.03413653239162875))
    middle = -0.039062366773744706 + z * (
        -0.0273467334692831 + z * (-0.020465729666262183 + z * (-0.01650051374663935 + z * high))
    )
    return 1.0000000000000002 + z * (
        -0.5000000000002481 + z * (-0.12499999995287608 + z * (-0.06250000349294897 + z * middle))
    )


@overload(cosine)
@no_type_check
def _cosine(z):
    return (lambda z: _cosine32(z)) if z == types.float32 else (lambda z: _cosine64(z))


@register_jitable
@no_type_check
def _exp32(x):
    inside = min(max(x, F(-87.0)), F(88.0))
    n = math.floor(inside * F(1.4426950408889634) + F(0.5))
    r = (inside - n * F(0.693359375)) + n * F(2.1219444005469057e-4)
    series = F(1 / 6) + r * (F(1 / 24) + r * (F(1 / 120) + r * (F(1 / 720) + r * F(1 / 5040))))
    power = as_float(np.int32((np.int32(n) + np.int32(127)) << np.int32(23)))
    value = power * (F(1.0) + r * (F(1.0) + r * (F(0.5) + r * series)))
    return value if x > F(-87.0) else F(0.0)


@register_jitable
@no_type_check
def _exp64(x):
    inside = min(max(x, -708.0), 709.0)
    n = math.floor(inside * 1.4426950408889634 + 0.5)
    r = (inside - n * 0.693147180369123816490) - n * 1.90821492927058770002e-10
    high = 1 / 362880 + r * (1 / 3628800 + r * (1 / 39916800 + r * (1 / 479001600 + r * (1 / 6227020800))))
    series = 1 / 6 + r * (1 / 24 + r * (1 / 120 + r * (1 / 720 + r * (1 / 5040 + r * (1 / 40320 + r * high)))))
    power = as_float((np.int64(n) + np.int64(1023)) << np.int64(52))
    value = power * (1.0 + r * (1.0 + r * (0.5 + r * series)))
    return value if x > -708.0 else 0.0


@overload(exponential)
@no_type_check
def _exponential(x):
    return (lambda x: _exp32(x)) if x == types.float32 else (lambda x: _exp64(x))


@register_jitable(inline="always")
@no_type_check
def arc(rho, least):
    """asin(rho) and sqrt(1 - rho^2); |rho| counts as at least `least` and at most 1."""
    one, half = type(rho)(1.0), type(rho)(0.5)
    u = max(min(abs(rho), one), least)
    near = u > half
    rest = half - half * u
    s = math.sqrt(rest) if near else u
    z = rest if near else u * u
    root = cosine(z)
    a = s + s * z * asin_tail(z)
    root = (s + s) * root if near else root
    a = type(rho)(HALF_PI) - (a + a) if near else a
    return math.copysign(a, rho), root


@register_jitable(inline="always")
@no_type_check
def snapped(rho, unit):
    """1 where rounding alone keeps a correlation from it: its root would make a large error of a small one.

    Args:
        unit: the distance of 1 from the next larger number.
    """
    one = type(rho)(1.0)
    return one if rho > one - (unit + unit) else rho


@njit(cache=True, fastmath=FAST, error_model="numpy", nogil=True)
@no_type_check
def abrelu_row(k, t, xs, ys, xi, yi, least, low, high):
    """Slopes `low` and `high`; xs, ys: standard deviations, xi, yi: their inverses (0 for 0)."""
    own_code()
    wide_vectors()
    real = k.dtype.type
    jump = real((high - low) * (high - low) / (2 * math.pi))
    middle = real((low * low + high * high) / 2 - (high - low) * (high - low) / 4)
    unit = np.finfo(k.dtype).eps
    for i in range(k.size):
        c = k[i]
        a, root = arc(snapped(c * xi[i] * yi[i], unit), least[i])
        slope = middle + jump * a
        k[i] = jump * root * (xs[i] * ys[i]) + slope * c
        t[i] = t[i] * slope


@njit(cache=True, fastmath=FAST, error_model="numpy", nogil=True)
@no_type_check
def erf_row(k, t, xi, yi):
    """xi, yi: 1/sqrt(1 + 2 variance)."""
    own_code()
    wide_vectors()
    real = k.dtype.type
    for i in range(k.size):
        both = xi[i] * yi[i]
        a, root = arc(real(2.0) * k[i] * both, real(0.0))
        k[i] = real(2 / math.pi) * a
        t[i] = t[i] * (real(4 / math.pi) * both / root)


@njit(cache=True, fastmath=FAST, error_model="numpy", nogil=True)
@no_type_check
def gelu_row(k, t, xv, yv, xi, yi):
    """xv, yv: variances, xi, yi: 1/sqrt(1 + variance)."""
    own_code()
    wide_vectors()
    real = k.dtype.type
    for i in range(k.size):
        c, ab, both = k[i], xv[i] * yv[i], xi[i] * yi[i]
        rho = c * both
        a, root = arc(rho, real(0.0))
        inverse = real(1.0) / root
        square = both * both
        value = (rho * rho * inverse + ab * root) * both + c * a
        slope = (square * inverse * inverse + (real(1.0) - ab) * square + real(1.0)) * rho * inverse + a
        k[i] = value * real(0.5 / math.pi) + c * real(0.25)
        t[i] = t[i] * (slope * real(0.5 / math.pi) + real(0.25))


@njit(cache=True, fastmath=FAST, error_model="numpy", nogil=True)
@no_type_check
def sin_row(k, t, xh, yh, square, swing):
    """sin(w x + phase): square = w^2, swing = cos(2 phase); xh, yh: w^2 variance / 2."""
    own_code()
    wide_vectors()
    real = k.dtype.type
    rate, turn = real(square), real(swing)
    for i in range(k.size):
        c, damp = rate * k[i], xh[i] + yh[i]
        near, far = exponential(c - damp), turn * exponential(-c - damp)
        k[i] = (near - far) * real(0.5)
        t[i] = t[i] * ((near + far) * (rate * real(0.5)))
