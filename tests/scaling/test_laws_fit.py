"""Fitting laws: recovery of known laws, linear algebra against other routes, and what is refused or said."""

import itertools

import numpy as np
import pytest

from widthwise.core import DataError
from widthwise.scaling import _laws_loss as loss_module
from widthwise.scaling import fit_law, fit_loss_law
from widthwise.scaling._laws_robust import lines
from widthwise.scaling._laws_routes import NearOptimal
from widthwise.scaling._laws_surface import Quadratic, features, fit_cell, vertex_covariance, vertices
from widthwise.scaling._laws_sweep import read_sweep

LR, BATCH = (0.5, -0.7, 0.3), (-0.5, 0.57)
CURVATURE = np.array([[0.018, -0.005], [-0.005, 0.014]])
SIZES, BUDGETS = (1e8, 4e8, 1.6e9), (4e9, 2e10, 1e11)


def sweep(noise: float = 0.0, seed: int = 0, sizes=SIZES, budgets=BUDGETS, seeds: int = 1, lr=LR) -> dict:
    """A log-quadratic bowl in every cell, on a fixed grid of 9 x 9 pairs around the middle cell's optimum."""
    rng = np.random.default_rng(seed)
    rows = []
    for n, d in itertools.product(sizes, budgets):
        x0, y0 = lr[0] + lr[1] * np.log(n) + lr[2] * np.log(d), BATCH[0] + BATCH[1] * np.log(d)
        base = np.log(1.7 + 400 / n**0.34 + 410 / d**0.28)
        for x, y in itertools.product(-6.2 + 0.5 * np.arange(-4, 5), 13.0 + 0.5 * np.arange(-4, 5)):
            z = np.array([x - x0, y - y0])
            for _ in range(seeds):
                rows.append((n, d, np.exp(x), np.exp(y), np.exp(base + z @ CURVATURE @ z / 2 + noise * rng.normal())))
    return dict(zip(("params", "tokens", "lr", "batch", "loss"), np.array(rows).T, strict=True))


def truth() -> np.ndarray:
    return np.array([*LR, BATCH[0], 0.0, BATCH[1]])


@pytest.mark.parametrize("route", ["joint", "surface"])
@pytest.mark.parametrize("robust", [True, False])
def test_exact_without_noise(route, robust):
    found = fit_law(sweep(), route=route, robust=robust, resamples=20)
    assert np.array(found.fit.coefficients) == pytest.approx(truth(), abs=1e-6)
    assert found.bowl.lr == pytest.approx(0.018, rel=1e-6) and found.bowl.cross == pytest.approx(-0.005, rel=1e-6)
    assert max(found.fit.held_out) < 1e-9


def test_noise_moves_exponents_little():
    """Loss noise of 0.2 %: exponents within 0.05 for nine cells of 81 pairs, by both routes."""
    for seed in range(5):
        found = fit_law(sweep(0.002, seed), resamples=50)
        for route in ("joint", "surface"):
            error = np.array(found.routes[route].coefficients) - truth()
            assert np.abs(error[[1, 2, 5]]).max() < 0.05


def test_intervals_cover():
    """Both ends, over 25 draws of the noise: at least 20 for each exponent (a 95 % interval fails 1 in 800)."""
    inside = np.zeros(6)
    for seed in range(25):
        fit = fit_law(sweep(0.002, seed), resamples=200, routes=("joint",)).fit
        inside += (np.array(fit.low) <= truth()) & (truth() <= np.array(fit.high))
    assert inside[[1, 2, 5]].min() >= 20


def test_lines_against_lstsq():
    rng = np.random.default_rng(1)
    design, values = np.column_stack([np.ones(20), rng.normal(size=(20, 2))]), rng.normal(size=(4, 20))
    weights = rng.exponential(size=(4, 20))
    for got, v, w in zip(lines(design, values, weights), values, weights, strict=True):
        root = np.sqrt(w)
        assert got == pytest.approx(np.linalg.lstsq(design * root[:, None], v * root, rcond=None)[0])


def test_near_optimal_route_is_least_squares():
    table = read_sweep(sweep(0.002))
    route = NearOptimal.of(table, 0.01, True, robust=False)
    got = route.estimate(np.ones((1, len(table))), np.ones((1, len(table.cells))))[0]
    rows = np.flatnonzero(table.loss < 1.01 * np.array([table.loss[table.cell == c].min() for c in table.cell]))
    design = np.column_stack([np.ones(len(rows)), np.log(table.params[rows]), np.log(table.tokens[rows])])
    assert got[:3] == pytest.approx(np.linalg.lstsq(design, np.log(table.lr[rows]), rcond=None)[0], rel=1e-6)
    assert got[3:] == pytest.approx(
        np.linalg.lstsq(design, np.log(table.batch[rows]), rcond=None)[0], rel=1e-6, abs=1e-8
    )


