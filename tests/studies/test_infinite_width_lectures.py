"""The study of the lectures at infinite width: its exact parts hold, and fail when a formula is broken."""

import numpy as np
import pytest

from widthwise import studies
from widthwise.studies import _infinite_width_lectures_catapult as catapult
from widthwise.studies import _infinite_width_lectures_networks as networks
from widthwise.studies import infinite_width_lectures as study
from widthwise.theory import _dynamics_filters


def verdicts(outcome):
    return {finding.claim: finding.holds for finding in outcome[0]}


def test_stored_values():
    assert verdicts(study.closed_form("quick")) == {"closed-form": True, "momentum": True}


def test_a_wrong_filter_fails(monkeypatch):
    right = _dynamics_filters.Flow.learned
    monkeypatch.setattr(
        _dynamics_filters.Flow, "learned", lambda self, values, times: 0.99 * right(self, values, times)
    )
    assert verdicts(study.closed_form("quick"))["closed-form"] is False


def test_log_moments_of_products_by_sampling():
    """Exact moments of log ((2 / n) sum relu(g)^2) against draws of the sum itself."""
    draws = np.maximum(np.random.default_rng(0).standard_normal((40000, 8)), 0.0)
    sums = np.square(draws).mean(1) * 2
    logs = np.log(sums[sums > 0])
    mean, variance = networks.log_moments((8,))
    assert mean == pytest.approx(logs.mean(), abs=4 * logs.std() / 200) and variance == pytest.approx(
        logs.var(), rel=0.05
    )


def test_catapult_map():
    assert verdicts(catapult.catapult_map("quick")) == {"catapult-map": True}


@pytest.mark.slow
def test_quick_study_holds():
    result = studies.run("infinite-width-lectures", "quick", progress=False)
    assert [finding.claim for finding in result.findings if not finding.holds] == []
