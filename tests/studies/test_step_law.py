"""The study of Step Law: its exact parts hold, and fail when a law or a fact is broken."""

from dataclasses import replace

import numpy as np
import pytest

from widthwise import studies
from widthwise.scaling import LAWS
from widthwise.scaling import _laws_published as published
from widthwise.studies import _step_law_released as released
from widthwise.studies import _step_law_synthetic as synthetic
from widthwise.studies import step_law as study


def verdicts(outcome):
    return {finding.claim: finding.holds for finding in outcome[0]}


@pytest.mark.parametrize(
    "experiment",
    [study.ratios, study.coefficients, study.rivals, study.comparison, study.refits, study.loss_law, synthetic.exact],
    ids=lambda experiment: experiment.__name__,
)
def test_experiments_hold(experiment):
    assert all(verdicts(experiment("quick")).values())


def test_coverage_of_a_few_sweeps(monkeypatch):
    monkeypatch.setitem(synthetic.REPEATS, "quick", 12)
    assert verdicts(synthetic.coverage("quick"))["joint-beats-near-optimal"]


def test_a_wrong_exponent_is_found(monkeypatch):
    monkeypatch.setattr(published, "STEP_MEAN", published.STEP_MEAN + np.array([0, 0.03, 0, 0, 0]))
    assert not verdicts(study.ratios("quick"))["ratios"]
    assert not verdicts(study.comparison("quick"))["comparison"]  # the nearest runs are no longer those


def test_a_misprint_is_found(monkeypatch):
    broken = dict(LAWS, deepseek=replace(LAWS["deepseek"], lr_rule=lambda run: 0.3188 * run.flops**-0.125))
    monkeypatch.setattr(study, "law", lambda name: broken[name])
    assert not verdicts(study.rivals("quick"))["rivals"]


def test_too_narrow_intervals_are_found(monkeypatch):
    monkeypatch.setitem(synthetic.REPEATS, "quick", 20)
    right = synthetic.fit_law

    def narrow(*args, **kwargs):
        found = right(*args, **kwargs)
        fit = found.fit
        centre, low, high = (np.array(v) for v in (fit.coefficients, fit.low, fit.high))
        shrunk = replace(fit, low=tuple(centre + (low - centre) / 4), high=tuple(centre + (high - centre) / 4))
        return replace(found, routes={**found.routes, found.route: shrunk})

    monkeypatch.setattr(synthetic, "fit_law", narrow)
    assert not verdicts(synthetic.coverage("quick"))["coverage"]


def test_released_cells_are_whole():
    assert released.CELLS.shape == (17, 5) and released.VERTICES.shape == (17, 2)
    assert all(len(rows) == 17 for rows in released.NEAREST.values())
    assert all((np.array(rows)[:, 2] > released.CELLS[:, 4] - 1e-5).all() for rows in released.NEAREST.values())


@pytest.mark.slow
def test_quick_study_holds():
    result = studies.run("step-law", "quick", progress=False)
    assert [finding.claim for finding in result.findings if not finding.holds] == []
