"""Three routes from a sweep to a law: near-optimal runs, optima of surfaces, one joint bowl for every cell.

Each estimates ln lr* = a0 + aN n + aD d and ln batch* = b0 + bN n + bD d for many weightings of runs and cells at once,
so that bootstraps and hold-outs are one call. n, d and the logarithms of lr and batch are centred inside.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from widthwise.core import DataError
from widthwise.scaling._laws_robust import (
    CellWeights,
    Coefficients,
    Design,
    RunWeights,
    huber,
    leverages,
    lines,
    spread_of,
    sway,
)
from widthwise.scaling._laws_surface import Quadratic, cell_surfaces, features, vertices
from widthwise.scaling._laws_sweep import Sweep


@dataclass(frozen=True, eq=False)
class Centred:
    """Logarithms of a sweep around their means, and the way back."""

    x: Float[np.ndarray, "runs"]
    y: Float[np.ndarray, "runs"]
    design: Float[np.ndarray, "cells 3"]
    means: Float[np.ndarray, "4"]

    @classmethod
    def of(cls, sweep: Sweep) -> "Centred":
        """Centre by the means over cells and over runs."""
        x, y, logs = np.log(sweep.lr), np.log(sweep.batch), np.log(sweep.cells)
        middle = logs.mean(0)
        design = np.column_stack([np.ones(len(logs)), logs - middle])
        return cls(x - x.mean(), y - y.mean(), design, np.array([x.mean(), y.mean(), *middle]))

    def raw(self, centred: Coefficients) -> Coefficients:
        """Coefficients for uncentred logarithms."""
        out = centred.copy()
        for block, mean in ((0, self.means[0]), (3, self.means[1])):
            out[:, block] += mean - centred[:, block + 1 : block + 3] @ self.means[2:]
        return out


@dataclass(frozen=True, eq=False)
class NearOptimal:
    """The authors' recipe: every run with a loss below (1 + threshold) of its cell's least, by least squares."""

    frame: Centred
    rows: Int[np.ndarray, "kept"]
    cell: Int[np.ndarray, "kept"]
    batch_design: Design
    robust: Float[np.ndarray, "2 kept"]

    @classmethod
    def of(cls, sweep: Sweep, threshold: float, batch_on_params: bool, robust: bool) -> "NearOptimal":
        """Choose the runs, and their robust weights where asked for."""
        frame = Centred.of(sweep)
        rows = np.flatnonzero(sweep.log_excess() < np.log1p(threshold))
        cell = sweep.cell[rows]
        weights = np.ones((2, len(rows)))
        route = cls(frame, rows, cell, reduced(frame.design, batch_on_params), weights)
        for _ in range(10 if robust else 0):
            found = route._centred(np.ones((1, len(sweep))), np.ones((1, len(sweep.cells))))[0]
            for k, values in enumerate((frame.x[rows], frame.y[rows])):
                error = values - frame.design[cell] @ found[3 * k : 3 * k + 3]
                weights[k] = huber(error, spread_of(error))
        return route

    def sway(self, runs: int) -> Float[np.ndarray, "runs"]:
        """See `sway`."""
        leverage = leverages(self.frame.design[self.cell], np.ones(len(self.rows)))
        return sway(runs, self.rows, leverage, np.ones(len(self.rows)))

    def _centred(self, runs: RunWeights, cells: CellWeights) -> Coefficients:
        weights = runs[:, self.rows] * cells[:, self.cell]
        parts = []
        for k, (values, table) in enumerate(((self.frame.x, self.frame.design), (self.frame.y, self.batch_design))):
            value = np.broadcast_to(values[self.rows], weights.shape)
            parts.append(lines(table[self.cell], value, weights * self.robust[k]))
        return np.concatenate(parts, axis=1)

    def estimate(self, runs: RunWeights, cells: CellWeights) -> Coefficients:
        """Raw coefficients for each weighting."""
        return self.frame.raw(self._centred(runs, cells))


@dataclass(frozen=True, eq=False)
class Surfaces:
    """Weighted regression on the optimum of each cell's own quadratic surface.

    Weights are 1 / (variance of the vertex + tau^2), tau^2 the variance between cells (DerSimonian and Laird).
    """

    frame: Centred
    fits: tuple[Quadratic | None, ...]
    used: Int[np.ndarray, "used"]
    points: Float[np.ndarray, "used 2"]
    weights: Float[np.ndarray, "2 used"]
    batch_design: Design

    @classmethod
    def of(cls, sweep: Sweep, window: float, batch_on_params: bool, robust: bool) -> "Surfaces":
        """Fit the cells' surfaces; those without an optimum inside their grid take no part.

        Raises:
            DataError: fewer than four cells have one.
        """
        frame = Centred.of(sweep)
        fits, cells = cell_surfaces(sweep, window)
        used = np.array([c for c, cell in enumerate(cells) if cell.usable], dtype=np.int64)
        if len(used) < 4 or np.linalg.matrix_rank(frame.design[used], tol=1e-6) < 3:
            raise DataError(
                f"only {len(used)} of {len(cells)} cells have a bowl with its optimum inside the grid; "
                "widen the grids, refine them (steps of sqrt 2), or use route='joint'."
            )
        points = np.array([[np.log(cells[c].lr), np.log(cells[c].batch)] for c in used]) - frame.means[:2]
        variances = np.array([np.diag(cells[c].covariance) for c in used])
        table = reduced(frame.design, batch_on_params)
        pairs = ((frame.design, points[:, 0], variances[:, 0]), (table, points[:, 1], variances[:, 1]))
        weights = np.stack([_meta_weights(d[used], p, v, robust) for d, p, v in pairs])
        return cls(frame, tuple(fits), used, points, weights, table)

    def estimate(self, runs: RunWeights, cells: CellWeights) -> Coefficients:
        """Raw coefficients for each weighting."""
        found = [self._vertices(int(c), runs) for c in self.used]
        z = np.stack([vertex for vertex, _ in found], axis=1)
        valid = np.stack([convex for _, convex in found], axis=1) * cells[:, self.used]
        parts = []
        for k, table in enumerate((self.frame.design, self.batch_design)):
            values = np.where(valid > 0, z[:, :, k], 0.0)
            values, weights = np.broadcast_arrays(values, valid * self.weights[k])
            parts.append(lines(table[self.used], values, weights))
        return self.frame.raw(np.concatenate(parts, axis=1))

    def sway(self, runs: int) -> Float[np.ndarray, "runs"]:
        """See `sway`."""
        out = np.ones(runs)
        for fit in self.fits:
            if fit is not None:
                # A vertex bends with its errors: the square root is enough.
                leverage = 1 - (1 - leverages(features(fit.x, fit.y), np.ones_like(fit.x))) ** 0.5
                rows = fit.rows.astype(np.int64)
                out[rows] = sway(runs, rows, leverage, np.ones_like(fit.x))[rows]
        return out

    def _vertices(self, cell: int, runs: RunWeights) -> tuple[Float[np.ndarray, "_ 2"], Float[np.ndarray, "_"]]:
        fit = self.fits[cell]
        assert fit is not None
        table = features(fit.x, fit.y)
        weights = runs[:, fit.rows.astype(int)]
        gram = np.einsum("rk,ki,kj->rij", weights, table, table, optimize=True)
        solved = np.linalg.solve(gram, ((weights * fit.logs) @ table)[..., None])[..., 0]
        vertex, _, convex = vertices(solved)
        far = np.abs(vertex).max(1) > 20  # a saddle's or a valley's vertex
        return vertex + fit.centre[:2] - self.frame.means[:2], (convex & ~far).astype(float)


def _meta_weights(
    design: Design, values: Float[np.ndarray, "rows"], variances: Float[np.ndarray, "rows"], robust: bool
) -> Float[np.ndarray, "rows"]:
    weights = 1 / np.maximum(variances, 1e-300)
    relative = weights / weights.max()
    coefficients = lines(design, values[None], relative[None])[0]
    error = values - design @ coefficients
    projector = np.linalg.pinv(design.T @ (design * relative[:, None]), rcond=1e-10)
    trace = weights.sum() - float(np.trace(projector @ (design.T @ (design * (relative * weights)[:, None]))))
    free = len(values) - np.linalg.matrix_rank(design)
    tau2 = max(0.0, (float(weights @ error**2) - free) / max(trace, 1e-300))
    total = variances + tau2
    weights = total.min() / np.maximum(total, 1e-300) if total.min() > 0 else np.ones_like(total)
    kept = weights
    for _ in range(10 if robust else 0):
        error = (values - design @ lines(design, values[None], kept[None])[0]) * np.sqrt(weights)
        kept = weights * huber(error, spread_of(error))
    return kept


def reduced(design: Design, batch_on_params: bool) -> Design:
    """The design of the batch: without params unless asked for."""
    return design if batch_on_params else design * np.array([1.0, 0.0, 1.0])
