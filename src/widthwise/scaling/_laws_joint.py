"""The joint route: one bowl in learning rate and batch for the runs of every cell."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from widthwise.core import DataError
from widthwise.scaling._laws_robust import (
    CellWeights,
    Coefficients,
    RunWeights,
    huber,
    leverages,
    solve_many,
    spread_of,
    sway,
)
from widthwise.scaling._laws_routes import Centred
from widthwise.scaling._laws_surface import nearest
from widthwise.scaling._laws_sweep import Sweep
from widthwise.scaling._laws_types import Bowl


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