def test_bootstrap_spread_of_runs_is_that_of_least_squares():
    """Standard deviations of reweighted runs against the analytic ones; errors here are nearly independent normals."""
    rng = np.random.default_rng(2)
    design = np.column_stack([np.ones(400), rng.normal(size=(400, 2))])
    values = design @ np.array([1.0, -0.7, 0.3]) + 0.3 * rng.normal(size=400)
    cloud = lines(design, np.broadcast_to(values, (2000, 400)), rng.exponential(size=(2000, 400)))
    analytic = 0.3 * np.sqrt(np.diag(np.linalg.inv(design.T @ design)))
    assert cloud.std(0) == pytest.approx(analytic, rel=0.12)


def test_vertex_covariance_by_simulation():
    rng = np.random.default_rng(3)
    x, y = (v.ravel() for v in np.meshgrid(np.linspace(-1, 1, 7), np.linspace(-1, 1, 7)))
    clean = features(x, y) @ np.array([0.0, 0.002, -0.001, 0.02, 0.015, -0.004])
    noisy = clean + 3e-4 * rng.normal(size=(4000, 49))
    found = np.linalg.lstsq(features(x, y), noisy.T, rcond=None)[0].T
    exact = np.linalg.lstsq(features(x, y), clean, rcond=None)[0]
    fit = Quadratic(x, y, clean, np.arange(49.0), np.zeros(3), exact, 0.0, 43)
    assert np.cov(vertices(found)[0].T) == pytest.approx(vertex_covariance(fit, 9e-8), rel=0.1)


def test_a_saturated_joint_fit_is_the_per_cell_fit():
    """Identical cells but for a shift that a law fits exactly: the joint optimum is each cell's own."""
    table = read_sweep(sweep(sizes=(1e8, 4e8), budgets=(4e9, 2e10)))
    found = fit_law(sweep(sizes=(1e8, 4e8), budgets=(4e9, 2e10)), resamples=20, batch_on_params=True)
    a = np.array(found.fit.coefficients).reshape(2, 3)
    for c, (n, d) in enumerate(table.cells):
        fit = fit_cell(table, c, 0.02)
        own = vertices(fit.coefficients[None])[0][0] + fit.centre[:2]
        assert a @ [1, np.log(n), np.log(d)] == pytest.approx(own, abs=1e-6)


def test_exponents_do_not_depend_on_units():
    """Tokens in other units move intercepts alone."""
    table = sweep(0.002)
    other = {**table, "tokens": table["tokens"] * 1e3, "batch": table["batch"] * 1e3}
    one, two = (fit_law(t, resamples=20, seed=4).fit.coefficients for t in (table, other))
    assert np.array(one)[[1, 2, 4, 5]] == pytest.approx(np.array(two)[[1, 2, 4, 5]], abs=1e-6)


def test_diverged_runs_are_kept_as_bounds():
    table = sweep(0.001)
    worst = table["loss"] > 1.05 * table["loss"].min()
    high = table["lr"] == table["lr"].max()
    table["loss"] = np.where(high, np.nan, table["loss"])
    found = fit_law(table, resamples=20)
    assert found.diverged == high.sum() and worst.any()
    assert any(f"{high.sum()} runs diverged" in warning for warning in found.warnings)
    assert np.array(found.fit.coefficients)[[1, 2, 5]] == pytest.approx(truth()[[1, 2, 5]], abs=0.05)


def test_an_optimum_at_the_edge_is_said():
    table = sweep(lr=(2.4, -0.7, 0.3))  # optimum 7 times higher: beyond the grid for small sizes
    found = fit_law(table, resamples=20)
    assert any("highest learning rate" in warning for warning in found.warnings)
    assert any(not cell.usable for cell in found.cells)


def test_a_saddle_is_refused_by_name():
    table = sweep()
    x, y = np.log(table["lr"]) + 6.2, np.log(table["batch"]) - 13.0
    table["loss"] = np.exp(0.5 + 0.02 * x * y)
    with pytest.raises(DataError, match="do not form a bowl"):
        fit_law(table, resamples=20)
    with pytest.raises(DataError, match="cells have a bowl"):
        fit_law(table, route="surface", resamples=20)


def test_seed_noise():
    found = fit_law(sweep(0.003, seeds=2), resamples=20, routes=("joint",))
    assert found.seed_noise == pytest.approx(0.003, rel=0.15)  # 729 degrees of freedom: s.e. 2.6 %


def test_predictions_and_their_intervals():
    found = fit_law(sweep(0.002), resamples=100)
    advice = found.predict(4e8, 2e10)
    a = np.array(found.fit.coefficients).reshape(2, 3) @ [1, np.log(4e8), np.log(2e10)]
    assert (advice.lr, advice.batch_tokens) == pytest.approx(tuple(np.exp(a)))
    assert advice.lr_interval[0] < advice.lr < advice.lr_interval[1]
    near, far = advice.lr_interval, found.predict(1e11, 1e13).lr_interval
    assert far[1] / far[0] > near[1] / near[0] and "joint" in str(found)


