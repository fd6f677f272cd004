"""Dense kernels that depend on one angle: functions of it, fitted once, then read off the matrix of cosines.

Without biases and with activations homogeneous of degree one, moment and tangent of two inputs are |x| |x'| times a
function of the angle between them; for inputs of equal norm they are functions of the angle in any dense network.
In the angle (not in its cosine) these functions are smooth up to both ends: one polynomial of moderate degree holds
them, in the angle or, where they are steep near angle zero as in deep networks, in 1 / (angle + offset). Where no
polynomial does, piecewise Chebyshev interpolation converges fast. The cost per pair hardly depends on depth.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.polynomial.chebyshev import cheb2poly, chebfit
from torch import Tensor

from widthwise.kernels.engines import _codes as code
from widthwise.kernels.engines._angles import GROUP, spread
from widthwise.kernels.engines._plan import Plan
from widthwise.kernels.engines._rows import HALF_PI
from widthwise.kernels.engines._run import evaluate_given, in_threads

DEGREE = {torch.float32: 5, torch.float64: 9}
TOLERANCE = {torch.float32: 1e-7, torch.float64: 1e-12}
ROUNDING = {torch.float32: 4e-7, torch.float64: 1e-12}
MOST_SEGMENTS = 1024
DEGREES = range(8, 33, 4)
OFFSETS = (0.0, 3.2, 1.6, 0.8)
PANEL, PANEL_COLUMNS = 512, 16384  # a panel on the diagonal holds all of it: columns are at least as many as rows

KEPT = 64
Values = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Table:
    """Functions of the angle on equal segments of [0, pi], or on all of it.

    Attributes:
        coefficients: ``[functions, degree + 1, segments]``: of the powers of the place in a segment, in [-1, 1].
        error: largest difference met at points between the nodes, relative to the largest value.
        offset: with one segment the place is linear in 1 / (angle + offset), or in the angle where offset is 0.
    """

    coefficients: np.ndarray
    error: float
    offset: float = 0.0


_fitted: dict[tuple, Table | None] = {}  # matrices are often asked for in tiles


def one_angle(plan: Plan, norms: Tensor) -> bool | None:
    """True where the kernel is homogeneous, False where all inputs have one norm, None where neither is so."""
    if len(plan.given) != 1:
        return None
    phis = plan.ops[:, code.PHI]
    constants = plan.pars[:, code.CONSTANT : code.CONSTANT_T0 + 1]
    homogeneous = np.isin(phis, (-1, code.ABRELU)).all() and not constants.any()
    if homogeneous and not (plan.ops[:, code.CODE] == code.NORM).any():
        return True
    low, high = float(norms.min()), float(norms.max())
    return False if low > 0 and high - low <= 1e-13 * high else None


def fit(plan: Plan, row: np.ndarray, square: float, dtype: torch.dtype) -> Table | None:
    """Moment and tangent of each output as functions of the angle between two inputs.

    Args:
        row: float64 features of an input.
        square: its mean square.

    Returns:
        None where 1024 segments do not reach the accuracy of the dtype.
    """

    def values(angles: np.ndarray) -> np.ndarray:
        return evaluate_given(plan, row, square * np.cos(angles).ravel()).reshape(-1, *angles.shape)

    key = (plan.ops.tobytes(), plan.pars.tobytes(), row.tobytes(), square, dtype)
    if key not in _fitted:
        if len(_fitted) >= KEPT:
            _fitted.clear()
        _fitted[key] = one_polynomial(values, dtype) or segmented(values, dtype)
    return _fitted[key]


def one_polynomial(values: Values, dtype: torch.dtype) -> Table | None:
    """The polynomial of least degree; its rounding in the dtype counts too. None where degree 32 does not do."""
    checks = np.concatenate([np.pi * np.sin(np.linspace(0, np.pi / 2, 257)) ** 2, np.geomspace(1e-4, 1.0, 32)])
    truth = values(checks)
    scale = np.abs(truth).max(axis=1)
    for degree in DEGREES:
        nodes = np.cos(np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))
        for offset in OFFSETS:
            found = values(_angles(nodes, offset))
            powers = np.stack([cheb2poly(chebfit(nodes, each, degree)) for each in found])
            places = _places(checks, offset)
            exact = _worst(_horner(powers, places) - truth, scale)
            real = np.float32 if dtype == torch.float32 else np.float64
            rounded = _worst(_horner(powers.astype(real), places.astype(real)) - truth, scale)
            if exact <= TOLERANCE[dtype] and rounded <= ROUNDING[dtype]:
                return Table(powers[:, :, None], rounded, offset)
    return None


def _worst(errors: np.ndarray, scale: np.ndarray) -> float:
    return float((np.abs(errors).max(axis=1) / np.where(scale > 0, scale, 1.0)).max())


def _places(angles: np.ndarray, offset: float) -> np.ndarray:
    """As `_angles.place` computes them."""
    if offset == 0:
        return angles / HALF_PI - 1
    return 1 + offset / HALF_PI - offset * (2 + offset / HALF_PI) / (angles + offset)


def _angles(places: np.ndarray, offset: float) -> np.ndarray:
    if offset == 0:
        return (places + 1) * HALF_PI
    return offset * (2 + offset / HALF_PI) / (1 + offset / HALF_PI - places) - offset


def _horner(powers: np.ndarray, places: np.ndarray) -> np.ndarray:
    value = np.repeat(powers[:, -1:], len(places), axis=1)
    for power in range(powers.shape[1] - 2, -1, -1):
        value = value * places + powers[:, power : power + 1]
    return value


def segmented(values: Values, dtype: torch.dtype) -> Table | None:
    """Piecewise interpolation of fixed degree on as many segments as it takes."""
    degree, segments = DEGREE[dtype], 16
    nodes = np.cos(np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))
    checks = np.linspace(-0.99, 0.99, 7)
    to_powers = np.linalg.inv(np.vander(nodes, increasing=True))
    while segments <= MOST_SEGMENTS:
        width = np.pi / segments
        middles = np.arange(segments)[:, None] + 0.5
        powers = np.einsum("pn,fsn->fps", to_powers, values((middles + 0.5 * nodes) * width))
        truth = values((middles + 0.5 * checks) * width)
        fitted = np.einsum("cp,fps->fsc", np.vander(checks, degree + 1, increasing=True), powers)
        scale = np.abs(truth).max(axis=(1, 2), keepdims=True)
        error = float((np.abs(fitted - truth) / np.where(scale > 0, scale, 1.0)).max())
        if error <= TOLERANCE[dtype]:
            return Table(powers, error)
        segments *= 2
    return None


def angle_grams(
    table: Table, x1: Tensor, x2: Tensor | None, scales: tuple[Tensor, Tensor], dtype: torch.dtype
) -> Tensor:
    """All functions of the table between two sets of inputs, ``[functions, n1, n2]``.

    Panels of cosines (of a symmetric matrix what lies right of the diagonal) come from one matrix product each; one
    pass reads each cosine once and writes what it gives to both halves.

    Args:
        x1, x2: rows of norm one (or zero).
        scales: factor of each row and column.
    """
    real = np.float32 if dtype == torch.float32 else np.float64
    left, right = (x1.to(dtype), (x1 if x2 is None else x2).to(dtype))
    rows_by, columns_by = (scale.to(dtype).numpy() for scale in scales)
    coefficients = np.ascontiguousarray(table.coefficients.astype(real))
    # NumPy asks for huge pages for large arrays, which halves the time of the first touch.
    result = np.empty((len(coefficients), len(left), len(right)), real)
    columns = min(PANEL_COLUMNS, len(right))
    buffer = torch.empty(min(PANEL, len(left)) * columns, dtype=dtype)
    for i in range(0, len(left), PANEL):
        for j in range(0 if x2 is not None else i, len(right), columns):
            some, others = left[i : i + PANEL], right[j : j + columns]
            panel = torch.mm(some, others.T, out=buffer[: len(some) * len(others)].view(len(some), len(others)))
            _pass(panel.numpy(), (i, j), coefficients, table.offset, rows_by, columns_by, result, x2 is None)
    return torch.from_numpy(result)


def _pass(
    cosines: np.ndarray,
    corner: tuple[int, int],
    coefficients: np.ndarray,
    offset: float,
    by_row: np.ndarray,
    by_column: np.ndarray,
    out: np.ndarray,
    mirror: bool,
) -> None:
    def run(first: int, last: int) -> None:
        spread(cosines, corner, coefficients, offset, by_row, by_column, out, first, last, mirror)

    in_threads(-(-len(cosines) // GROUP), run)
