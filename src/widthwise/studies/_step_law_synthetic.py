"""Synthetic sweeps with a known law: exactness without noise, coverage of the stated intervals with it."""

import itertools

import numpy as np
from jaxtyping import Float

from widthwise.core import derived_seed
from widthwise.scaling import fit_law
from widthwise.studies._findings import Outcome, compare
from widthwise.studies._types import Finding, Scale

SLUG = "step-law"
TRUTH = np.array([0.5, -0.7, 0.3, -0.5, 0.0, 0.57])
CURVATURE = np.array([[0.018, -0.005], [-0.005, 0.014]])
NOISE = 0.002
EXPONENTS = {"lr params": 1, "lr tokens": 2, "batch tokens": 5}
REPEATS = {"quick": 200, "full": 1000}


def synthetic(noise: float, seed: int) -> dict[str, Float[np.ndarray, "runs"]]:
    """3 x 3 cells of 81 pairs on one grid; ln(loss) is a quadratic bowl around the known law, plus normal noise."""
    rng = np.random.default_rng(derived_seed(seed, SLUG, "synthetic"))
    rates, batches = -6.2 + 0.5 * np.arange(-4, 5), 13.0 + 0.5 * np.arange(-4, 5)
    cells = itertools.product((1e8, 4e8, 1.6e9), (4e9, 2e10, 1e11), rates, batches)
    n, d, x, y = np.array(list(cells)).T
    u = np.stack([np.ones_like(n), np.log(n), np.log(d)])
    z = np.stack([x - TRUTH[:3] @ u, y - TRUTH[3:] @ u])
    base = np.log(1.7 + 400 / n**0.34 + 410 / d**0.28)
    logs = base + np.einsum("ik,ij,jk->k", z, CURVATURE, z) / 2 + noise * rng.normal(size=len(n))
    return {"params": n, "tokens": d, "lr": np.exp(x), "batch": np.exp(y), "loss": np.exp(logs)}


def exact(scale: Scale) -> Outcome:
    """Without noise both routes through surfaces return the law."""
    found = fit_law(synthetic(0.0, 0), resamples=20)
    rows, predicted, measured = [], [], []
    for route in ("joint", "surface"):
        for name, k in EXPONENTS.items():
            rows.append(f"{route}, {name}")
            predicted.append(TRUTH[k])
            measured.append(found.routes[route].coefficients[k])
    detail = "3 x 3 cells, 81 pairs each, a quadratic bowl in (ln lr, ln batch)."
    return [compare("recovery", rows, predicted, measured, detail, absolute=1e-6)], {}


def coverage(scale: Scale) -> Outcome:
    """How often the stated 95 % intervals of the joint route hold the truth, and how far each route errs."""
    repeats = REPEATS[scale]
    names, places = list(EXPONENTS), list(EXPONENTS.values())
    inside, errors, plain = np.zeros(3), np.zeros((repeats, 3)), np.zeros((repeats, 3))
    for seed in range(repeats):
        found = fit_law(synthetic(NOISE, seed), resamples=200, seed=seed, routes=("joint", "near-optimal"))
        fit = found.fit
        low, high = np.array(fit.low)[places], np.array(fit.high)[places]
        inside += (low <= TRUTH[places]) & (TRUTH[places] <= high)
        errors[seed] = np.array(fit.coefficients)[places] - TRUTH[places]
        plain[seed] = np.array(found.routes["near-optimal"].coefficients)[places] - TRUTH[places]
    share, spread, other = inside / repeats, np.sqrt((errors**2).mean(0)), np.sqrt((plain**2).mean(0))
    allowed = 2 * (0.95 * 0.05 / repeats) ** 0.5
    detail = f"{repeats} sweeps of 3 x 3 cells of 81 pairs, noise of {NOISE:.1%} on each loss; the joint route."
    error = tuple(float(v) for v in np.sqrt(share * (1 - share) / repeats))
    measured = tuple(float(v) for v in share)
    covered = Finding(
        "coverage", tuple(names), (0.95,) * 3, measured, bool((share >= 0.95 - allowed).all()), detail, error
    )
    better = Finding(
        "joint-beats-near-optimal",
        tuple(f"root mean square error, {name}" for name in names),
        tuple(float(v) for v in other),
        tuple(float(v) for v in spread),
        bool((spread < 0.75 * other).all() and (spread < 0.05).all()),
        f"Predicted: the authors' recipe (runs within 0.25 %); measured: the joint route; {repeats} sweeps.",
    )
    return [covered, better], {}
