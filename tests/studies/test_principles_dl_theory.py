"""The study of finite width: exact experiments hold, and fail on broken formulas."""

from dataclasses import replace

import pytest

from widthwise.studies import _principles_dl_theory_networks as networks
from widthwise.studies import _principles_dl_theory_values as values
from widthwise.studies import principles_dl_theory as study
from widthwise.theory.effective import _flow


def verdicts(outcome) -> dict[str, bool]:
    return {finding.claim: finding.holds for finding in outcome[0]}


@pytest.mark.parametrize("experiment", [values.tensors, values.differential_step], ids=lambda e: e.__name__)
def test_exact_experiments_hold(experiment):
    assert all(verdicts(experiment("quick")).values())


def test_a_wrong_moment_fails(monkeypatch):
    right = _flow.gaussian_moments

    def wrong(activation, K):
        moments = right(activation, K)
        return replace(moments, s4=1.001 * moments.s4)

    monkeypatch.setattr(_flow, "gaussian_moments", wrong)
    assert not any(verdicts(values.tensors("quick")).values())


@pytest.mark.slow
def test_the_printed_residual_formula_fails_for_relu(monkeypatch):
    """Without the memory of signs the growth is too small."""
    assert verdicts(networks.residual("quick")) == {"residual": True}
    right = networks.residual_vertex
    monkeypatch.setattr(
        networks,
        "residual_vertex",
        lambda name, gamma, blocks: right(name, gamma, 1).repeat(blocks).cumsum(),
    )
    assert verdicts(networks.residual("quick")) == {"residual": False}


@pytest.mark.slow
def test_the_whole_study_holds():
    findings, _ = study.STUDY.measure("quick")
    assert {finding.claim for finding in findings if not finding.holds} == set()
