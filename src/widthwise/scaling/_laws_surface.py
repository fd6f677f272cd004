"""Quadratic surfaces of the log loss over (ln lr, ln batch): one per cell, with the optimum and its covariance."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from widthwise.core import Value
from widthwise.scaling._laws_sweep import Sweep

SMALLEST = 9  # runs that six coefficients are fitted to
WINDOWS = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32)


@dataclass(frozen=True)
class CellSurface(Value):
    """What one cell's runs say of its optimum.

    Attributes:
        params, tokens: of the cell.
        lr, batch: vertex of the quadratic surface (batch in tokens); the best run's where there is no vertex.
        covariance: of (ln lr, ln batch) at the vertex.
        loss: of the surface at its vertex, or of the best run.
        best_lr, best_batch, best_loss: the best run.
        convex: whether both eigenvalues of the fitted curvature are positive.
        inside: whether the vertex lies within the grid, widened by one step.
        runs, diverged: counts of runs, and of those that diverged.
        fitted: runs that the surface was fitted to.
    """

    params: float
    tokens: float
    lr: float
    batch: float
    covariance: Float[np.ndarray, "2 2"]
    loss: float
    best_lr: float
    best_batch: float
    best_loss: float
    convex: bool
    inside: bool
    runs: int
    diverged: int
    fitted: int

    @property
    def usable(self) -> bool:
        """Whether the vertex is an optimum: convex, and within the grid."""
        return self.convex and self.inside


def features(x: Float[np.ndarray, "runs"], y: Float[np.ndarray, "runs"]) -> Float[np.ndarray, "runs 6"]:
    """1, x, y, x^2/2, y^2/2, x y."""
    return np.stack([np.ones_like(x), x, y, x * x / 2, y * y / 2, x * y], axis=1)


def auto_window(sweep: Sweep) -> float:
    """The least window (of log loss above the cell's best run) that holds 12 runs in four cells of five."""
    excess = sweep.log_excess()
    sizes = np.bincount(sweep.cell)
    for window in WINDOWS:
        inside = np.bincount(sweep.cell[excess <= window], minlength=len(sizes))
        if (inside >= np.minimum(12, 0.8 * sizes)).mean() >= 0.8:
            return window
    return WINDOWS[-1]


def nearest(excess: Float[np.ndarray, "runs"], window: float) -> Bool[np.ndarray, "runs"]:
    """Runs within the window, or the best nine where there are fewer (runs that diverged apart)."""
    limit = max(window, np.sort(excess)[min(SMALLEST, len(excess)) - 1])
    return np.isfinite(excess) & (excess <= limit)


@dataclass(frozen=True, eq=False)
class Quadratic:
    """One cell's fit, in logarithms centred at the best run; `coefficients` as `features` has them."""

    x: Float[np.ndarray, "fitted"]
    y: Float[np.ndarray, "fitted"]
    logs: Float[np.ndarray, "fitted"]
    rows: Float[np.ndarray, "fitted"]
    centre: Float[np.ndarray, "3"]
    coefficients: Float[np.ndarray, "6"]
    residual: float
    free: int

    def excess(self, ln_lr: float, ln_batch: float) -> float:
        """Log loss at a point above that of the vertex."""
        best = float(vertices(self.coefficients[None])[1][0])
        point = features(np.array([ln_lr - self.centre[0]]), np.array([ln_batch - self.centre[1]]))
        return float((point @ self.coefficients)[0]) - best


def fit_cell(sweep: Sweep, cell: int, window: float) -> Quadratic | None:
    """Least squares in a window; None where the runs near the optimum do not determine a surface.

    The window is first cut by the measured losses and then by the fitted ones, so that lucky runs are not preferred.
    Runs that diverged where the surface says they should not enter at the upper end of the window: they are at least
    as bad.
    """
    rows = np.flatnonzero(sweep.cell == cell)
    x, y = np.log(sweep.lr[rows]), np.log(sweep.batch[rows])
    excess = sweep.log_excess()[rows]
    best = int(np.argmin(excess))
    x, y, least = x - (cx := x[best]), y - (cy := y[best]), float(np.log(sweep.loss[rows[best]]))
    chosen, table, fitted = nearest(excess, window), features(x, y), None
    for _ in range(3):
        target = np.where(np.isfinite(excess), excess, window)
        if chosen.sum() < SMALLEST or np.linalg.matrix_rank(table[chosen]) < 6:
            break
        fitted = np.linalg.lstsq(table[chosen], target[chosen], rcond=None)[0]
        kept = chosen
        _, lowest, convex = vertices(fitted[None])
        if not convex[0]:
            break
        chosen = nearest(np.maximum(table @ fitted - lowest[0], 0), window)
        if (chosen == kept).all():
            break
    if fitted is None:
        return None
    error = target[kept] - table[kept] @ fitted
    free = int(kept.sum()) - 6
    centre = np.array([cx, cy, least])
    return Quadratic(
        x[kept], y[kept], target[kept], rows[kept].astype(float), centre, fitted, float(error @ error), free
    )


def vertices(
    coefficients: Float[np.ndarray, "n 6"],
) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "n"], Bool[np.ndarray, "n"]]:
    """Vertex, value there, and whether it is a minimum, of many surfaces."""
    c, gx, gy, hxx, hyy, hxy = coefficients.T
    determinant = hxx * hyy - hxy**2
    convex = (hxx > 0) & (determinant > 1e-9 * np.abs(hxx * hyy))
    safe = np.where(np.abs(determinant) > 1e-300, determinant, 1e-300)
    x, y = (hxy * gy - hyy * gx) / safe, (hxy * gx - hxx * gy) / safe
    return np.stack([x, y], axis=1), c + (gx * x + gy * y) / 2, convex


