"""Sketched gradients: unbiased, at the rate that they state, for programs with convolutions, skips and attention."""

import numpy as np
import pytest
import torch
from sklearn.utils.estimator_checks import check_estimator
from torch import Tensor, nn

import widthwise as ww
from widthwise.core import DataError
from widthwise.kernels import GradientFeatures
from widthwise.probe import empirical_ntk

STREAM = torch.Generator().manual_seed(0)
IMAGES = torch.randn(8, 2, 6, 6, generator=STREAM, dtype=torch.float64)


class Residual(nn.Module):
    """A convolution with a skip, pooling and two outputs."""

    def __init__(self, width: int, outputs: int = 2, bias: bool = True) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, width, 3, padding=1, bias=bias)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=bias)
        self.last = nn.Linear(width, outputs, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x))
        return self.last((h + torch.relu(self.second(h))).mean((2, 3)))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.last = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layer(x).mean(1))


def fixed(kind: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(1)
    if kind == "attention":
        return Attention().double(), torch.randn(6, 4, 8, dtype=torch.float64)
    return Residual(4).double(), IMAGES


def gram(features: GradientFeatures, x: Tensor) -> np.ndarray:
    found = features.fit(x).transform(x)
    return found @ found.T


@pytest.mark.parametrize("kind", ["residual", "attention"])
def test_mean_over_sketches_is_the_empirical_kernel_with_the_stated_variance(kind: str) -> None:
    module, x = fixed(kind)
    exact = empirical_ntk(module, x).numpy()
    options = {"parametrization": "standard", "draws": 1 if kind == "attention" else 2}
    grams = np.stack([gram(GradientFeatures(module, 160, random_state=seed, **options), x) for seed in range(20)])
    deviation = grams.std(0, ddof=1) / 20**0.5
    assert (np.abs(grams.mean(0) - exact) < 4.5 * deviation).all()
    stated = (np.outer(np.diag(exact), np.diag(exact)) + exact**2) / 160
    if kind == "attention":  # one output: no variance from directions
        assert 0.2 * stated.sum() < grams.var(0, ddof=1).sum() < 1.2 * stated.sum()
        found = GradientFeatures(module, 160, **options).fit(x).errors(x)
        measured = np.sqrt(np.square(grams - exact).sum((1, 2)).mean()) / np.linalg.norm(exact)
        assert found.sketch_bound == pytest.approx(np.sqrt(stated.sum()) / np.linalg.norm(exact), rel=1e-6)
        assert 0.4 * found.sketch_bound < measured < 1.1 * found.sketch_bound


def test_sketch_error_falls_like_one_over_the_root_of_the_features() -> None:
    module, x = fixed("residual")
    sizes = (64, 256, 1024)
    options = {"parametrization": "standard"}
    errors = [
        np.mean([GradientFeatures(module, m, random_state=s, **options).fit(x).errors(x).sketch ** 2 for s in range(8)])
        for m in sizes
    ]
    slope = np.polyfit(np.log(sizes), np.log(np.sqrt(errors)), 1)[0]
    assert -0.65 < slope < -0.35


def plain(width: int) -> nn.Module:
    """No bias, PyTorch's own initial scales, which are recognised whatever the size of a tensor."""
    return Residual(width, 1, bias=False)


def limit_kernel(x: Tensor) -> Tensor:
    torch.manual_seed(0)
    return ww.infinite(ww.trace(plain(64).double(), IMAGES[:2]))(x).ntk


def test_networks_scatter_around_the_limit_like_one_over_the_root_of_the_width() -> None:
    """The errors of single draws against the exact kernel, and what `errors` says of the mean of all."""
    exact, widths, draws, rms = limit_kernel(IMAGES), (8, 32, 128), 8, []
    for width in widths:
        features = GradientFeatures(plain, draws, width=width, draws=draws).fit(IMAGES)
        kernels = torch.stack([features._empirical(draw, IMAGES) for draw in range(draws)])
        rms.append(float((kernels - exact).norm() / exact.norm() / draws**0.5))
    slope = np.polyfit(np.log(widths), np.log(rms), 1)[0]
    assert -0.75 < slope < -0.3
    assert features.errors(IMAGES).networks * draws**0.5 == pytest.approx(rms[-1], rel=0.4)


def test_whole_error_against_the_limit() -> None:
    features = GradientFeatures(plain, 4000, width=64, draws=8).fit(IMAGES)
    found = features.errors(IMAGES, limit_kernel)
    assert found.total < 3 * (found.sketch_bound**2 + found.networks**2) ** 0.5 + 3 / 64
    assert found.total < 0.25


def test_a_frozen_weight_has_no_part_and_constants_are_not_trained() -> None:
    module, x = fixed("residual")
    module.second.weight.requires_grad_(False)
    features = GradientFeatures(module, 20, parametrization="standard").fit(x)
    assert "second.weight" not in features.scales_
    with torch.no_grad():
        module.first.bias.zero_()
    assert GradientFeatures(module, 20).fit(x).scales_["first.bias"] == 0.0


def own_scales(width: int) -> nn.Module:
    module = Residual(width, 1, bias=False)
    nn.init.normal_(module.last.weight, std=1.7 * width**-0.5)
    return module


def test_scales_of_no_known_rule_are_measured_on_some_draws() -> None:
    """A readout of 16 entries: one draw knows its scale to 18 %, sixteen to 4 %."""
    features = GradientFeatures(own_scales, 20, width=16).fit(IMAGES)
    assert features.scales_["last.weight"] == pytest.approx(1.7 / 4, rel=0.12)
    assert features.scales_["first.weight"] == pytest.approx((3 * 18) ** -0.5)


def test_equal_seeds_give_equal_features_at_any_block() -> None:
    features = GradientFeatures("cnn", 50, width=4, draws=2).fit(IMAGES)
    found = features.transform(IMAGES)
    assert found.shape == (8, 50) and np.allclose(found[3:5], features.transform(IMAGES[3:5]))
    other = GradientFeatures("cnn", 50, width=4, draws=2, random_state=1).fit(IMAGES)
    assert not np.allclose(found, other.transform(IMAGES))


def test_bad_options() -> None:
    with pytest.raises(DataError, match="n_components is 0"):
        GradientFeatures(n_components=0).fit(np.ones((3, 2)))
    with pytest.raises(DataError, match="9 draws do not fit 4 features"):
        GradientFeatures(n_components=4, draws=9).fit(np.ones((3, 2)))
    with pytest.raises(DataError, match="'mup' is not known here"):
        GradientFeatures(parametrization="mup").fit(np.ones((3, 2)))
    with pytest.raises(DataError, match="a list is no network"):
        GradientFeatures([1]).fit(np.ones((3, 2)))


def test_scikit_learns_own_checks() -> None:
    known = {"check_do_not_raise_errors_in_init_or_set_params": "these tests check annotations at run time"}
    estimator = GradientFeatures("mlp", 12, width=4, parametrization="standard")
    results = check_estimator(estimator, expected_failed_checks=known, on_skip=None, on_fail=None)
    failed = [(one["check_name"], one["exception"]) for one in results if one["status"] == "failed"]
    assert len(results) > 30 and not failed
