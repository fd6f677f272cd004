"""Dense kernels that depend on one angle: tabulated once, then read off the matrix of cosines.

Without biases and with activations homogeneous of degree one, moment and tangent of two inputs are |x| |x'| times a
function of the angle between them; for inputs of equal norm they are functions of the angle in any dense network.
In the angle (not in its cosine) these functions are smooth up to both ends, so that piecewise Chebyshev interpolation
converges fast. The cost per pair does not depend on depth.
"""

from dataclasses import dataclass
from typing import no_type_check

import numpy as np
import torch
from numba import njit
from torch import Tensor

from widthwise.kernels.engines import _codes as code
from widthwise.kernels.engines._passes import OPTIONS
from widthwise.kernels.engines._plan import Plan
from widthwise.kernels.engines._rows import arc, own_code, wide_vectors
from widthwise.kernels.engines._run import evaluate_given, in_threads

DEGREE = {torch.float32: 5, torch.float64: 9}
TOLERANCE = {torch.float32: 1e-7, torch.float64: 1e-12}
MOST_SEGMENTS = 1024
TILE = 1024
ROWS_AT_ONCE = 32


@dataclass(frozen=True)
class Table:
    """Functions of the angle on equal segments of [0, pi].

    Attributes:
        coefficients: ``[functions, degree + 1, segments]``: of the powers of the place in a segment, in [-1, 1].
        error: largest difference met at points between the nodes, relative to the largest value.
    """

    coefficients: np.ndarray
    error: float


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
    degree, segments = DEGREE[dtype], 16
    nodes = np.cos(np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))
    checks = np.linspace(-0.99, 0.99, 7)
    to_powers = np.linalg.inv(np.vander(nodes, increasing=True))

    def values(places: np.ndarray) -> np.ndarray:
        width = np.pi / segments
        angles = (np.arange(segments)[:, None] + 0.5 + 0.5 * places) * width
        found = evaluate_given(plan, row, square * np.cos(angles).ravel())
        return found.reshape(-1, segments, len(places))

    while segments <= MOST_SEGMENTS:
        powers = np.einsum("pn,fsn->fps", to_powers, values(nodes))
        truth = values(checks)
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

    Args:
        x1, x2: rows of norm one (or zero).
        scales: factor of each row and column.
    """
    real = np.float32 if dtype == torch.float32 else np.float64
    left, right = (x1.to(dtype), (x1 if x2 is None else x2).to(dtype))
    rows_by, columns_by = (scale.to(dtype).numpy() for scale in scales)
    coefficients = np.ascontiguousarray(table.coefficients.astype(real))
    result = torch.empty(len(coefficients), len(left), len(right), dtype=dtype)
    cosines = torch.empty(min(TILE, len(left)) * min(TILE, len(right)), dtype=dtype)
    for i in range(0, len(left), TILE):
        for j in range(0 if x2 is not None else i, len(right), TILE):
            rows, columns = slice(i, min(i + TILE, len(left))), slice(j, min(j + TILE, len(right)))
            shape = (rows.stop - i, columns.stop - j)
            tile = torch.mm(left[rows], right[columns].T, out=cosines[: shape[0] * shape[1]].view(shape))
            _transform(tile.numpy(), coefficients, rows_by[rows], columns_by[columns], result[:, rows, columns].numpy(),
                       x2 is None and i == j)  # fmt: skip
            if x2 is None and j > i:
                for matrix in result:
                    matrix[columns, rows] = matrix[rows, columns].T
    return result


def _transform(
    tile: np.ndarray, coefficients: np.ndarray, by_row: np.ndarray, by_column: np.ndarray, out: np.ndarray, same: bool
) -> None:
    """Apply the table to a tile of cosines; on a diagonal tile the upper half is mirrored."""

    def run(first: int, last: int) -> None:
        read_rows(tile, coefficients, by_row, by_column, out, first * ROWS_AT_ONCE, last * ROWS_AT_ONCE, same)

    in_threads(-(-len(tile) // ROWS_AT_ONCE), run)
    if same:
        for matrix in out:
            lower = np.tril_indices(len(tile), -1)
            matrix[lower] = matrix.T[lower]


@njit(**OPTIONS)
@no_type_check
def read_rows(tile, coefficients, by_row, by_column, out, first, last, same):
    width = tile.shape[1]
    places, where = np.empty(width, tile.dtype), np.empty(width, np.int32)
    for i in range(first, min(last, tile.shape[0])):
        if same:
            tile[i, i] = 1
        locate(tile[i], places, where, coefficients.shape[2])
        for f in range(coefficients.shape[0]):
            read(out[f, i], coefficients[f], places, where, by_row[i], by_column)


@njit(**OPTIONS)
@no_type_check
def locate(cosines, places, where, segments):
    """The segment of each angle and the place in it, in [-1, 1]."""
    own_code()
    wide_vectors()
    real = cosines.dtype.type
    rate, half_pi = real(segments / np.pi), real(np.pi / 2)
    for j in range(cosines.size):
        angle = (half_pi - arc(cosines[j], real(0.0))[0]) * rate
        segment = min(max(np.int32(angle), np.int32(0)), np.int32(segments - 1))
        where[j] = segment
        places[j] = (angle - real(segment)) * real(2.0) - real(1.0)


@njit(**OPTIONS)
@no_type_check
def read(out, coefficients, places, where, scale, by_column):
    own_code()
    wide_vectors()
    top = coefficients.shape[0] - 1
    if top == 5:
        c0, c1, c2, c3, c4, c5 = (
            coefficients[0], coefficients[1], coefficients[2], coefficients[3], coefficients[4], coefficients[5],
        )  # fmt: skip
        for j in range(out.size):
            s, u = np.uint32(where[j]), places[j]
            value = c0[s] + u * (c1[s] + u * (c2[s] + u * (c3[s] + u * (c4[s] + u * c5[s]))))
            out[j] = value * (scale * by_column[j])
        return
    for j in range(out.size):
        out[j] = coefficients[top, where[j]]
    for power in range(top - 1, -1, -1):
        row = coefficients[power]
        for j in range(out.size):
            out[j] = out[j] * places[j] + row[np.uint32(where[j])]
    for j in range(out.size):
        out[j] *= scale * by_column[j]
