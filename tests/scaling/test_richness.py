"""Strength and learning rate: the batched trainer, the readings of the plane, the exponents, the toy model."""

from copy import deepcopy
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from widthwise.core import DataError, ModelError
from widthwise.scaling import _richness
from widthwise.scaling._richness import prepare, richness_sweep
from widthwise.scaling._richness_batch import Cell, cross_entropy, train_cells
from widthwise.scaling._richness_fit import RateBound, fit_exponent
from widthwise.scaling._richness_plane import read_plane, richness_law
from widthwise.scaling._richness_toy import mode_time, toy_critical_rate, toy_descent, toy_flow_time

X = torch.randn(80, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.stack([X[:, 0] * X[:, 1].sign(), X[:, 2].relu()], 1)


def build(depth=3, width=12, bias=False):
    sizes = [5, *[width] * (depth - 1), 2]
    layers = [part for a, b in pairwise(sizes[:-1]) for part in (nn.Linear(a, b, bias), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1], bias)).double()


def starts_of(module, y=Y, scheme=None, smallest=1.0):
    return prepare(module, X, y, 1, scheme, None, 0, smallest)[0]


# --- the batched trainer


@pytest.mark.parametrize("scheme", [None, "spectral"])
def test_each_cell_equals_a_plain_loop(scheme):
    torch.manual_seed(1)
    module = build(bias=True)
    starts = starts_of(module, scheme=scheme)
    cells = [Cell(0.3, 0.02, 0), Cell(2.0, 0.4, 0), Cell(1.0, 1e9, 0), Cell(5.0, 1.0, 0)]
    found = train_cells(starts, cells, 30, 16, seed=3)
    assert np.isinf(found.losses[2]) and found.alive == (0, 1, 3)
    for cell, row in zip((cells[0], cells[1], cells[3]), range(3), strict=True):
        one, frozen = deepcopy(starts.module), deepcopy(starts.module)
        rows = [{"params": [p], "lr": cell.rate * starts.factors.get(name, 1.0)} for name, p in one.named_parameters()]
        sgd, draws = torch.optim.SGD(rows), torch.Generator().manual_seed(3)
        for _ in range(30):
            chosen = torch.randint(80, (16,), generator=draws)
            sgd.zero_grad()
            f = (one(X[chosen]) - frozen(X[chosen]).detach()) / cell.gamma
            ((f - Y[chosen]).square().mean() / 2).backward()
            sgd.step()
        for name, parameter in one.named_parameters():
            torch.testing.assert_close(found.weights[name][row], parameter.detach(), rtol=1e-9, atol=1e-12)


def test_gamma_is_a_rescaling_of_the_targets():
    """1/2 ((h - h_0)/gamma - y)^2 = 1/gamma^2 times 1/2 (h - h_0 - gamma y)^2."""
    torch.manual_seed(2)
    module = build()
    scaled = train_cells(starts_of(module), [Cell(4.0, 0.5, 0)], 40, 20)
    plain = train_cells(starts_of(module, 4.0 * Y), [Cell(1.0, 0.5 / 16, 0)], 40, 20)
    for name, weight in scaled.weights.items():
        torch.testing.assert_close(weight, plain.weights[name], rtol=1e-9, atol=1e-12)


def test_lazy_runs_depend_on_rate_over_gamma_squared_only():
    torch.manual_seed(3)
    starts = starts_of(build())
    cells = [Cell(g, 0.3 * g**2, 0) for g in (1e-5, 1e-4, 1e-3)]
    losses = train_cells(starts, cells, 100, 32).losses
    assert losses == pytest.approx([losses[0]] * 3, rel=2e-3) and losses[0] < 0.8 * starts.initial


def test_outputs_start_at_zero():
    starts = starts_of(build())
    curve = train_cells(starts, [Cell(0.1, 1e-4, 0), Cell(10.0, 1e-4, 0)], 1, None, curves=True).curve
    assert curve[:, 0] == pytest.approx(starts.initial, rel=1e-12)


def test_classes_are_trained_by_cross_entropy():
    torch.manual_seed(4)
    outputs, classes = torch.randn(9, 3, dtype=torch.float64), torch.arange(9) % 3
    torch.testing.assert_close(cross_entropy(outputs, classes), nn.functional.cross_entropy(outputs, classes))
    starts = prepare(build(), X, (X[:, 0] > 0).long(), 1, None, None, 0, 1.0)[0]
    assert starts.initial == pytest.approx(np.log(2))


# --- readings of the plane


def test_readings_of_a_known_plane():
    """A bowl in log rate around gamma^2, a wall at 8 times the best, nothing trained at 1/16 of it."""
    gammas, rates = [2.0**k for k in range(-8, 1)], [2.0**k for k in range(-24, 8)]
    octaves = np.log2(rates)[None] - 2 * np.log2(gammas)[:, None]
    losses = 0.2 + 0.01 * (octaves - 0.25) ** 2
    losses = np.where(octaves <= -4, 0.99, np.where(octaves > 3, np.inf, losses))[:, None, :]
    found = read_plane(2, gammas, rates, 10, losses, 1.0, 1.0, 2.0)
    assert found.lazy.value == pytest.approx(2, abs=1e-3) and found.lazy.low < 2 < found.lazy.high
    assert found.lazy.intercept == pytest.approx(0.25, abs=0.01)
    assert np.log2(found.edges[0].value) == pytest.approx(-16 + 3.5) and found.rich is None
    assert np.log2(found.floors[-1].value) == pytest.approx(-3.5)
    assert found.states[0, 0] == "untrained" and found.states[0, -1] == "diverged"
    assert "2.000" in str(found) and len(found.plot().series) >= 5


