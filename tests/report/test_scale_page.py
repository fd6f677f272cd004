"""The page of `widthwise scale`, and its section on feature-learning strength."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from widthwise.core import DataError
from widthwise.report import Richness, save_scale
from widthwise.report._numbers import interval
from widthwise.scaling import diagnose_regime, parametrize, richness_advice, richness_law, scale
from widthwise.scaling._richness_plane import read_plane

X = torch.randn(96, 4, generator=torch.Generator().manual_seed(0))


def plane(best: float = 0.0):
    """A bowl about gamma^2 (lazy) and gamma (rich), lowest at log2 gamma = best; rates of 8 times the best diverge."""
    gammas, rates = [2.0**k for k in range(-9, 7)], [2.0**k for k in range(-24, 14)]
    law = np.array([np.log2(richness_law(gamma, 2)) for gamma in gammas])
    octaves = np.log2(rates)[None] - law[:, None]
    losses = 0.2 + 0.01 * octaves**2 + 0.004 * (np.log2(gammas)[:, None] - best) ** 2
    losses = np.where(octaves > 3, np.inf, np.where(octaves < -5, np.nan, losses))[:, None]
    return read_plane(2, gammas, rates, 50, losses, 1.0)


def build(width):
    return nn.Sequential(nn.Linear(4, width, bias=False), nn.ReLU(), nn.Linear(width, 2, bias=False))


def test_advice_is_the_lowest_cell_and_parametrize_carries_it_out():
    advice = richness_advice(plane(best=3.0))
    assert advice.gamma == 8.0 and advice.rate.value == pytest.approx(8.0, rel=1e-6) and advice.cautions == ()
    assert advice.lr == pytest.approx(1.0) and "gamma=8" in advice.call and "lr=1," in advice.call
    one, other = (
        parametrize(build(8), lr=lr, optimizer="sgd", gamma=gamma, example_inputs=X[:2], dry_run=True)
        for lr, gamma in ((advice.lr, advice.gamma), (advice.rate.value, 1.0))
    )
    assert one[0]["lr"] == pytest.approx(other[0]["lr"])  # the readout's also carries gamma itself


def test_advice_says_when_it_lies_at_an_end():
    assert "largest that trained" in richness_advice(plane(best=9.0)).cautions[0]
    nothing = read_plane(2, [0.5, 1.0], [0.1, 0.2], 5, np.full((2, 1, 2), 0.99), 1.0)
    with pytest.raises(DataError, match="of its initial loss"):
        richness_advice(nothing)
    assert Richness(nothing).tile() is None and "Nothing trained" in Richness(nothing).section().words[0]


def test_the_section_shows_plane_exponents_regime_and_what_to_set():
    sweep = plane()
    run = diagnose_regime(build(16), X, X[:, :2].relu(), rate=0.1, steps=30)
    section = Richness(sweep, run).section()
    words, (rates, exponents) = " ".join(section.words), section.tables
    assert run.verdict in words and run.reasons[1] in words and richness_advice(sweep).call in words
    assert section.figures == ("richness", "regime") and [row[0] for row in rates.rows][:2] == ["0.001953", "0.003906"]
    cells = {(row[0], row[1]): row[2:] for row in exponents.rows}
    fit = sweep.lazy
    assert cells["best rate", "lazy"] == ("2.00", interval(fit.low, fit.high), "2") and fit.low > 1.5
    assert cells["best rate", "rich"][2] == "1" and cells["smallest rate that trains", "rich"][2] == "1"
    assert rates.rows[0][3].endswith(" or less")  # every rate down to the smallest tried one trained


def test_everything_is_written_and_names_are_escaped(tmp_path):
    result = scale(build, [8, 16, 32], (X, (X[:, 0] > 0).long()), steps=3, seeds=1, lrs=[0.01, 0.1, 1.0])
    page = save_scale(result, tmp_path, "<b>net</b>", Richness(plane())).read_text(encoding="utf-8")
    assert "<b>net" not in page and "&lt;b&gt;net" in page and "How much it learns features" in page
    assert 'id="chart-richness"' in page and "<script src=" not in page
    held = json.loads((tmp_path / "scale.json").read_text(encoding="utf-8"))
    assert held["target_width"] == 32 and held["richness"]["set"]["gamma"] == 1.0
    assert held["richness"]["exponents"]["optimum, lazy"]["value"] == pytest.approx(2, abs=0.01)
    assert (tmp_path / "figures" / "richness.png").stat().st_size > 1000
    without = save_scale(result, tmp_path / "plain", "net").read_text(encoding="utf-8")
    assert "How much it learns features" not in without and "What to set at width 32" in without
    assert "richness" not in json.loads((tmp_path / "plain" / "scale.json").read_text(encoding="utf-8"))
