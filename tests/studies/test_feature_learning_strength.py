"""The study of feature-learning strength: exact parts hold, and fail when a law is broken."""

from dataclasses import replace

import numpy as np
import pytest

from widthwise import studies
from widthwise.scaling import fit_exponent
from widthwise.studies import _feature_learning_strength_alignment as alignment
from widthwise.studies import _feature_learning_strength_architectures as architectures
from widthwise.studies import _feature_learning_strength_plane as plane
from widthwise.studies import _feature_learning_strength_toy as toy
from widthwise.studies import feature_learning_strength as study


def verdicts(outcome) -> dict[str, bool]:
    return {finding.claim: finding.holds for finding in outcome[0]}


@pytest.mark.parametrize("experiment", toy.EXPERIMENTS, ids=lambda experiment: experiment.__name__)
def test_exact_experiments_hold(experiment):
    assert all(verdicts(experiment("quick")).values())


def test_a_wrong_law_is_found(monkeypatch):
    right = toy.toy_critical_rate
    monkeypatch.setattr(toy, "toy_critical_rate", lambda gamma, depth, loss="mse": 1.1 * right(gamma, depth, loss))
    assert not verdicts(toy.edges("quick"))["toy-edge"]


def test_another_exponent_is_found(monkeypatch):
    """If rates were read in units of gamma, the exponent would be 1 and the claim would fail."""
    right = plane.richness_sweep

    def misread(*args, **kwargs):
        gammas = [gamma for gamma in kwargs["gammas"] if gamma < 0.1 or gamma == 1]
        found = right(*args, **{**kwargs, "steps": 30, "gammas": gammas})
        bounds = [
            replace(one, value=one.value / gamma, low=one.low / gamma, high=one.high / gamma)
            for gamma, one in zip(found.gammas, found.optima, strict=True)
        ]
        lazy = fit_exponent(found.gammas[:-1], bounds[:-1])
        return replace(found, exponents={**found.exponents, "optimum, lazy": lazy})

    monkeypatch.setattr(plane, "richness_sweep", misread)
    monkeypatch.setattr(plane, "DEPTHS", (2, 2))
    found = next(finding for finding in plane.planes("quick")[0] if finding.claim == "best-rate")
    assert found.measured[0] == pytest.approx(1, abs=0.15) and not found.holds


def test_claims_and_experiments_are_registered():
    info = next(info for info in studies.available() if info.slug == "feature-learning-strength")
    assert info.state == "partly" and len({claim.key for claim in study.CLAIMS}) == len(study.CLAIMS)


@pytest.mark.slow
def test_the_issues_number_is_reached():
    """Exponents of the best rate within 0.15 of 2 and 2/L for L = 2, 3, 4 on real images."""
    found = next(finding for finding in plane.planes("quick")[0] if finding.claim == "best-rate")
    assert found.holds and np.abs(np.array(found.measured) - np.array(found.predicted)).max() <= 0.15


@pytest.mark.slow
def test_alignment_is_silent_where_the_theory_says_so():
    assert verdicts(alignment.alignment("quick"))["silent-alignment"]


@pytest.mark.slow
def test_a_wrong_tangent_kernel_is_found(monkeypatch):
    """Half the largest eigenvalue puts every network's largest rate off the closed form."""
    right = architectures.stable_rate
    monkeypatch.setattr(architectures, "stable_rate", lambda build, x, y: 2 * right(build, x, y))
    found = verdicts(architectures.architectures("quick"))
    assert found == {"architectures": True, "architectures-edge": False, "architectures-rich": True}


@pytest.mark.slow
def test_cross_entropy_has_two_exponents():
    assert verdicts(plane.entropy_edge("quick"))["entropy-edge"]
