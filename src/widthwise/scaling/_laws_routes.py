"""Three routes from a sweep to a law: near-optimal runs, optima of surfaces, one joint bowl for every cell.

Each estimates ln lr* = a0 + aN n + aD d and ln batch* = b0 + bN n + bD d for many weightings of runs and cells at once,
so that bootstraps and hold-outs are one call. n, d and the logarithms of lr and batch are centred inside.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from widthwise.core import DataError
from widthwise.scaling._laws_surface import Quadratic, cell_surfaces, features, nearest, vertices
from widthwise.scaling._laws_sweep import Sweep
from widthwise.scaling._laws_types import Bowl

RunWeights = Float[np.ndarray, "#resamples runs"]
CellWeights = Float[np.ndarray, "#resamples cells"]
Coefficients = Float[np.ndarray, "_ 6"]
Design = Float[np.ndarray, "rows 3"]


def lines(
    design: Design, values: Float[np.ndarray, "resamples rows"], weights: Float[np.ndarray, "resamples rows"]
) -> Float[np.ndarray, "_ 3"]:
    """Weighted least squares for many weightings; a column of zeros in the design keeps its coefficient at zero."""
    gram = np.einsum("rk,ki,kj->rij", weights, design, design, optimize=True)
    right = np.einsum("rk,rk,ki->ri", weights, values, design, optimize=True)
    return solve_many(gram, right, 1e-10)


def solve_many(
    grams: Float[np.ndarray, "many k k"], right: Float[np.ndarray, "many k"], cutoff: float
) -> Float[np.ndarray, "many k"]:
    """Solutions of many symmetric systems; the least ones where some are singular (pinv is ten times slower)."""
    diagonal = np.einsum("mii->mi", grams)
    scale = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    scaled, target = grams / scale[:, :, None] / scale[:, None, :], right / scale
    try:
        if np.linalg.cond(scaled[:1]).max() < 1 / cutoff:
            found = np.linalg.solve(scaled, target[..., None])[..., 0]
            if np.isfinite(found).all():
                return found / scale
    except np.linalg.LinAlgError:
        pass
    return np.einsum("mij,mj->mi", np.linalg.pinv(scaled, rcond=cutoff, hermitian=True), target) / scale


def huber(residuals: Float[np.ndarray, "rows"], scale: float, cut: float = 2.0) -> Float[np.ndarray, "rows"]:
    """Weights of the Huber loss; `cut` in units of `scale`."""
    return np.minimum(1.0, cut * max(scale, 1e-12) / np.maximum(np.abs(residuals), 1e-300))


def spread_of(residuals: Float[np.ndarray, "rows"]) -> float:
    """Standard deviation of a normal distribution with the same median absolute value."""
    return float(1.4826 * np.median(np.abs(residuals)))


def sway(
    runs: int,
    rows: Int[np.ndarray, "rows"],
    leverage: Float[np.ndarray, "rows"],
    robust: Float[np.ndarray, "rows"],
) -> Float[np.ndarray, "runs"]:
    """By how much to reweight each run around one, so that a bootstrap has the spread of independent errors.

    1 / (1 - leverage) makes up for the errors that a fit absorbs (the jackknife's correction); the robust weights are
    held fixed in resamples, which understates their own motion by the mean weight over the share of full weights.
    """
    out = np.ones(runs)
    held = float(robust.mean() / max((robust >= 1).mean(), 0.5))
    out[rows] = held / np.maximum(1 - leverage, 0.2)
    return out


def leverages(table: Float[np.ndarray, "rows k"], weights: Float[np.ndarray, "rows"]) -> Float[np.ndarray, "rows"]:
    """Diagonal of the hat matrix of weighted least squares."""
    gram = table.T @ (table * weights[:, None])
    return weights * np.einsum("ri,ij,rj->r", table, np.linalg.pinv(gram, rcond=1e-12, hermitian=True), table)


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


@dataclass(frozen=True, eq=False)
class Joint:
    """One bowl for all cells: ln L = base(cell) + z^T H z / 2 - z^T H A (1, n, d), with z = (ln lr, ln batch).

    Linear in the base of each cell, H and H A, so that one least-squares problem uses every run near an optimum.
    """

    frame: Centred
    rows: Int[np.ndarray, "kept"]
    cell: Int[np.ndarray, "kept"]
    table: Float[np.ndarray, "kept 10"]
    robust: Float[np.ndarray, "kept"]
    restriction: Float[np.ndarray, "6"]
    window: float

    @classmethod
    def of(cls, sweep: Sweep, window: float, batch_on_params: bool, robust: bool) -> "Joint":
        """Choose the runs (by their loss, then by the fitted one) and their robust weights.

        Raises:
            DataError: the common curvature is not that of a bowl.
        """
        frame, excess = Centred.of(sweep), sweep.log_excess()
        table = joint_features(frame, sweep.cell)
        target = np.where(np.isfinite(excess), excess, window)
        chosen = np.concatenate([nearest(excess[sweep.cell == c], window) for c in range(len(sweep.cells))])
        none = np.zeros(6)
        for _ in range(4):
            rows = np.flatnonzero(chosen)
            data = np.column_stack([table[rows], target[rows]])
            route = cls(frame, rows, sweep.cell[rows], data, np.ones(len(rows)), none, window)
            solution, error = route._polished(robust)
            bowl, optima = _bowl_and_optima(solution[None])
            if not bowl[0].convex:
                raise DataError(
                    "the runs near the optima do not form a bowl in (ln lr, ln batch); "
                    "widen the grids, or give a larger window=."
                )
            centre = optima.reshape(2, 3) @ frame.design[sweep.cell].T
            reach = _quadratic(bowl[0], frame.x - centre[0], frame.y - centre[1])
            chosen, before = (
                np.concatenate([nearest(reach[sweep.cell == c], window) for c in range(len(sweep.cells))]),
                chosen,
            )
            if (chosen == before).all():
                break
        weights = huber(error, spread_of(error)) if robust else np.ones(len(error))
        route = cls(frame, rows, sweep.cell[rows], data, weights, none, window)
        return route if batch_on_params else route._without_params(len(sweep))

    def _polished(self, robust: bool) -> tuple[Float[np.ndarray, "9"], Float[np.ndarray, "kept"]]:
        weights = np.ones((1, len(self.rows)))
        for _ in range(5):
            solution = self._solve(weights)[0]
            error = self.table[:, 9] - self.table[:, :9] @ solution
            base = np.bincount(self.cell, weights[0] * error) / np.maximum(np.bincount(self.cell, weights[0]), 1e-300)
            error = error - base[self.cell]
            if not robust:
                break
            weights = huber(error, spread_of(error))[None]
        return solution, error

    def sway(self, runs: int) -> Float[np.ndarray, "runs"]:
        """See `sway`."""
        cells = np.unique(self.cell)
        bases = (self.cell[:, None] == cells).astype(float)
        leverage = leverages(np.concatenate([self.table[:, :9], bases], axis=1), self.robust)
        return sway(runs, self.rows, leverage, self.robust)

    def _solve(self, weights: Float[np.ndarray, "resamples kept"]) -> Float[np.ndarray, "resamples 9"]:
        outer = np.einsum("ki,kj->kij", self.table, self.table).reshape(len(self.table), 100)
        gram = (weights @ outer).reshape(-1, 10, 10)
        for c in np.unique(self.cell):  # takes out each cell's own base
            mine = weights[:, self.cell == c]
            total = mine.sum(1)
            sums = mine @ self.table[self.cell == c]
            scale = 1 / np.maximum(total, 1e-300)
            gram -= (sums * scale[:, None])[:, :, None] * sums[:, None, :]
        return solve_many(gram[:, :9, :9], gram[:, :9, 9], 1e-13)

    def _without_params(self, runs: int) -> "Joint":
        """Hold the batch's exponent of params at zero: the estimate moves along its covariance to that plane."""
        free = len(self.rows) - 9 - len(np.unique(self.cell))
        cells = int(self.cell.max()) + 1
        rng = np.random.default_rng(0)
        cloud = self._centred(rng.exponential(size=(200 if free else 1, runs)), np.ones((1, cells)))
        covariance = np.cov(cloud.T) if len(cloud) > 1 else np.eye(6)
        shift = covariance[:, 4] / covariance[4, 4] if covariance[4, 4] > 0 else np.eye(6)[4]
        return Joint(self.frame, self.rows, self.cell, self.table, self.robust, shift, self.window)

    def _centred(self, runs: RunWeights, cells: CellWeights) -> Coefficients:
        weights = runs[:, self.rows] * cells[:, self.cell] * self.robust
        _, optima = _bowl_and_optima(self._solve(weights))
        return optima - optima[:, 4:5] * self.restriction

    def estimate(self, runs: RunWeights, cells: CellWeights) -> Coefficients:
        """Raw coefficients for each weighting."""
        return self.frame.raw(self._centred(runs, cells))

    def bowl(self) -> Bowl:
        """The common curvature."""
        return _bowl_and_optima(self._solve(self.robust[None]))[0][0]


def joint_features(frame: Centred, cell: Int[np.ndarray, "runs"]) -> Float[np.ndarray, "runs 9"]:
    """x^2/2, y^2/2, x y, then -x and -y times (1, n, d)."""
    x, y, u = frame.x[:, None], frame.y[:, None], frame.design[cell]
    return np.concatenate([x * x / 2, y * y / 2, x * y, -x * u, -y * u], axis=1)


def _bowl_and_optima(solutions: Float[np.ndarray, "resamples 9"]) -> tuple[list[Bowl], Coefficients]:
    hx, hy, hxy = solutions[:, :3].T
    curvature = np.stack([np.stack([hx, hxy], 1), np.stack([hxy, hy], 1)], 1)
    optima = np.linalg.solve(curvature, solutions[:, 3:].reshape(-1, 2, 3))
    return [Bowl(float(a), float(b), float(c)) for a, b, c in zip(hx, hy, hxy, strict=True)], optima.reshape(-1, 6)


def _quadratic(bowl: Bowl, x: Float[np.ndarray, "runs"], y: Float[np.ndarray, "runs"]) -> Float[np.ndarray, "runs"]:
    return (bowl.lr * x * x + 2 * bowl.cross * x * y + bowl.batch * y * y) / 2


def reduced(design: Design, batch_on_params: bool) -> Design:
    """The design of the batch: without params unless asked for."""
    return design if batch_on_params else design * np.array([1.0, 0.0, 1.0])