def vertex_covariance(fit: Quadratic, variance: float) -> Float[np.ndarray, "2 2"]:
    """Covariance of the vertex by the delta method: -H^-1 (dg + dH z)."""
    table = features(fit.x, fit.y)
    (x, y), (_, _, _, hxx, hyy, hxy) = vertices(fit.coefficients[None])[0][0], fit.coefficients
    moved = np.array([[0, 1, 0, x, 0, y], [0, 0, 1, 0, y, x]])
    jacobian = -np.linalg.solve(np.array([[hxx, hxy], [hxy, hyy]]), moved)
    return jacobian @ np.linalg.pinv(table.T @ table) @ jacobian.T * variance


def cell_surfaces(sweep: Sweep, window: float) -> tuple[list[Quadratic | None], tuple[CellSurface, ...]]:
    """Fits and what they say, for every cell; the variance of the runs is pooled over cells."""
    fits = [fit_cell(sweep, c, window) for c in range(len(sweep.cells))]
    free = sum(fit.free for fit in fits if fit)
    variance = sum(fit.residual for fit in fits if fit) / max(free, 1)
    return fits, tuple(_describe(sweep, c, fit, variance) for c, fit in enumerate(fits))


def _describe(sweep: Sweep, cell: int, fit: Quadratic | None, variance: float) -> CellSurface:
    rows = np.flatnonzero(sweep.cell == cell)
    best = rows[np.argmin(sweep.loss[rows])]
    lr, batch, loss = float(sweep.lr[best]), float(sweep.batch[best]), float(sweep.loss[best])
    convex, inside, covariance, point = False, False, np.full((2, 2), np.nan), (lr, batch, loss)
    if fit is not None and (found := vertices(fit.coefficients[None]))[2][0]:
        z = found[0][0] + fit.centre[:2]
        convex, covariance = True, vertex_covariance(fit, variance)
        inside = _within(z[0], sweep.lr[rows]) and _within(z[1], sweep.batch[rows])
        if inside:
            point = float(np.exp(z[0])), float(np.exp(z[1])), float(np.exp(found[1][0] + fit.centre[2]))
    params, tokens = map(float, sweep.cells[cell])
    count = 0 if fit is None else len(fit.x)
    diverged = int(sweep.diverged[rows].sum())
    return CellSurface(
        params,
        tokens,
        point[0],
        point[1],
        covariance,
        point[2],
        lr,
        batch,
        loss,
        convex,
        inside,
        len(rows),
        diverged,
        count,
    )


def _within(value: float, grid: Float[np.ndarray, "runs"]) -> bool:
    steps = np.unique(np.log(grid))
    margin = float(np.diff(steps).max()) if len(steps) > 1 else 0.0
    return bool(steps[0] - margin <= value <= steps[-1] + margin)
