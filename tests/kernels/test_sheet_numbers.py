"""Reference values of an independent NumPy implementation of the recursion, which agrees with neural-tangents."""

import numpy as np
import pytest
import torch
from torch import nn

from tests.kernels.modules import Erf, GlobalAverage, Residual, Sin
from widthwise.kernels import infinite
from widthwise.program import trace

X1 = torch.tensor([[1, 2, 3], [0.5, -1, 2]], dtype=torch.float64)
X2 = torch.tensor([[2, 0, -1], [1, 1, 1], [-1, 0.3, 0.2]], dtype=torch.float64)
WIDTH = 16


def row(net, weight_std, bias_std, x1=X1, x2=X2):
    limit = infinite(trace(net, x1[:2].float()), "ntk", weight_std, bias_std)
    kernels = limit(x1, x2)
    return kernels.nngp[0].tolist(), kernels.ntk[0].tolist()


@pytest.mark.parametrize(
    ("activation", "nngp", "ntk"),
    [
        (nn.ReLU(), [1.706294071, 2.662761289, 0.969079341], [2.197721914, 6.957101847, 1.432957224]),
        (Erf(), [-0.013016695, 0.467360950, 0.057069650], [-0.064380465, 1.841965841, 0.142312984]),
        (nn.GELU(), [1.431929061, 2.431864346, 0.635993524], [1.821195378, 6.901849443, 0.973040165]),
        (nn.LeakyReLU(0.1), [1.420896382, 2.708937105, 0.860123823], [1.773281058, 7.263499302, 1.319922052]),
        (Sin(), [0.026397329, 0.079198248, 0.029704898], [0.052465138, 0.404607586, 0.060059582]),
    ],
    ids=["relu", "erf", "gelu", "leaky relu", "sin"],
)
def test_dense(activation, nngp, ntk):
    net = nn.Sequential(
        nn.Linear(3, WIDTH), activation, nn.Linear(WIDTH, WIDTH), activation, nn.Linear(WIDTH, 2, bias=False)
    )
    got = row(net, {"4.weight": 1.0, "*": 1.5}, 0.3)
    assert got[0] == pytest.approx(nngp, abs=1e-8)
    assert got[1] == pytest.approx(ntk, abs=1e-8)


def test_layer_norm():
    norm = nn.LayerNorm(WIDTH, eps=0.0, elementwise_affine=False)
    net = nn.Sequential(nn.Linear(3, WIDTH), norm, nn.ReLU(), nn.Linear(WIDTH, 2, bias=False))
    nngp, ntk = row(net, {"0.weight": 1.2, "*": 1.0}, 0.1)
    assert nngp == pytest.approx([0.131064254, 0.465653969, 0.173139462], abs=1e-8)
    assert ntk == pytest.approx([0.104061092, 0.870887617, 0.187364673], abs=1e-8)


def test_residual():
    blocks = [Residual(nn.Sequential(nn.ReLU(), nn.Linear(WIDTH, WIDTH))) for _ in range(2)]
    net = nn.Sequential(nn.Linear(3, WIDTH), *blocks, nn.ReLU(), nn.Linear(WIDTH, 2, bias=False))
    nngp, ntk = row(net, {"4.weight": 1.0, "*": 1.2}, 0.1)
    assert nngp == pytest.approx([2.430560296, 4.337983533, 1.351087180], abs=1e-8)
    assert ntk == pytest.approx([2.958405637, 10.829205797, 1.909096780], abs=1e-8)


def images():
    state = np.random.RandomState(0)
    x1, x2 = state.randn(2, 5, 5, 2), state.randn(1, 5, 5, 2)
    return (torch.tensor(x).permute(0, 3, 1, 2).contiguous() for x in (x1, x2))


def column(net, weight_std, bias_std):
    x1, x2 = images()
    limit = infinite(trace(net, x1.float()), "ntk", weight_std, bias_std)
    kernels = limit(x1, x2)
    return kernels.nngp[:, 0].tolist(), kernels.ntk[:, 0].tolist()


def test_strided_convolutions_and_global_average():
    """ "SAME" padding of a 5 x 5 image with stride 2 is one zero on each side, written out."""
    net = nn.Sequential(
        nn.Conv2d(2, WIDTH, 3, padding="same"),
        nn.ReLU(),
        nn.ZeroPad2d((1, 1, 1, 1)),
        nn.Conv2d(WIDTH, WIDTH, 3, stride=2),
        nn.ReLU(),
        GlobalAverage(),
        nn.Linear(WIDTH, 2, bias=False),
    )
    nngp, ntk = column(net, {"6.weight": 1.0, "*": 2**0.5}, 0.1)
    assert nngp == pytest.approx([0.250240860, 0.192195197], abs=1e-8)
    assert ntk == pytest.approx([0.339452332, 0.253971489], abs=1e-8)


def test_convolution_and_flatten():
    net = nn.Sequential(
        nn.Conv2d(2, WIDTH, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(25 * WIDTH, 2, bias=False)
    )
    nngp, ntk = column(net, {"3.weight": 1.0, "*": 2**0.5}, 0.1)
    assert nngp == pytest.approx([0.300598924, 0.172728865], abs=1e-8)
    assert ntk == pytest.approx([0.338668604, 0.145408850], abs=1e-8)


def test_skip_that_carries_an_activation_output():
    """``v (phi + W phi)`` with phi = relu(g): phi and W phi are uncorrelated, each in closed form."""
    net = nn.Sequential(
        nn.Linear(3, WIDTH, bias=False),
        nn.ReLU(),
        Residual(nn.Linear(WIDTH, WIDTH, bias=False)),
        nn.Linear(WIDTH, 2, bias=False),
    )
    nngp, ntk = row(net, {"2.branch.weight": 1.3, "*": 1.0}, None)
    cosine = (X1[0] @ X2.T) / (X1[0].norm() * X2.norm(dim=1))
    angle = torch.arccos(cosine)
    scale = X1[0].norm() * X2.norm(dim=1) / 3
    relu = scale * (torch.sin(angle) + (torch.pi - angle) * cosine) / (2 * torch.pi)
    step = (torch.pi - angle) / (2 * torch.pi)
    first = scale * cosine
    assert nngp == pytest.approx(((1 + 1.3**2) * relu).tolist(), abs=1e-12)
    through = first * step * (1 + 1.3**2)
    assert ntk == pytest.approx(((1 + 1.3**2) * relu + 1.3**2 * relu + through).tolist(), abs=1e-12)


def test_conventions():
    """One hidden layer: sigma_w^2, 1 and the fan-in multiply the same terms; biases sigma_b^2, 1 and 1."""
    width, s, b = 16, 1.4, 0.3
    net = nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2))
    program = trace(net, X1.float())
    first = s**2 * (X1 @ X2.T) / 3 + b**2
    pre = {"ntk": first, "plain": (X1 @ X2.T) / 3 + 1, "standard": X1 @ X2.T + 1}
    of_x = [s**2 * (x.square().sum(1)) / 3 + b**2 for x in (X1, X2)]
    root = torch.sqrt(of_x[0][:, None] * of_x[1][None])
    angle = torch.arccos(first / root)
    relu = root * (torch.sin(angle) + (torch.pi - angle) * torch.cos(angle)) / (2 * torch.pi)
    step = (torch.pi - angle) / (2 * torch.pi)
    own = {"ntk": s**2 * relu + b**2, "plain": relu + 1, "standard": width * relu + 1}
    for name, tangent in pre.items():
        got = infinite(program, name, s, b)(X1, X2).ntk
        torch.testing.assert_close(got, own[name] + s**2 * step * tangent, rtol=1e-10, atol=1e-12)
