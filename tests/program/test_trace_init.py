"""Initial scales told from the entries: exact values for true rules, "measured" for everything else."""

from math import sqrt

import pytest
import torch
from torch import nn

from widthwise.program._init import Law, recognise


def first(module: nn.Module, name: str = "weight"):
    return recognise(module.get_parameter(name), module, name)


DEFAULTS = [
    (lambda: nn.Linear(20, 30), "weight", 1 / sqrt(60)),
    (lambda: nn.Linear(20, 30), "bias", 1 / sqrt(60)),
    (lambda: nn.Linear(1, 2), "weight", 1 / sqrt(3)),
    (lambda: nn.Conv2d(4, 8, 3), "weight", 1 / sqrt(3 * 36)),
    (lambda: nn.Conv2d(4, 8, 3, groups=2), "bias", 1 / sqrt(3 * 18)),
    (lambda: nn.ConvTranspose1d(4, 8, 5), "weight", 1 / sqrt(3 * 40)),
    (lambda: nn.Embedding(50, 8, padding_idx=0), "weight", 1.0),
    (lambda: nn.LSTM(3, 12), "weight_hh_l0", 1 / sqrt(36)),
    (lambda: nn.GRUCell(3, 12), "bias_ih", 1 / sqrt(36)),
    (lambda: nn.Bilinear(6, 7, 8), "weight", 1 / sqrt(18)),
    (lambda: nn.MultiheadAttention(16, 4), "in_proj_weight", sqrt(2 / 64)),
]


@pytest.mark.parametrize(("build", "name", "std"), DEFAULTS)
def test_defaults_of_torch_are_given_exactly(build, name, std):
    """Several draws each: a true rule is all but never missed."""
    for seed in range(10):
        torch.manual_seed(seed)
        found = first(build(), name)
        assert found.source.endswith("default"), (seed, found)
        assert found.std == pytest.approx(std, rel=1e-12)
        assert found.mean == 0


@pytest.mark.parametrize(
    ("draw", "std", "words"),
    [
        (lambda w: nn.init.kaiming_normal_(w), sqrt(2 / 40), "He fan-in normal"),
        (lambda w: nn.init.kaiming_normal_(w, mode="fan_out"), sqrt(2 / 60), "He fan-out normal"),
        (lambda w: nn.init.kaiming_uniform_(w), sqrt(2 / 40), "He fan-in uniform"),
        (lambda w: nn.init.xavier_normal_(w), sqrt(2 / 100), "Glorot normal"),
        (lambda w: nn.init.xavier_uniform_(w), sqrt(2 / 100), "Glorot uniform"),
        (lambda w: nn.init.normal_(w, std=sqrt(1 / 40)), sqrt(1 / 40), "LeCun normal"),
        (lambda w: nn.init.normal_(w, std=0.02), 0.02, "normal, std 0.02"),
        (lambda w: nn.init.trunc_normal_(w, std=0.02), 0.02, "normal, std 0.02"),
    ],
)
def test_common_rules_are_told_apart(draw, std, words):
    torch.manual_seed(0)
    layer = nn.Linear(40, 60)
    draw(layer.weight)
    found = first(layer)
    assert (found.source, found.std) == (words, pytest.approx(std, rel=1e-12))


def test_constants_have_no_spread():
    assert first(nn.LayerNorm(5)).source == "constant"
    assert (first(nn.LayerNorm(5)).mean, first(nn.LayerNorm(5)).std) == (1.0, 0.0)
    assert first(nn.BatchNorm1d(1), "bias").source == "constant"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda w: w.mul_(1.05),
        lambda w: w.add_(0.02),
        lambda w: w.normal_(std=1 / sqrt(3 * 100)),  # right scale, wrong law
        lambda w: w[0, 0].fill_(0.2),  # one entry beyond the bound
        lambda w: w.copy_(w.sign() / sqrt(3 * 100)),
    ],
)
def test_entries_that_break_the_rule_are_measured(spoil):
    torch.manual_seed(0)
    layer = nn.Linear(100, 100)
    with torch.no_grad():
        spoil(layer.weight)
    found = first(layer)
    assert found.source == "measured"
    assert found.std == pytest.approx(layer.weight.detach().double().std(correction=0).item(), rel=1e-6)
    assert found.mean == pytest.approx(layer.weight.detach().double().mean().item(), abs=1e-8)


def test_a_trained_layer_is_measured():
    torch.manual_seed(0)
    layer = nn.Linear(30, 30)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
    for _ in range(20):
        optimizer.zero_grad()
        layer(torch.ones(4, 30)).square().sum().backward()
        optimizer.step()
    assert first(layer).source == "measured"


def test_small_tensors_are_never_given_a_common_rule():
    layer = nn.Linear(8, 8)
    nn.init.normal_(layer.weight, std=3.0)
    assert first(layer).source == "measured"


def test_the_test_rejects_a_true_law_as_rarely_as_it_says():
    """All three criteria at four standard errors: far fewer than 1 in 500 draws rejected; 8 % off always found."""
    draws = torch.Generator().manual_seed(0)
    true, wrong = Law("", "normal", 1.0), Law("", "normal", 1.08)
    samples = [torch.randn(5000, generator=draws, dtype=torch.float64) for _ in range(300)]
    assert sum(not true.fits(sample) for sample in samples) <= 1
    assert sum(wrong.fits(sample) for sample in samples) == 0


def test_a_transformers_configuration_gives_its_scale():
    class Config:
        initializer_range = 0.03
        n_layer = 8

    torch.manual_seed(0)
    layer = nn.Linear(50, 50)
    for std, words in ((0.03, "normal, initializer_range 0.03"), (0.0075, "initializer_range 0.03/sqrt(2 layers)")):
        nn.init.normal_(layer.weight, std=std)
        found = recognise(layer.weight, layer, "weight", Config())
        assert words in found.source
        assert found.std == pytest.approx(std)
