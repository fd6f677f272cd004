"""The study of feature-learning limits: cheap experiments hold, and fail on a broken formula."""

import numpy as np
import pytest
import torch

from widthwise.studies import _tp4_feature_learning_glyphs as glyphs
from widthwise.studies import _tp4_feature_learning_widths as widths
from widthwise.studies import _tp4_feature_learning_words as words
from widthwise.studies import tp4_feature_learning as study
from widthwise.theory import LinearLimit


def verdicts(outcome) -> dict[str, bool]:
    return {finding.claim: finding.holds for finding in outcome[0]}


def test_the_losses_of_the_sheet_hold_and_fail_on_a_wrong_start(monkeypatch):
    assert verdicts(widths.linear_losses("quick")) == {"linear-losses": True}
    monkeypatch.setattr(widths, "LinearLimit", lambda *sizes, **kind: LinearLimit(*sizes, sigma_v=1.001, **kind))
    assert verdicts(widths.linear_losses("quick")) == {"linear-losses": False}


def test_a_slope_and_its_error():
    rng = np.random.default_rng(0)
    sizes = np.array([10, 100, 1000])
    found, error = widths.slope([10, 100, 1000], rng.chisquare(5, size=(3, 40)) / sizes[:, None])
    assert found == pytest.approx(-0.5, abs=4 * error)
    assert 0.005 < error < 0.05


def test_plurals_and_questions():
    pairs = words._plurals(["cat", "as", "cats", "a", "class", "dog", "dogs", "s"])
    assert pairs.tolist() == [[0, 2], [5, 6]]


def test_the_corpus_is_split_between_sentences():
    text = words.corpus("quick")
    assert len(text.names) == 800
    assert text.train[-1] == -1
    assert 0.02 < len(text.held_out) / len(text.train) < 0.12
    assert len(text.pairs) > 50


def test_characters_are_drawn_differently_by_typeface():
    pool, names = glyphs.glyph_pool()
    assert pool.shape == (len(names), 12, 196)
    assert len(names) > 500
    assert "A" in names
    assert "\u0391" not in names  # the Greek capital alpha looks like an A
    distance = torch.cdist(pool.flatten(0, 1)[:240], pool.flatten(0, 1)[:240])
    assert (distance + torch.eye(240)).min() > 0
    assert pool.square().sum(2).mean() == pytest.approx(1, rel=1e-4)


@pytest.mark.slow
def test_the_whole_study_holds():
    findings, _ = study.STUDY.measure("quick")
    assert {finding.claim for finding in findings if not finding.holds} == set()