def test_files_units_and_frames(tmp_path):
    pandas = pytest.importorskip("pandas")
    table = sweep(0.001)
    frame = pandas.DataFrame(table)
    frame.to_csv(tmp_path / "runs.csv", index=False)
    frame.to_parquet(tmp_path / "runs.parquet")
    sequences = frame.assign(batch=frame.batch / 2048).rename(columns={"params": "N", "tokens": "D", "batch": "bs"})
    want = fit_law(table, resamples=20).fit.coefficients
    for given in (frame, tmp_path / "runs.csv", str(tmp_path / "runs.parquet"), frame.to_dict("records")):
        assert fit_law(given, resamples=20).fit.coefficients == pytest.approx(want, rel=1e-9)
    got = fit_law(sequences, batch_unit="sequences", sequence_length=2048, resamples=20).fit.coefficients
    assert got == pytest.approx(want, rel=1e-6)


def refused(change: dict) -> dict:
    return {**sweep(), **change}


@pytest.mark.parametrize(
    "table, message",
    [
        ({"params": [1e8]}, "no column tokens, lr, batch, loss"),
        (refused({"lr": sweep()["lr"] * -1}), "lr of run 0"),
        (refused({"params": sweep()["params"] / 1e9}), "raw count"),
        (refused({"batch": sweep()["tokens"] * 2}), "batch of"),
        (refused({"loss": sweep()["loss"] - 10}), "no logarithm"),
        (refused({"loss": ["high"] * 729}), "must hold numbers"),
        (refused({"loss": [np.nan] * 729}), "every run of"),
        (refused({"loss": [1.0]}), "unequal length"),
        (sweep(sizes=(1e8,)), "3 cells"),
        (sweep(sizes=(1e8, 2e8, 4e8, 8e8), budgets=(4e9,)), "one line"),
        (3, "cannot be read from int"),
        ("runs.xlsx", "no table that can be read"),
        ("runs.csv", "missing, torn"),
    ],
)
def test_what_is_refused(table, message: str):
    with pytest.raises(DataError, match=message):
        fit_law(table, resamples=20)


def test_arguments_are_checked():
    with pytest.raises(DataError, match="at least 20"):
        fit_law(sweep(), resamples=3)
    with pytest.raises(DataError, match="not among"):
        fit_law(sweep(), route="surface", routes=("joint",))
    with pytest.raises(DataError, match="need their length"):
        fit_law(sweep(), batch_unit="sequences")


def cells() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n, d = (v.ravel() for v in np.meshgrid([1e7, 1e8, 1e9, 1e10], [1e9, 1e10, 1e11, 1e12]))
    return n, d, 1.69 + 406.4 / n**0.34 + 410.7 / d**0.28


def test_loss_law_is_recovered():
    n, d, losses = cells()
    found = fit_loss_law(n, d, losses, resamples=20)
    assert found.coefficients[3:] == pytest.approx((0.34, 0.28), abs=2e-3)
    assert found.irreducible == pytest.approx(1.69, abs=5e-3)
    assert found.predict(1e11, 1e13) == pytest.approx(1.69 + 406.4 / 1e11**0.34 + 410.7 / 1e13**0.28, rel=1e-3)


def test_loss_law_resists_an_outlier():
    n, d, losses = cells()
    losses[5] *= 1.1
    found = fit_loss_law(n, d, losses, resamples=20)
    assert found.coefficients[3:] == pytest.approx((0.34, 0.28), abs=0.02)


def test_loss_law_gradient():
    n, d, losses = cells()
    n, d, theta, weights = np.log(n), np.log(d), np.array([0.4, 6.1, 5.9, 0.35, 0.27]), np.linspace(0.5, 2, 16)
    for delta in (1e-3, 1.0):
        _, gradient = loss_module.huber_objective(theta, n, d, np.log(losses), weights, delta)
        for i in range(5):
            step = 1e-6 * np.eye(5)[i]
            up, down = (
                loss_module.huber_objective(theta + s, n, d, np.log(losses), weights, delta)[0] for s in (step, -step)
            )
            assert gradient[i] == pytest.approx((up - down) / 2e-6, rel=1e-4, abs=1e-4 * np.abs(gradient).max())


def test_loss_law_interval_and_refusals():
    n, d, losses = cells()
    noisy = losses * np.exp(0.003 * np.random.default_rng(0).normal(size=16))
    found = fit_loss_law(n, d, noisy, resamples=60)
    low, high = found.interval(1e11, 1e13)
    assert low < found.predict(1e11, 1e13) < high
    assert all(a <= m <= b for a, m, b in zip(found.cloud.min(0), found.mode, found.cloud.max(0), strict=True))
    with pytest.raises(DataError, match="five coefficients"):
        fit_loss_law(n[:5], d[:5], losses[:5])
    with pytest.raises(DataError, match="positive"):
        fit_loss_law(n, d, -losses)
