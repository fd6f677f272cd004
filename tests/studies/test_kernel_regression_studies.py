"""The two studies of kernel and random-feature regression: run in part, run whole, and run on broken formulas."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from widthwise import studies
from widthwise.core import DataError
from widthwise.studies import (
    _cost_of_overfitting_krr_data,
    _more_is_better_rf_data,
    _real_task,
    cost_of_overfitting_krr,
    more_is_better_rf,
)
from widthwise.studies._findings import Outcome, compare

STUDIES = ("more-is-better-rf", "cost-of-overfitting-krr")


def verdicts(outcome: Outcome) -> dict[str, bool]:
    return {finding.claim: finding.holds for finding in outcome[0]}


@pytest.mark.parametrize(
    "experiment",
    [
        more_is_better_rf.stored_results,
        more_is_better_rf.power_laws,
        cost_of_overfitting_krr.agnostic_bound,
        _cost_of_overfitting_krr_data.domains,
    ],
    ids=lambda experiment: experiment.__name__,
)
def test_quick_experiments_hold(monkeypatch: pytest.MonkeyPatch, experiment: Callable) -> None:
    monkeypatch.setitem(cost_of_overfitting_krr.RANDOM_SPECTRA, "quick", 10)
    assert all(verdicts(experiment("quick")).values())


def _scaled(function: Callable, **factors: float) -> Callable:
    def broken(*args, **kwargs):
        found = function(*args, **kwargs)
        return replace(found, **{name: getattr(found, name) * factor for name, factor in factors.items()})

    return broken


@pytest.mark.parametrize("part", ["test", "train"])
def test_a_wrong_error_is_found_against_the_stored_one(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    monkeypatch.setattr(more_is_better_rf, "risk", _scaled(more_is_better_rf.risk, **{part: 1.001}))
    assert not verdicts(more_is_better_rf.stored_results("quick"))["stored-theory"]


def test_a_wrong_closed_form_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_root(ratio, alpha, beta, noise=0.0):
        return ((1 - ratio) ** (1 - beta) + alpha * noise) / ((1 + (alpha - 1) * ratio) * (1 + alpha * noise))

    monkeypatch.setattr(more_is_better_rf, "power_law_risk_ratio", without_root)
    monkeypatch.setattr(more_is_better_rf, "optimal_fitting_ratio", lambda alpha, beta, noise: 0.0)
    found = verdicts(more_is_better_rf.power_laws("quick"))
    assert found == {"power-law-risk": False, "noise-error": True, "noise-threshold": False}


def test_an_error_that_rises_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = more_is_better_rf.risk

    def untuned(spectrum, n, ridge=0.0, width=None, noise=0.0):
        return right(spectrum, n, 1e-4 if ridge == "optimal" else ridge, width, noise)

    monkeypatch.setattr(more_is_better_rf, "risk", untuned)
    monkeypatch.setattr(more_is_better_rf, "gaussian_simulation", _silent)
    assert not verdicts(more_is_better_rf.more_is_better("quick"))["more-is-better"]


def _silent(spectrum, n, ridge=0.0, width=None, *, trials=50, seed=0):
    """No simulation: the theory in its place, so that only the monotonicity can fail."""
    theory = more_is_better_rf.risk(spectrum, n, ridge, width)

    class Drawn:
        test, test_stderr, train, train_stderr = float(theory.test), 0.0, float(theory.train), 0.0

    return Drawn


def test_a_cost_above_the_bound_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cost_of_overfitting_krr.RANDOM_SPECTRA, "quick", 10)
    monkeypatch.setattr(cost_of_overfitting_krr, "overfitting", _scaled(cost_of_overfitting_krr.overfitting, cost=1.05))
    assert not verdicts(cost_of_overfitting_krr.agnostic_bound("quick"))["agnostic-bound"]


def test_a_wrong_variance_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = cost_of_overfitting_krr.learned_coefficients
    assert cost_of_overfitting_krr._coefficients(300).holds
    monkeypatch.setattr(
        cost_of_overfitting_krr, "learned_coefficients", lambda *args: (right(*args)[0], 2 * right(*args)[1])
    )
    assert not cost_of_overfitting_krr._coefficients(300).holds


def test_wrong_domains_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    module = _cost_of_overfitting_krr_data
    cube, total = module.hypercube_eigensystem, module.total_learnability
    monkeypatch.setattr(module, "hypercube_eigensystem", lambda k, d: (cube(k, d)[0] * (1 + 1e-8), cube(k, d)[1]))
    monkeypatch.setattr(module, "total_learnability", lambda *args: total(*args) * (1 + 1e-8))
    assert verdicts(module.domains("quick")) == {"conservation": False, "eigensystems": False}


def test_a_tolerance_takes_uncertainty_into_account() -> None:
    assert compare("a", ["x"], [1.0], [1.2], "", relative=0.1, uncertainty=[0.06]).holds
    assert not compare("a", ["x"], [1.0], [1.2], "", relative=0.1, uncertainty=[0.04]).holds
    assert not compare("a", ["x"], [1.0], [float("nan")], "", relative=0.1).holds
    assert not compare("a", ["x"], [1.0], [1.0], "", also=False).holds


def test_ridgeless_and_sweep_agree_with_a_plain_solve() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 3))
    gram = np.exp(-np.linalg.norm(x[:, None] - x[None], axis=2))
    targets = rng.standard_normal((60, 2))
    found = _real_task.ridgeless(gram, targets, [30], 3, tests=20)
    sweep = _real_task.ridge_sweep(gram, targets, 30, np.array([0.0, 0.7]), 3, tests=20)
    errors, noises = [], []
    draws = np.random.default_rng(0)
    for _ in range(3):
        order = draws.permutation(60)
        train, test = order[:30], order[30:50]
        operator = gram[np.ix_(test, train)] @ np.linalg.inv(gram[np.ix_(train, train)])
        errors.append(((operator @ targets[train] - targets[test]) ** 2).sum(1).mean())
        # Monte Carlo over the noise labels: the closed form is exact in them.
        labels = rng.standard_normal((60, 20000))
        noises.append(((operator @ labels[train] - labels[test]) ** 2).mean())
    assert found.error[0] == pytest.approx(np.mean(errors))
    assert found.noise[0] == pytest.approx(np.mean(noises), rel=0.01)
    assert sweep.test[:, 0] == pytest.approx(errors) and sweep.train[:, 0] == pytest.approx(np.zeros(3), abs=1e-20)
    assert sweep.test_noise[:, 0] == pytest.approx(noises, rel=0.02)
    assert sweep.errors(2.0)[1][0, 1] == pytest.approx(sweep.train[0, 1] + 2 * sweep.train_noise[0, 1])


def test_the_digits_stand_in_where_fashion_mnist_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    right = _real_task.load

    def absent(name, **options):
        if name == "fashion-mnist":
            raise DataError("not installed")
        return right(name, **options)

    monkeypatch.setattr(_real_task, "load", absent)
    task = _real_task.real_task(500)
    assert task.name == "digits" and not task.official and len(task.inputs) == 500
    _, found, _ = _more_is_better_rf_data._exponents(task, _real_task.laplace_kernel(task.inputs), 2)
    assert len(found[0].rows) == 1 and "not installed" in found[0].detail


@pytest.mark.slow
@pytest.mark.parametrize("slug", STUDIES)
def test_the_whole_study_at_quick_scale(slug: str) -> None:
    result = studies.run(slug, progress=False)
    assert len(result.figures) >= 2 and all(figure.caption for figure in result.figures.values())
    failed = [finding.claim for finding in result.findings if not finding.holds]
    assert not failed


@pytest.mark.slow
@pytest.mark.parametrize("module", [_more_is_better_rf_data, _cost_of_overfitting_krr_data])
def test_the_studies_run_without_fashion_mnist(monkeypatch: pytest.MonkeyPatch, module) -> None:
    task = replace(_real_task.real_task(900), official=False)
    monkeypatch.setattr(module, "real_task", lambda samples: task)
    found, figures = module.real_images("quick")
    assert len(found) >= 3 and figures
