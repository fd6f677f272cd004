"""The classification of abc-parametrisations: the paper's table, symmetries, and simulated widths as oracles."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from widthwise.core import DataError
from widthwise.scaling import AbcTable, abc, classify, named_abc

HALF = Fraction(1, 2)


@pytest.mark.parametrize("layers", [1, 2, 3, 6])
def test_the_papers_table(layers):
    """arXiv:2011.14522, table 1: r and regime of the named parametrisations."""
    standard = classify(named_abc("standard", layers))
    assert standard.regime == "unstable" and standard.r == (-1 if layers > 1 else 0)
    slow = named_abc("standard", layers)
    largest = classify(AbcTable(slow.a, slow.b, tuple(Fraction(1) for _ in slow.c)))
    assert (largest.regime, largest.r) == ("kernel", HALF if layers > 1 else 3 * HALF)
    ntk = classify(named_abc("ntk", layers))
    assert (ntk.regime, ntk.r) == ("kernel", HALF)
    for family in ("gradient", "sign"):
        for name in ("mup", "spectral"):
            report = classify(named_abc(name, layers, family))
            assert (report.regime, report.r) == ("feature learning", 0)
            assert all(r == 0 for r in report.layer_r)
    assert classify(named_abc("mean-field", layers)).regime == "feature learning"


def test_too_large_a_step_in_the_ntk_parametrisation_is_unstable():
    report = classify(abc([0, "1/2", "1/2"], [0, 0, 0], "-1/2"))
    assert report.regime == "unstable"
    assert any("output" in reason for reason in report.reasons)


def test_a_vanishing_step_is_trivial():
    assert classify(abc([0, "1/2", "1/2"], [0, 0, 0], 1)).regime == "trivial"


def test_wrong_init_names_the_layer():
    report = classify(abc([0, 0, "1/2"], ["0", "1/4", "1/2"], 1))
    assert not report.stable_at_init
    assert report.reasons[0].startswith("layer 2")


EXPONENTS = st.fractions(min_value=-2, max_value=2, max_denominator=4)


@given(
    st.integers(1, 3).flatmap(
        lambda layers: st.tuples(*[st.lists(EXPONENTS, min_size=layers + 1, max_size=layers + 1)] * 4)
    ),
    st.sampled_from(["gradient", "sign"]),
)
def test_regrouping_multipliers_changes_nothing(values, family):
    a, b, c, theta = values
    table = abc(a, b, c, family)
    one, two = classify(table), classify(table.shifted(theta))
    assert (one.regime, one.r, one.layer_r, one.folded) == (two.regime, two.r, two.layer_r, two.folded)


@given(st.lists(EXPONENTS, min_size=3, max_size=3), st.sampled_from(["gradient", "sign"]))
def test_the_suggestion_learns_features_with_the_given_multipliers(a, family):
    table = abc(a, [0, 0, 0], 0, family)
    suggestion = classify(table).suggestion
    assert suggestion.a == table.a
    assert classify(suggestion).regime == "feature learning"


def feature_change(table: AbcTable, width: int, seed: int) -> float:
    """RMS change of the last hidden features after two SGD steps of a tanh network with these exponents."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(width, 5), (width, width), (1, width)]
    weights = [
        (torch.randn(shape, generator=generator, dtype=torch.float64) * width ** -float(b)).requires_grad_()
        for shape, b in zip(shapes, table.b, strict=True)
    ]
    x, y = torch.randn(5, 4, dtype=torch.float64, generator=generator), torch.tensor([1.0, -1.0, 0.5, 2.0]).double()

    def forward() -> tuple[torch.Tensor, torch.Tensor]:
        scale = [width ** -float(a) for a in table.a]
        hidden = torch.tanh(scale[0] * weights[0] @ x)
        hidden = torch.tanh(scale[1] * weights[1] @ hidden)
        return hidden, (scale[2] * weights[2] @ hidden)[0]

    before = forward()[0].detach()
    for _ in range(2):
        loss = ((forward()[1] - y) ** 2).mean()
        steps = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            for weight, step, c in zip(weights, steps, table.c, strict=True):
                weight -= 0.3 * width ** -float(c) * step
    return float((forward()[0].detach() - before).square().mean().sqrt())


@pytest.mark.parametrize("name", ["ntk", "mup", "spectral", "mean-field"])
def test_r_is_the_measured_exponent_of_the_change_of_features(name):
    """Networks of growing width move their features by n^-r."""
    table = named_abc(name, 2)
    widths = [64, 128, 256, 512]
    changes = [np.mean([feature_change(table, width, seed) for seed in range(6)]) for width in widths]
    slope = np.polyfit(np.log(widths), np.log(changes), 1)[0]
    assert abs(-slope - float(classify(table).r)) < 0.1


def test_bad_tables_are_refused_in_one_sentence():
    with pytest.raises(DataError, match="at least two"):
        abc([0], [0], 0)
    with pytest.raises(DataError, match="2, 3 and 2 entries"):
        abc([0, 0], [0, 0, 0], 0)
    with pytest.raises(DataError, match="'lazy' is not one of"):
        named_abc("lazy", 2)
