"""`fit_law`: a law from a user's own sweep, with intervals, hold-out errors and what is wrong with the sweep."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from widthwise.core import DataError
from widthwise.scaling._laws_fitted import FittedLaw, RouteFit, RouteName, envelope, law_text
from widthwise.scaling._laws_joint import Joint
from widthwise.scaling._laws_routes import NearOptimal, Surfaces
from widthwise.scaling._laws_surface import CellSurface, Quadratic, auto_window, cell_surfaces
from widthwise.scaling._laws_sweep import BatchUnit, Sweep, check_cells, edge_warnings, read_sweep
from widthwise.scaling._laws_types import Bowl, Domain, Interval, Law, Run

AnyRoute = Joint | Surfaces | NearOptimal
ENOUGH_GROUPS = 5


def fit_law(
    sweep: Any,
    *,
    route: RouteName = "joint",
    batch_unit: BatchUnit = "tokens",
    sequence_length: int | None = None,
    batch_on_params: bool = False,
    threshold: float = 0.0025,
    window: float | None = None,
    robust: bool = True,
    resamples: int = 1000,
    seed: int = 0,
    diverged: float = 1.5,
    routes: Sequence[RouteName] = ("joint", "surface", "near-optimal"),
) -> FittedLaw:
    """Fit ln lr* and ln batch* as linear functions of ln params and ln tokens (arXiv:2503.04715, eq. 1).

    Args:
        sweep: table of runs, with columns params (or N), tokens (or D), lr, batch (or bs) and loss: list of dicts, dict
            of columns, data frame, Arrow table, or path of a .csv, .tsv or .parquet file; rows with the same setting
            are seeds.
        route: whose law is used: ``"joint"`` (one bowl for all cells, uses most runs), ``"surface"`` (weighted
            regression on each cell's optimum) or ``"near-optimal"`` (the paper's recipe).
        batch_unit, sequence_length: unit of the batch column.
        batch_on_params: whether the batch may depend on params (in the paper it does not).
        threshold: relative loss below which a run counts as near optimal.
        window: relative loss above each cell's best within which surfaces are quadratic; None: the least that holds a
            dozen runs in most cells.
        robust: Huber weights.
        resamples: weightings of runs, and of cells, for intervals (Bayesian bootstrap: exponential weights).
        diverged: a loss above this multiple of the cell's least is no loss but "at least so bad".
        routes: which routes to run.

    Raises:
        DataError: the table cannot be used, has too few cells, or the chosen route fails on it.

    >>> import itertools, math
    >>> def loss(n, d, lr, batch):
    ...     x, y = math.log(lr * n**0.7 / d**0.3), math.log(batch / d**0.5)
    ...     return 2 * math.exp(0.02 * x * x + 0.01 * y * y - 0.015 * x * y)
    >>> grid = itertools.product([1e6, 4e6], [1e8, 4e8], [2e-3, 4e-3, 8e-3, 2e-2, 4e-2], [3e3, 6e3, 1.2e4, 2.4e4])
    >>> table = [dict(params=n, tokens=d, lr=lr, batch=b, loss=loss(n, d, lr, b)) for n, d, lr, b in grid]
    >>> found = fit_law(table, resamples=50)
    >>> [round(found.exponents[name][0], 4) for name in ("lr params", "lr tokens", "batch tokens")]
    [-0.7, 0.3, 0.5]
    """
    if route not in routes:
        raise DataError(f"route={route!r} is not among routes={tuple(routes)}; give one of them.")
    if resamples < 20:
        raise DataError(f"resamples={resamples} gives no interval; give at least 20.")
    table = read_sweep(sweep, batch_unit=batch_unit, sequence_length=sequence_length, diverged=diverged)
    check_cells(table)
    width = auto_window(table) if window is None else float(np.log1p(window))
    quadratics, cells = cell_surfaces(table, width)
    engines, failed = _engines(table, routes, width, threshold, batch_on_params, robust)
    if route in failed:
        raise DataError(failed[route])
    fits = {name: _route_fit(name, engine, table, quadratics, resamples, seed) for name, engine in engines.items()}
    joint = engines.get("joint")
    bowl = joint.bowl() if isinstance(joint, Joint) else None
    return FittedLaw(
        _law(fits[route], table, bowl),
        route,
        fits,
        failed,
        bowl,
        cells,
        float(np.expm1(width)),
        len(table),
        int(table.diverged.sum()),
        table.seed_noise,
        _warnings(table, cells, quadratics, engines),
    )


def _engines(
    sweep: Sweep, routes: Sequence[RouteName], window: float, threshold: float, batch_on_params: bool, robust: bool
) -> tuple[dict[RouteName, AnyRoute], dict[RouteName, str]]:
    engines: dict[RouteName, AnyRoute] = {}
    failed: dict[RouteName, str] = {}
    for name in routes:
        try:
            if name == "joint":
                engines[name] = Joint.of(sweep, window, batch_on_params, robust)
            elif name == "surface":
                engines[name] = Surfaces.of(sweep, window, batch_on_params, robust)
            elif name == "near-optimal":
                engines[name] = NearOptimal.of(sweep, threshold, batch_on_params, robust=False)
            else:
                raise DataError(f"route {name!r} is not known; give joint, surface or near-optimal.")
        except DataError as error:
            failed[name] = str(error)
    return engines, failed


def _route_fit(
    name: RouteName, engine: AnyRoute, sweep: Sweep, surfaces: Sequence[Quadratic | None], resamples: int, seed: int
) -> RouteFit:
    runs, cells = len(sweep), len(sweep.cells)
    rng = np.random.default_rng(seed)
    point = engine.estimate(np.ones((1, runs)), np.ones((1, cells)))[0]
    moved = 1 + (rng.exponential(size=(resamples, runs)) - 1) * engine.sway(runs)
    by_run = engine.estimate(moved, np.ones((1, cells)))
    by_cell = engine.estimate(np.ones((1, runs)), rng.exponential(size=(resamples, cells)))
    by_cell = point + (by_cell - point) * (cells / (cells - 3)) ** 0.5  # three coefficients absorb their share
    ends = envelope([by_run, by_cell])
    without = engine.estimate(np.ones((1, runs)), 1.0 - np.eye(cells))
    rows = _cell_rows(sweep)
    said = np.stack([np.einsum("ci,ci->c", rows[k], without) for k in (0, 1)], axis=1)
    excess = tuple(
        float(np.expm1(fit.excess(float(x), float(y)))) if fit is not None and _is_bowl(fit) else float("nan")
        for fit, (x, y) in zip(surfaces, said, strict=True)
    )
    near = tuple(nearest_excess(sweep, c, float(x), float(y)) for c, (x, y) in enumerate(said))
    return RouteFit(
        name, tuple(map(float, point)), tuple(map(float, ends[:, 0])), tuple(map(float, ends[:, 1])),
        by_run, by_cell, excess, near,
    )  # fmt: skip


def nearest_excess(sweep: Sweep, cell: int, ln_lr: float, ln_batch: float) -> float:
    """Relative loss above the cell's best of the run nearest to a point, in logarithms; infinite if it diverged."""
    rows = np.flatnonzero(sweep.cell == cell)
    distance = np.square(np.log(sweep.lr[rows]) - ln_lr) + np.square(np.log(sweep.batch[rows]) - ln_batch)
    return float(np.expm1(sweep.log_excess()[rows[np.argmin(distance)]]))


