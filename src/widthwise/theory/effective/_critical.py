"""Which initialisation keeps kernel and gradients level over depth, for any activation."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from math import isfinite, log
from typing import Literal

import numpy as np
import torch
from scipy.optimize import brentq

from widthwise.core import Value
from widthwise.numerics import Activation
from widthwise.theory.effective._gauss import EffectiveTheoryError, Elementwise, as_activation, gaussian_moments

Class = Literal["scale-invariant", "K*=0", "half-stable", "none"]

SEARCHED = (1e-3, 3e3)  # range of kernels in which fixed points are looked for
SMALL = (1e-5, 1e-4)  # kernels at which the approach to K* = 0 is read


@dataclass(frozen=True)
class Criticality(Value):
    """The critical initialisation of an activation: Var b = C_b, Var W = C_W / fan-in.

    Attributes:
        activation: its name.
        kind: universality class. ``"scale-invariant"``: every kernel is kept. ``"K*=0"``: the kernel falls slowly, as
            a power of depth. ``"half-stable"``: a positive fixed point, approached from one side only.
            ``"none"``: both susceptibilities are 1 nowhere.
        C_b, C_W: variances; NaN without a critical point (`advice` then says what to do).
        kernel: the fixed point K*; NaN in the scale-invariant class, where any kernel stays.
        nu: growth of V / (n K^2) per layer, the strength of finite-width effects. In the half-stable class
            for a kernel that starts at K*.
        exponents: powers of depth l, ``kernel``: K ~ l^p; ``perpendicular``: chi_perp = 1 - p_perp / l;
            ``lambda_b`` and ``lambda_W``: learning rates lambda ~ l^p that let each layer contribute alike;
            ``approach`` (half-stable): nu of a kernel that is still on its way to K*.
        warnings: what else should be known.
        advice: what to use instead, where there is no critical point.
    """

    activation: str
    kind: Class
    C_b: float
    C_W: float
    kernel: float
    nu: float
    exponents: dict[str, float]
    warnings: tuple[str, ...] = ()
    advice: str = ""


def critical(activation: Activation | Elementwise | str) -> Criticality:
    """Universality class and critical initialisation: chi_par = chi_perp = 1 at K* = C_b + C_W <s^2>_K*.

    Args:
        activation: from the table of `widthwise.numerics`, by name, or any elementwise function of torch (kinks of a
            plain function are not known; build it with `Activation.of` to name them).

    Returns:
        The class, variances accurate to about 1e-10, the fixed point, nu and the exponents.

    Raises:
        EffectiveTheoryError: no activation has this name, or its moments are not finite.

    Source: Roberts, Yaida and Hanin 2021 (arXiv 2106.10165), chapter 5; sheet, section 2.6.

    >>> found = critical("gelu")
    >>> found.kind, round(found.C_W, 8), round(found.C_b, 8), round(found.kernel, 8)
    ('half-stable', 1.98305826, 0.17292239, 3.56155281)
    """
    return _critical(as_activation(activation))


@lru_cache(maxsize=256)
def _search(f: Activation, function: Elementwise) -> Criticality:
    for find in (_discontinuous, _scale_invariant, _kernel_zero, _half_stable):
        found = find(f)
        if found is not None:
            return found
    return _none(f, _advice(f))


def _critical(f: Activation) -> Criticality:
    return _search(f, f.function)  # the function belongs to the key: names of plain functions need not be unique


def _none(f: Activation, advice: str, warnings: tuple[str, ...] = ()) -> Criticality:
    nan = float("nan")
    return Criticality(f.name, "none", nan, nan, nan, nan, {}, warnings, advice)


def _discontinuous(f: Activation) -> Criticality | None:
    if f.continuous:
        return None
    return _none(f, f"{f.name} jumps, so that chi_perp is infinite; use a steep smooth activation such as erf or tanh.")


# -- scale-invariant ---------------------------------------------------------------------------------------------------


def slopes(f: Activation) -> tuple[float, float] | None:
    """(a_minus, a_plus) where f(z) is a_plus z above zero and a_minus z below it; None for any other activation."""
    z = torch.logspace(-6, 3, 61, dtype=torch.float64)
    above, below = f.function(z) / z, f.function(-z) / -z
    if torch.allclose(above, above[30], rtol=1e-9, atol=1e-12) and torch.allclose(below, below[30], 1e-9, 1e-12):
        return float(below[30]), float(above[30])
    return None


def _scale_invariant(f: Activation) -> Criticality | None:
    found = slopes(f)
    if found is None or found == (0.0, 0.0):
        return None
    A2, A4 = (sum(slope**p for slope in found) / 2 for p in (2, 4))
    exponents = {"kernel": 0.0, "perpendicular": 0.0, "lambda_b": 0.0, "lambda_W": 0.0}
    return Criticality(f.name, "scale-invariant", 0.0, 1 / A2, float("nan"), 3 * A4 / A2**2 - 1, exponents)


# -- K* = 0 ------------------------------------------------------------------------------------------------------------


def _kernel_zero(f: Activation) -> Criticality | None:
    origin = torch.zeros(1, dtype=torch.float64)
    slope = float(f.derivative(origin))
    sides = f.derivative(torch.tensor([-1e-9, 1e-9], dtype=torch.float64))
    if abs(float(f.function(origin))) > 1e-12 or abs(slope) < 1e-9 or bool((sides - slope).abs().max() > 1e-6):
        return None
    C_W = 1 / slope**2
    drift = [_drifts(f, C_W, K) for K in SMALL]
    fall = drift[0][0]
    if fall > 0:
        return None
    warnings: tuple[str, ...] = ()
    if abs(fall) < 1e-12:  # straight near zero: the kernel falls slower than any power
        power = perpendicular = float("nan")
        if _drifts(f, C_W, 0.2)[0] >= 0:
            return None
        warnings = ("it is straight around zero: the kernel falls more slowly than any power of depth.",)
    else:
        order = log(drift[1][0] / drift[0][0]) / log(SMALL[1] / SMALL[0])
        order = round(2 * order) / 2  # 1 for smooth activations, 1/2 where the second derivative jumps at zero
        ratio = _towards_zero([back / fall for fall, back in drift], order)
        if order == 1 and 0 not in f.kinks:
            a1, b1 = _taylor(f)
            ratio = b1 / a1
        power, perpendicular = -1 / order, ratio / order
    exponents = {
        "kernel": power,
        "perpendicular": perpendicular,
        "lambda_b": -perpendicular,
        "lambda_W": -power - perpendicular,
    }
    return Criticality(f.name, "K*=0", 0.0, C_W, 0.0, 2 / 3, exponents, warnings)


def _drifts(f: Activation, C_W: float, K: float) -> tuple[float, float]:
    """Relative change of the kernel, and of gradients, in one layer at C_b = 0."""
    moments = gaussian_moments(f, K)
    fall, back = C_W * moments.s2 / K - 1, C_W * moments.d2 - 1
    return (0.0, 0.0) if abs(fall) < 1e-13 else (fall, back)


def _towards_zero(values: list[float], order: float) -> float:
    """The limit of values at the two small kernels, whose first correction goes like K^order."""
    factor = (SMALL[1] / SMALL[0]) ** order
    return (factor * values[0] - values[1]) / (factor - 1)


def _taylor(f: Activation) -> tuple[float, float]:
    """(a_1, b_1) = (s3/s1 + 3/4 (s2/s1)^2, s3/s1 + (s2/s1)^2) of the derivatives s_p at zero."""
    derivatives: list[Callable] = [f.derivative]
    for _ in range(2):
        inner = derivatives[-1]
        derivatives.append(lambda x, inner=inner: torch.func.jvp(inner, (x,), (torch.ones_like(x),))[1])
    origin = torch.zeros(1, dtype=torch.float64)
    s1, s2, s3 = (float(derivative(origin)) for derivative in derivatives)
    return s3 / s1 + 0.75 * (s2 / s1) ** 2, s3 / s1 + (s2 / s1) ** 2


# -- half-stable -------------------------------------------------------------------------------------------------------


def _half_stable(f: Activation) -> Criticality | None:
    def excess(log_K: float) -> float:
        try:
            moments = gaussian_moments(f, float(np.exp(log_K)))
        except EffectiveTheoryError:  # grows too fast for this variance
            return float("nan")
        return 1.0 - moments.slope / moments.d2 if moments.d2 else float("nan")

    points = np.linspace(log(SEARCHED[0]), log(SEARCHED[1]), 121)
    values = np.array([excess(point) for point in points])
    crossings = np.flatnonzero((values[:-1] * values[1:] < 0) & (np.abs(values[:-1]) > 1e-11))
    found = [_at(f, float(np.exp(brentq(excess, points[j], points[j + 1], xtol=1e-14, rtol=1e-15)))) for j in crossings]
    usable = [one for one in found if one.C_b >= 0]
    if not usable:
        return None
    others = tuple(f"another critical point lies at K = {one.kernel:.6g}." for one in usable[1:])
    return replace(usable[0], warnings=usable[0].warnings + others)


def _at(f: Activation, K: float) -> Criticality:
    moments = gaussian_moments(f, K)
    C_W = 1 / moments.d2
    C_b = K - C_W * moments.s2
    nu = C_W**2 * (moments.s4 - moments.s2**2) / K**2
    side = "above" if moments.bend < 0 else "below"
    warnings = (f"the kernel returns to K* only from {side}; start it there.",)
    exponents = {"kernel": 0.0, "perpendicular": 0.0, "lambda_b": 0.0, "lambda_W": 0.0, "approach": nu / 5}
    return Criticality(f.name, "half-stable", C_b, C_W, K, nu, exponents, warnings)


# -- no critical point -------------------------------------------------------------------------------------------------


def _advice(f: Activation) -> str:
    """What to do where no critical point exists: shift the activation to zero, or treat it as its straight tails."""
    start = float(f.function(torch.zeros(1, dtype=torch.float64)))
    if abs(start) > 1e-12:
        shifted = replace(f, name=f"{f.name} - {start:g}", function=lambda z: f.function(z) - start, closed_form=None)
        found = _kernel_zero(shifted)
        if found is not None:
            return f"subtract {f.name}(0) = {start:g}: then K* = 0 is critical with C_b = 0 and C_W = {found.C_W:g}."
    far, farther = (_tails(f, size) for size in (1e5, 1e6))
    if isfinite(far) and far > 1e-6 and abs(farther / far - 1) < 1e-3:
        return (
            f"it is critical only for K to infinity, as its straight tails are, with C_W towards {1 / far:.3g}; "
            f"use relu, or gelu, which has a finite critical point."
        )
    return "no C_b and C_W make it critical; use tanh (C_b = 0, C_W = 1) or gelu instead."


def _tails(f: Activation, size: float) -> float:
    """Mean square of f(z)/z at z = +-size."""
    far = torch.tensor([-size, size], dtype=torch.float64)
    return float((f.function(far) / far).square().sum()) / 2
