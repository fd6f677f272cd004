"""The study of infinite-width kernels: holds in part and as a whole, and fails on broken formulas."""

import pytest
import torch

from widthwise import studies
from widthwise.kernels import _moments, _tangents
from widthwise.studies import _tensor_programs_kernels_finite as finite
from widthwise.studies import tensor_programs_kernels as study
from widthwise.studies._findings import Outcome


def verdicts(outcome: Outcome) -> dict[str, bool]:
    return {finding.claim: finding.holds for finding in outcome[0]}


@pytest.mark.parametrize(
    "experiment", [study.reference_values, study.closed_forms, study.gradient_independence], ids=lambda e: e.__name__
)
def test_exact_experiments_hold(experiment):
    assert all(verdicts(experiment("quick")).values())


def test_slope_of_a_known_law():
    """Errors drawn with root mean square width^(-1/2), and with width^(-1)."""
    widths = (32, 64, 128, 256)
    generator = torch.Generator().manual_seed(0)
    draws = [torch.rand(40, generator=generator, dtype=torch.float64) + 0.5 for _ in widths]
    for power in (-0.5, -1.0):
        found, error = finite.slope(widths, [width**power * one for width, one in zip(widths, draws, strict=True)])
        assert abs(found - power) < 4 * error < 0.2


def test_a_wrong_contraction_fails(monkeypatch):
    """Halving what a matrix contracts breaks the values."""
    whole = _moments.contracted
    monkeypatch.setattr(_moments, "contracted", lambda *args: None if (c := whole(*args)) is None else c / 2)
    assert not any(verdicts(study.reference_values("quick")).values())
    assert not any(verdicts(study.closed_forms("quick")).values())


def test_a_missing_term_of_the_tangent_kernel_fails(monkeypatch):
    monkeypatch.setattr(_tangents, "same_position", lambda *args: torch.zeros(()))
    assert not any(verdicts(study.reference_values("quick")).values())


@pytest.mark.slow
def test_a_wrong_limit_has_another_rate(monkeypatch):
    """Against kernels that are 20 % off the error stops falling."""
    right = finite.empirical_ntk
    monkeypatch.setattr(finite, "empirical_ntk", lambda *args: 1.2 * right(*args))
    assert verdicts(finite.rates("quick")) == {"nngp-rate": True, "ntk-rate": False}


@pytest.mark.slow
def test_fresh_matrices_do_not_explain_a_shared_one(monkeypatch):
    recurrent = finite.Recurrent
    assert verdicts(finite.weight_sharing("quick")) == {"weight-sharing": True}
    monkeypatch.setattr(finite, "Recurrent", lambda inputs, width, fresh: recurrent(inputs, width, True))
    assert verdicts(finite.weight_sharing("quick")) == {"weight-sharing": False}


@pytest.mark.slow
def test_quick_study_holds():
    result = studies.run("tensor-programs-kernels", "quick", progress=False)
    assert result.holds and result.seconds < 300
    assert set(result.figures) == {"NNGP error against width", "NTK error against width"}