def _cell_rows(sweep: Sweep) -> Float[np.ndarray, "2 cells 6"]:
    base = np.column_stack([np.ones(len(sweep.cells)), np.log(sweep.cells)])
    zero = np.zeros_like(base)
    return np.stack([np.concatenate([base, zero], axis=1), np.concatenate([zero, base], axis=1)])


def _is_bowl(fit: Quadratic) -> bool:
    a, b, c = fit.coefficients[3:]
    return bool(a > 0 and a * b > c * c)


def _warnings(
    sweep: Sweep,
    cells: Sequence[CellSurface],
    surfaces: Sequence[Quadratic | None],
    engines: dict[RouteName, AnyRoute],
) -> tuple[str, ...]:
    found = list(edge_warnings(sweep))
    for cell in cells:
        place = f"{cell.params:.4g} params, {cell.tokens:.4g} tokens"
        if not cell.convex:
            found.append(f"{place}: no bowl ({cell.fitted} runs fitted); left out of the surface route")
        elif not cell.inside:
            found.append(f"{place}: the surface's optimum lies beyond the grid; left out of the surface route")
    if sweep.diverged.any():
        found.append(f"{int(sweep.diverged.sum())} runs diverged; each counts only as being at least so bad")
    within = sum(int(sweep.diverged[fit.rows.astype(int)].sum()) for fit in surfaces if fit is not None)
    if within:
        found.append(f"{within} diverged runs lie where a surface expects a low loss: the edge of stability is near")
    if len(cells) < ENOUGH_GROUPS + 4:
        found.append(f"{len(cells)} cells: intervals by resampling cells are rough")
    steps = [np.diff(np.unique(np.log(sweep.lr[sweep.cell == c]))) for c in range(len(cells))]
    if any(len(step) and np.median(step) > 0.5 for step in steps):
        found.append("learning rates step by more than sqrt 2 in some cells, which quantises near-optimal runs")
    return tuple(found)


def _law(fit: RouteFit, sweep: Sweep, bowl: Bowl | None) -> Law:
    a = fit.coefficients
    ratio = sweep.tokens / sweep.params

    def rows(run: Run) -> Float[np.ndarray, "2 6"]:
        u = [1.0, np.log(run.params), np.log(run.tokens)]
        return np.array([u + [0.0] * 3, [0.0] * 3 + u])

    def intervals(run: Run) -> tuple[Interval, Interval]:
        (lr_low, lr_high), (low, high) = np.exp(fit.interval(rows(run)))
        return (float(lr_low), float(lr_high)), (float(low), float(high))

    def rule(k: int, run: Run) -> float:
        return float(np.exp(rows(run)[k] @ np.array(a)))

    return Law(
        f"fitted ({fit.route})",
        "this sweep",
        law_text(a),
        f"{len(sweep)} runs, {len(sweep.cells)} cells, route {fit.route}",
        Domain(_range(sweep.params), _range(sweep.tokens), _range(ratio)),
        lambda run: rule(0, run),
        lambda run: rule(1, run),
        intervals,
        bowl,
    )


def _range(values: Float[np.ndarray, "runs"]) -> Interval:
    return float(values.min()), float(values.max())
