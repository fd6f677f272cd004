"""V-transforms in Triton, for one block of covariances in registers: the formulas of `_rows.py`.

Angle and root are the short polynomials of that module (single precision, 2e-8 and 6e-9), so that nothing depends on
a vendor's library and the interpreter runs the same arithmetic.
"""

from typing import no_type_check

import triton
import triton.language as tl

from widthwise.kernels.engines import _codes as code

ABRELU = tl.constexpr(code.ABRELU)
ERF = tl.constexpr(code.ERF)
GELU = tl.constexpr(code.GELU)
SIN = tl.constexpr(code.SIN)


@triton.jit
@no_type_check
def arc(rho, least):
    """asin(rho) and sqrt(1 - rho^2); |rho| counts as at least `least` and at most 1."""
    u = tl.maximum(tl.minimum(tl.abs(rho), 1.0), least)
    near = u > 0.5
    rest = 0.5 - 0.5 * u
    s = tl.where(near, tl.sqrt(rest), u)
    z = tl.where(near, rest, u * u)
    root = -0.06352240179385617 + z * (-0.03161308982284964 + z * -0.050781774374713416)
    root = 1.0000000046733471 + z * (-0.5000013421770751 + z * (-0.124938268028275 + z * root))
    a = 0.04500138006990061 + z * (0.02655454220616123 + z * 0.03808502356109165)
    a = s + s * z * (0.16666672414795305 + z * (0.07498855072600821 + z * a))
    root = tl.where(near, (s + s) * root, root)
    a = tl.where(near, 1.5707963267948966 - (a + a), a)
    return tl.where(rho < 0, -a, a), root


@triton.jit
@no_type_check
def abrelu(k, t, xs, ys, xi, yi, least, low, high):
    """Slopes `low` and `high`; xs, ys: standard deviations, xi, yi: their inverses (0 for 0)."""
    jump = (high - low) * (high - low) * 0.15915494309189535
    middle = (low * low + high * high) * 0.5 - (high - low) * (high - low) * 0.25
    a, root = arc(k * xi * yi, least)
    slope = middle + jump * a
    return jump * root * (xs * ys) + slope * k, t * slope


@triton.jit
@no_type_check
def erf(k, t, xi, yi):
    """xi, yi: 1/sqrt(1 + 2 variance)."""
    both = xi * yi
    a, root = arc(2.0 * k * both, 0.0)
    return 0.6366197723675814 * a, t * (1.2732395447351628 * both / root)


@triton.jit
@no_type_check
def gelu(k, t, xv, yv, xi, yi):
    """xv, yv: variances, xi, yi: 1/sqrt(1 + variance)."""
    ab = xv * yv
    both = xi * yi
    rho = k * both
    a, root = arc(rho, 0.0)
    inverse = 1.0 / root
    square = both * both
    value = (rho * rho * inverse + ab * root) * both + k * a
    slope = (square * inverse * inverse + (1.0 - ab) * square + 1.0) * rho * inverse + a
    return value * 0.15915494309189535 + k * 0.25, t * (slope * 0.15915494309189535 + 0.25)


@triton.jit
@no_type_check
def sin(k, t, xh, yh, square, swing):
    """sin(w x + phase): square = w^2, swing = cos(2 phase); xh, yh: w^2 variance / 2."""
    c = square * k
    damp = xh + yh
    near = tl.exp(c - damp)
    far = swing * tl.exp(-c - damp)
    return (near - far) * 0.5, t * ((near + far) * (square * 0.5))


@triton.jit
@no_type_check
def activate(k, t, phi, a, b, c, d, least, first, second):
    """The activation numbered `phi`; a, b: its first feature of the left and right inputs, c, d: its second."""
    if phi == ABRELU:
        k, t = abrelu(k, t, a, b, c, d, least, first, second)
    elif phi == ERF:
        k, t = erf(k, t, a, b)
    elif phi == GELU:
        k, t = gelu(k, t, a, b, c, d)
    elif phi == SIN:
        k, t = sin(k, t, a, b, first, second)
    return k, t
