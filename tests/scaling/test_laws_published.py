"""Published laws: ratios, the papers' own numbers, units, domains."""

import math

import numpy as np
import pytest

from widthwise.core import DataError, WidthwiseError
from widthwise.scaling import LAWS, Bowl, compare_laws, law, recommend
from widthwise.scaling import _laws_published as published


def test_step_law_ratios():
    """Four times the tokens: lr x 1.53, batch x 2.21; four times the params: lr x 0.372."""
    base, data, size = (law("step-law").predict(n, d) for n, d in ((1e9, 5e10), (1e9, 2e11), (4e9, 5e10)))
    assert data.lr / base.lr == pytest.approx(4**0.307491, rel=1e-9)
    assert data.batch_tokens / base.batch_tokens == pytest.approx(2.21, abs=0.01)
    assert size.lr / base.lr == pytest.approx(0.372, abs=5e-4) and size.batch_tokens == base.batch_tokens


def test_step_law_from_the_printed_formula():
    advice = law("step-law").predict(7e9, 1.4e12, 4096)
    assert advice.lr == pytest.approx(1.79 * 7e9**-0.713 * 1.4e12**0.307, rel=0.03)
    assert advice.batch_tokens == pytest.approx(0.58 * 1.4e12**0.571, rel=0.01)
    assert advice.batch_sequences * 4096 == pytest.approx(advice.batch_tokens)
    assert advice.steps * advice.batch_tokens == pytest.approx(1.4e12)


def test_intervals_are_those_of_the_cloud():
    """Against percentiles of draws from the normal distribution with that mean and covariance."""
    draws = np.random.default_rng(0).multivariate_normal(
        published.STEP_MEAN, published.STEP_COVARIANCE, 200_000, method="cholesky"
    )
    advice = law("step-law").predict(7e9, 1.4e12)
    logs = draws @ published.step_rows(advice.run).T
    low, high = np.exp(np.percentile(logs, [2.5, 97.5], axis=0))
    assert advice.lr_interval == pytest.approx((low[0], high[0]), rel=0.01)
    assert advice.batch_interval == pytest.approx((low[1], high[1]), rel=0.01)


def test_spread_of_the_coefficients():
    """The standard deviations of the released fits."""
    spread = np.sqrt(np.diag(published.STEP_COVARIANCE))
    assert spread == pytest.approx([0.6237, 0.0299, 0.0191, 0.437, 0.0187], rel=3e-3)
    assert (np.linalg.eigvalsh(published.STEP_COVARIANCE) > 0).all()


@pytest.mark.parametrize("flops, lr, batch", [(8.4e22, 4.2e-4, 9.2e6), (8.6e23, 3.2e-4, 19.7e6)])
def test_deepseek_gives_its_own_models(flops: float, lr: float, batch: float):
    advice = law("deepseek").predict(7e9, 2e12, compute=flops)
    assert advice.lr == pytest.approx(lr, rel=0.015) and advice.batch_tokens == pytest.approx(batch, rel=0.005)


def test_openai():
    advice = law("openai").predict(1e9, 1e11, loss=2.2)
    assert advice.lr == pytest.approx(3.48e-4, rel=1e-3) and advice.batch_tokens == pytest.approx(4.7e6, rel=0.01)
    without = law("openai").predict(1e9, 1e11)
    assert without.batch_tokens is None and any("loss=" in warning for warning in without.warnings)
    beyond = law("openai").predict(2e10, 1e12)
    assert beyond.lr is None and any("not positive" in warning for warning in beyond.warnings)


def test_microsoft_as_printed_is_unusable():
    """Raw counts with 1.3192e-5 give rates near 1e-10 at 1e9 params and 1e11 tokens."""
    assert 1.3192e-5 * 1e9**-0.23 * 1e11**-0.32 < 1e-9
    ratio = law("step-law").predict(1e9, 1e11).lr / law("microsoft").predict(1e9, 1e11).lr
    assert 4 < ratio < 6


def test_every_law_says_where_it_is_from():
    for name, entry in LAWS.items():
        assert entry.name == name and "arXiv" in entry.source and entry.formula and entry.provenance
    assert len(compare_laws(1e9, 1e11, loss=2.3)) == len(LAWS)
    assert "learning rate" in str(law("step-law").predict(1e9, 1e11))


def test_warnings_outside_the_fitted_range():
    inside = law("step-law").predict(5e8, 2e10).warnings
    outside = law("step-law").predict(7e10, 2e10).warnings
    assert not any("outside" in warning for warning in inside)
    assert sum("outside" in warning for warning in outside) == 2  # params, and tokens per parameter


@pytest.mark.parametrize("params, tokens", [(7, 1e12), (7e9, 1.4), (math.nan, 1e12), (-1e9, 1e12)])
def test_billions_are_refused(params: float, tokens: float):
    with pytest.raises(DataError, match="raw count"):
        law("step-law").predict(params, tokens)


def test_names():
    with pytest.raises(WidthwiseError, match="did you mean 'step-law'"):
        law("step_law")
    with pytest.raises(WidthwiseError, match="gives no learning rate"):
        recommend(1e9, 1e11, law="meituan")


def test_bowl():
    """Plateau, ridge and excess against the quadratic form itself."""
    bowl = Bowl(lr=0.02, batch=0.01, cross=-0.008)
    by_lr, by_batch = bowl.factors(0.003)
    assert bowl.excess(by_lr, 1) == pytest.approx(0.003) and bowl.excess(1, 1 / by_batch) == pytest.approx(0.003)
    rates = np.exp(np.linspace(-1, 2, 3001))
    best = rates[np.argmin([bowl.excess(rate, 2.0) for rate in rates])]
    assert best == pytest.approx(2**bowl.ridge, rel=2e-3)
    assert bowl.convex and not Bowl(0.02, 0.01, 0.02).convex


def test_recommend_rounds_along_the_ridge():
    found = recommend(1e9, 1e11, batch_multiple=256)
    assert found.batch_sequences % 256 == 0 and found.batch_tokens == found.batch_sequences * 2048
    assert found.steps == math.ceil(1e11 / found.batch_tokens)
    on_ridge = found.penalty(found.lr, found.batch_tokens)
    assert on_ridge == pytest.approx(found.rounding_excess, rel=1e-9)
    assert on_ridge < min(found.penalty(found.lr * f, found.batch_tokens) for f in (0.95, 1.05))
    assert found.penalty(found.advice.lr, found.advice.batch_tokens) == pytest.approx(0)
    assert found.risk.level == "inside" and "step-law" in found.table() and "extrapolation" in str(found)


def test_risk_and_recipe():
    far = recommend(7e10, 1.4e13, schedule="wsd", final_lr="proportional", parametrization="mup", optimizer="lion")
    assert far.risk.level == "far" and far.risk.factors["params"] == pytest.approx(7e10 / 1.074e9, rel=1e-3)
    assert sum(any(word in w for w in far.warnings) for word in ("wsd", "final", "mup", "lion")) == 4
    near = recommend(2e9, 1e11)
    assert near.risk.level == "near" and near.risk.loss_at_stake > 0
    no_curvature = recommend(1e9, 1e11, law="deepseek")
    with pytest.raises(DataError, match="curvature"):
        no_curvature.penalty(1e-3, 1e6)
