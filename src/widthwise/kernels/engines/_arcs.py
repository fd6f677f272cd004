"""Arccosine and root near a correlation of one, as polynomials over vectors.

With w = 1 - |rho|, ``arccos |rho| = sqrt(w) P(w)`` and ``sqrt(1 - rho^2) = sqrt(w) Q(w)``: one root gives both, with
neither divisions nor cases. P and Q are minimax polynomials on [0, 1]; what multiplies sqrt(w) is off by 1.4e-8
(float32) and 9e-17 (float64) at most.
"""

from typing import Any

import numpy as np
from numba import types

from widthwise.kernels.engines._vectors import polynomial

ARC32 = (
    1.4142132997512817, 0.11786042898893356, 0.02639453485608101, 0.008603579364717007, 0.0005204681074246764,
    0.004607392940670252, -0.002844932023435831, 0.001441487343981862,
)  # fmt: skip
ROOT32 = (
    1.41421377658844, -0.3535635769367218, -0.04406026005744934, -0.011830566450953484, -0.0010719596175476909,
    -0.005192279815673828, 0.003107005963101983, -0.0016021223273128271,
)  # fmt: skip
ARC64 = (
    1.414213562373092, 0.11785113019844436, 0.02651650424920655, 0.007891818159260426, 0.002685384930063001,
    0.0009890012805859802, 0.00038126913061808807, 0.00016624243680649452, 1.571372023496298e-05,
    0.00017152682807222968, -0.00031621686057063013, 0.0005675075198991436, -0.000724497168193481,
    0.0006979073724272852, -0.00048175970845495026, 0.00022865762166240363, -6.669180617640779e-05,
    9.266517919132351e-06,
)  # fmt: skip
ROOT64 = (
    1.4142135623730983, -0.35355339059398827, -0.04419417377701568, -0.011048544918602769, -0.00345264386803549,
    -0.0012087282422137645, -0.00045089681856357505, -0.00019047290355518745, -2.2232876218932738e-05,
    -0.00018069103731983296, 0.0003286166139496796, -0.0005914197551860542, 0.0007546713561236904,
    -0.0007272148204288573, 0.0005020396592959501, -0.00023834949583659957, 6.953684041165664e-05,
    -9.667735914156174e-06,
)  # fmt: skip


def tables(low: np.ndarray, high: np.ndarray, real: type) -> np.ndarray:
    """Coefficients of P, then of Q, times ``(high - low)^2 / 2 pi`` for the slopes of each activation."""
    numbers = (*ARC32, *ROOT32) if real == np.float32 else (*ARC64, *ROOT64)
    return np.outer((high - low) ** 2 / (2 * np.pi), numbers).astype(real)


def count(kind: Any) -> int:
    """How many coefficients P has, and Q."""
    return len(ARC32 if kind == types.float32 else ARC64)


arc_polynomial = polynomial(count)