def test_a_best_rate_at_the_end_is_censored():
    losses = np.array([0.5, 0.4, 0.3])[None, None]
    found = read_plane(2, [1.0], [1.0, 2.0, 4.0], 10, losses, 1.0)
    assert found.optima[0].censored and found.optima[0].high == np.inf and found.edges[0].censored


def test_exponents_of_noisy_intervals_are_covered():
    random = np.random.default_rng(0)
    gammas, inside = 2.0 ** np.arange(8), 0
    for _ in range(25):
        x = 0.7 * np.log2(gammas) + 0.4 * random.normal(size=8)
        cells = np.floor(2 * x) / 2
        fit = fit_exponent(gammas, [RateBound(2 ** (c + 0.25), 2**c, 2 ** (c + 0.5)) for c in cells])
        inside += fit.low <= 0.7 <= fit.high
    assert inside >= 20  # 95 % of 25 are 24; three standard errors below are 20.5


def test_censored_rates_pull_only_as_far_as_they_know():
    gammas = [1.0, 2.0, 4.0, 8.0, 16.0]
    known = [RateBound(g, g / 1.2, g * 1.2) for g in gammas[:4]]
    agrees, denies = RateBound(4.0, 4.0, np.inf), RateBound(128.0, 128.0, np.inf)
    assert fit_exponent(gammas, [*known, agrees]).value == pytest.approx(1, abs=1e-3)
    assert fit_exponent(gammas, [*known, denies]).value > 1.1
    assert fit_exponent(gammas[:2], known[:2]) is None


# --- sweep


def test_sweep_goes_on_from_what_it_kept(tmp_path, monkeypatch):
    settings = {"gammas": [0.1, 1.0], "rates": [0.001, 0.1, 10.0], "steps": 10, "seeds": 2, "keep": tmp_path / "a.json"}
    first = richness_sweep(build, X, Y, **settings)
    assert first.losses.shape == (2, 2, 3) and not np.isnan(first.losses).any()

    def forbidden(*args, **kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr(_richness, "train_cells", forbidden)
    assert np.array_equal(richness_sweep(build, X, Y, **settings).losses, first.losses)
    with pytest.raises(AssertionError, match="again"):
        richness_sweep(build, X, -Y, **settings)


def test_the_law_holds_on_a_small_network():
    """Exactly 2 where lazy, by self-similarity; the readings add nothing of their own."""
    sweep = richness_sweep(
        lambda: build(2), X, Y, gammas=[2.0**k for k in (-13, -12, -11, -10)], steps=120, octaves=(-4, 4)
    )
    assert sweep.lazy.value == pytest.approx(2, abs=0.02) and sweep.depth == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gammas": [0.0, 1.0]}, "above zero"),
        ({"gammas": [1.0]}, "at least two"),
        ({"steps": 0}, "steps=0"),
        ({"rates": [1.0, float("nan")]}, "above zero"),
        ({"octaves": (0, 1)}, "window"),
    ],
)
def test_bad_settings_are_named(change, words):
    with pytest.raises(DataError, match=words):
        richness_sweep(build, X, Y, **{"gammas": [0.1, 1.0], "steps": 5, **change})


def test_bad_data_and_modules_are_named():
    grid = {"gammas": [0.1, 1.0], "rates": [0.1, 1.0], "steps": 2}
    with pytest.raises(DataError, match="one target per input"):
        richness_sweep(build, X, Y[:-1], **grid)
    with pytest.raises(DataError, match="not finite"):
        richness_sweep(build, X, Y * np.nan, **grid)
    with pytest.raises(DataError, match="do not fit"):
        richness_sweep(build, X, torch.cat([Y, Y], 1), **grid)
    with pytest.raises(ModelError, match="factory"):
        richness_sweep(build(), X, Y, seeds=2, **grid)


# --- toy model


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("loss", ["mse", "cross-entropy"])
def test_critical_rate_is_where_descent_stops_converging(depth, loss):
    for gamma in (0.01, 1.0, 100.0):
        edge = toy_critical_rate(gamma, depth, loss)
        below, above = toy_descent([gamma], [0.95 * edge, 1.1 * edge], depth, 6000, loss)[0]
        assert below < 1e-3 < above


def test_critical_rate_is_two_over_the_second_derivative():
    gamma, depth = 3.0, 3
    w = torch.tensor((1 + gamma) ** (1 / depth), dtype=torch.float64)
    bend = torch.autograd.functional.hessian(lambda w: (((w**depth - 1) / gamma) - 1).square() / 2, w)
    assert 2 / float(bend) == pytest.approx(toy_critical_rate(gamma, depth), rel=1e-12)


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_flow_time_is_what_small_steps_take(depth):
    for gamma in (0.1, 20.0):
        time = toy_flow_time(0.6, gamma, depth)
        steps = 6000
        gap = toy_descent([gamma], [time / steps], depth, steps)[0, 0]
        assert gap == pytest.approx(0.4, rel=1e-2)


def test_flow_times_have_the_papers_limits():
    assert toy_flow_time(0.3, 1e-4, 4) == pytest.approx(1e-8 / 16 * np.log(1 / 0.7), rel=1e-3)
    assert toy_flow_time(0.5, 1e8, 4) == pytest.approx(1e8 / 8, rel=1e-3)
    assert mode_time(1.5, 1e-3, 2, 0.4) == pytest.approx(np.log(0.6 * 1.499 / (1e-3 * 0.9)) / 3, rel=1e-9)


def test_the_law_is_continuous():
    assert richness_law(1.0, 3) == 1 and richness_law(4.0, 2) == 4 and richness_law(0.5, 4) == 0.25
