"""Arccosine and root near a correlation of one, as polynomials over vectors.

With w = 1 - |rho|, ``arccos |rho| = sqrt(w) P(w)`` and ``sqrt(1 - rho^2) = sqrt(w) Q(w)``: one root gives both, with
neither divisions nor cases. P and Q are polynomials on [0, 1] that are exact at w = 0, where nearly equal inputs lie,
and minimax otherwise: sqrt(w) P and sqrt(w) Q are off by 1.7e-8 (float32) and 1e-16 (float64) at most.
"""

from typing import Any

import numpy as np
from numba import types

from widthwise.kernels.engines._vectors import polynomial

ARC32 = (
    1.4142135381698608, 0.11785514652729034, 0.026439955458045006, 0.008418875746428967,
    0.0009219131898134947, 0.004127840977162123, -0.002547937911003828, 0.0013669566251337528,
)  # fmt: skip
ROOT32 = (
    1.4142135381698608, -0.3535577952861786, -0.04411008954048157, -0.011627902276813984,
    -0.0015125059289857745, -0.004665954038500786, 0.0027810095343738794, -0.0015203057555481791,
)  # fmt: skip
ARC64 = (
    1.4142135623730951, 0.11785113019803072, 0.026516504268348864, 0.007891817710748858,
    0.0026853912106749958, 0.0009889436046400548, 0.0003816371671224665, 0.00016454748936714413,
    2.1489720923922217e-05, 0.00015673399333884162, -0.0002875198354873338, 0.0005253106385507291,
    -0.000677796729214359, 0.0006596541121007311, -0.0004592797074513445, 0.00021969803720248954,
    -6.452347484562074e-05, 9.026017750324784e-06,
)  # fmt: skip
ROOT64 = (
    1.4142135623730951, -0.3535533905935577, -0.04419417379694076, -0.011048544451739027,
    -0.003452650405785653, -0.0012086682036743463, -0.00045127993834907033, -0.00018870846098922268,
    -2.8245797343799464e-05, -0.00016529120181267166, 0.0002987416465976036, -0.000547490247917236,
    0.0007060528138348649, -0.0006873899802510024, 0.0004786358694716283, -0.0002290216425422128,
    6.727936415245777e-05, -9.417346248784015e-06,
)  # fmt: skip


def tables(low: np.ndarray, high: np.ndarray, real: type) -> np.ndarray:
    """Coefficients of P, then of Q, times ``(high - low)^2 / 2 pi`` for the slopes of each activation."""
    numbers = (*ARC32, *ROOT32) if real == np.float32 else (*ARC64, *ROOT64)
    return np.outer((high - low) ** 2 / (2 * np.pi), numbers).astype(real)


def count(kind: Any) -> int:
    """How many coefficients P has, and Q."""
    return len(ARC32 if kind == types.float32 else ARC64)


arc_polynomial = polynomial(count)
