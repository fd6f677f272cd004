"""Grouped, depthwise and transposed convolutions: what they reduce to, brute force, and finite networks."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.kernels.finite import agrees, finite_kernels, limit_at, slopes
from tests.kernels.networks import OUTPUTS, Function, Network
from widthwise.core import UnsupportedOperation
from widthwise.kernels import infinite
from widthwise.program import trace

X = torch.randn(3, 2, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
IMAGES = torch.randn(3, 2, 4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
N = 16


def kernels(net: nn.Module, x: Tensor, std: float | dict[str, float] | None = 1.3, bias: float | None = 0.4):
    return infinite(trace(net.eval(), x.float()), weight_std=std, bias_std=bias)(x)


def same_kernels(one: nn.Module, other: nn.Module, x: Tensor) -> None:
    for got, expected in zip(kernels(one, x), kernels(other, x), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-13)


def tower(
    hidden: nn.Module, x: Tensor, read: type[nn.Module] = nn.Flatten, first: nn.Module | None = None
) -> nn.Module:
    """Convolution, relu, `hidden`, relu, readout."""
    conv = nn.Conv1d if x.dim() == 3 else nn.Conv2d
    body = nn.Sequential(first or conv(2, N, 3, padding=1), nn.ReLU(), hidden, nn.ReLU(), read())
    return nn.Sequential(body, nn.Linear(body(x.float()).shape[1], 2))


class Average(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=tuple(range(2, x.dim())))


# -- groups ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", [nn.Flatten, Average])
def test_groups_of_many_channels_are_dense(read):
    grouped, dense = (nn.Conv1d(N, N, 3, padding=1, groups=groups) for groups in (4, 1))
    same_kernels(tower(grouped, X, read), tower(dense, X, read), X)


def test_groups_of_a_concatenation_see_their_own_block():
    """Two blocks in two groups: each block has its own convolution."""

    def forward(m: Function, x: Tensor) -> Tensor:
        a, b = functional.relu(m.a(x)), torch.tanh(m.b(x))
        mixed = m.both(torch.cat([a, b], 1)) if hasattr(m, "both") else torch.cat([m.left(a), m.right(b)], 1)
        return m.last(functional.gelu(mixed).mean(2))

    def build(**parts: nn.Module) -> nn.Module:
        return Function(forward, a=nn.Conv1d(2, N, 3), b=nn.Conv1d(2, N, 3), last=nn.Linear(2 * N, 2), **parts)

    joint = build(both=nn.Conv1d(2 * N, 2 * N, 3, groups=2))
    same_kernels(joint, build(left=nn.Conv1d(N, N, 3), right=nn.Conv1d(N, N, 3)), X)


def test_groups_of_the_data():
    """Each half of the channels sees one channel of the data: the mean of the kernels of both."""
    net = tower(nn.Identity(), X, first=nn.Conv1d(2, N, 3, padding=1, groups=2))
    got = kernels(net, X)
    for kind in range(2):
        parts = []
        for channel in range(2):
            one = tower(nn.Identity(), X[:, :1], first=nn.Conv1d(1, N, 3, padding=1))
            parts.append(kernels(one, X[:, channel : channel + 1])[kind])
        torch.testing.assert_close(got[kind], (parts[0] + parts[1]) / 2, rtol=1e-10, atol=1e-12)


def test_groups_of_a_fixed_size_are_refused():
    """Many groups of four channels each are no limit of this kind; two widths show it."""

    def build(n: int) -> nn.Module:
        return tower(nn.Conv1d(n, n, 3, padding=1, groups=n // 4), X, first=nn.Conv1d(2, n, 3, padding=1))

    program = trace(build(16), X.float(), wider=build(32))
    with pytest.raises(UnsupportedOperation, match="at any width, not many"):
        infinite(program, method="exact")


# -- depthwise ---------------------------------------------------------------------------------------------------------


def test_depthwise_before_a_matrix_is_a_shared_filter():
    """Its second moments are those of a dense filter: the mean over taps of equally shifted pairs."""

    def build(hidden: nn.Module) -> nn.Module:
        layers = [nn.Conv1d(2, N, 3, padding=1), nn.ReLU(), hidden, nn.Conv1d(N, N, 1), nn.ReLU(), Average()]
        return nn.Sequential(*layers, nn.Linear(N, 2))

    depthwise = nn.Conv1d(N, N, 3, padding=1, groups=N)
    same_kernels(build(depthwise), build(nn.Conv1d(N, N, 3, padding=1)), X)


def test_depthwise_of_one_tap_against_brute_force():
    """``relu(w g + b)`` with plain random numbers."""
    net = nn.Sequential(nn.Conv1d(2, N, 1, bias=False), nn.Conv1d(N, N, 1, groups=N), nn.ReLU(), nn.Flatten())
    net = nn.Sequential(*net, nn.Linear(N, 2, bias=False))
    x = X[:, :, :1]
    limit = infinite(trace(net, x.float()), weight_std=1.0, bias_std=0.5)
    got = limit.feature_kernel(x)
    error = max(row.error for row in limit.certificate)
    generator = torch.Generator().manual_seed(5)
    count = 2_000_000
    g = torch.randn(count, 2, generator=generator) @ (x[:, :, 0].T / 2**0.5).float()
    w, b = torch.randn(count, 1, generator=generator), 0.5 * torch.randn(count, 1, generator=generator)
    h = functional.relu(w * g + b).double()
    torch.testing.assert_close(got, h.T @ h / count, rtol=0, atol=(4 * error + 0.005) * float(got.max()))


class ConvNeXt(nn.Module):
    """Depthwise filter, layer norm over channels, two pointwise layers, layer scale, skip."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.filter = nn.Conv2d(n, n, 3, padding=1, groups=n)
        self.norm, self.up, self.down = nn.LayerNorm(n), nn.Linear(n, 4 * n), nn.Linear(4 * n, n)
        self.scale = nn.Parameter(torch.full((n,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.filter(x).permute(0, 2, 3, 1))
        h = self.scale * self.down(functional.gelu(self.up(h)))
        return x + h.permute(0, 3, 1, 2)


def convnext(n: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, n, 2, stride=2), ConvNeXt(n), ConvNeXt(n), Average(), nn.Linear(n, OUTPUTS))


def test_convnext_is_exact():
    limit = infinite(trace(convnext(N), IMAGES.float()))
    limit(IMAGES)
    assert {row.rule for row in limit.certificate} == {"exact"}


# -- transposed --------------------------------------------------------------------------------------------------------


OPTIONS = [
    {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1},
    {"kernel_size": 4, "stride": 2, "padding": 1},
    {"kernel_size": 2, "stride": 3, "dilation": 2},
]


@pytest.mark.parametrize(
    ("x", "options"),
    [
        (X, OPTIONS[0]),
        *(pytest.param(X, one, marks=pytest.mark.slow) for one in OPTIONS[1:]),
        pytest.param(IMAGES[:2, :, :3, :3], OPTIONS[0], marks=pytest.mark.slow),
    ],
)
def test_transposed_is_a_convolution_of_zeros_in_between(options, x):
    """Zeros put between the entries, then a plain filter: the definition, on the data and on a hidden layer."""
    dims = x.dim() - 2
    transposed, conv = (nn.ConvTranspose1d, nn.Conv1d) if dims == 1 else (nn.ConvTranspose2d, nn.Conv2d)
    size, stride = options["kernel_size"], options["stride"]
    dilation, padding = options.get("dilation", 1), options.get("padding", 0)
    before = dilation * (size - 1) - padding

    def zeros_between(h: Tensor) -> Tensor:
        for axis in range(2, 2 + dims):
            spaced = torch.stack([h, *[0.0 * h] * (stride - 1)], axis + 1).flatten(axis, axis + 1)
            h = spaced.narrow(axis, 0, (h.shape[axis] - 1) * stride + 1)
        return functional.pad(h, (before, before + options.get("output_padding", 0)) * dims)

    class Between(nn.Module):
        def forward(self, h: Tensor) -> Tensor:
            return zeros_between(h)

    plain = [nn.Sequential(Between(), conv(n, N, size, dilation=dilation)) for n in (2, N)]
    others = [transposed(n, N, **options) for n in (2, N)]
    assert others[0](x.float()).shape == plain[0](x.float()).shape
    same_kernels(*(tower(nn.Identity(), x, Average, first=one[0]) for one in (others, plain)), x)
    same_kernels(*(tower(one[1], x, Average) for one in (others, plain)), x)
    same_kernels(*(tower(one[1], x) for one in (others, plain)), x)


@pytest.mark.parametrize("mode", ["circular", "reflect", "replicate"])
def test_padding_with_copies(mode):
    """Padding by hand, with concatenated copies of the ends."""

    class Padded(nn.Module):
        def forward(self, h: Tensor) -> Tensor:
            ends = {"circular": (h[..., -1:], h[..., :1]), "reflect": (h[..., 1:2], h[..., -2:-1])}
            first, last = ends.get(mode, (h[..., :1], h[..., -1:]))
            return torch.cat([first, h, last], -1)

    by_hand = nn.Sequential(Padded(), nn.Conv1d(N, N, 3))
    same_kernels(tower(nn.Conv1d(N, N, 3, padding=1, padding_mode=mode), X, Average), tower(by_hand, X, Average), X)


def test_pointwise_filters_are_dense():
    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(N, N)

        def forward(self, h: Tensor) -> Tensor:
            return self.inner(h.transpose(1, 2)).transpose(1, 2)

    same_kernels(tower(nn.Conv1d(N, N, 1), X), tower(Dense(), X), X)


# -- finite networks ---------------------------------------------------------------------------------------------------


def mobile(n: int) -> nn.Module:
    """A depthwise filter with a nonlinearity behind it."""
    return nn.Sequential(
        nn.Conv1d(2, n, 1), nn.ReLU(), nn.Conv1d(n, n, 2, groups=n), nn.ReLU(), nn.Conv1d(n, n, 1), nn.ReLU(),
        Average(), nn.Linear(n, OUTPUTS),
    )  # fmt: skip


def decoder(n: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, n, 3, stride=2), nn.ReLU(), nn.ConvTranspose1d(n, n, 3, stride=2, padding=1), nn.ReLU(), Average(),
        nn.Linear(n, OUTPUTS),
    )  # fmt: skip


def grouped(n: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, n, 3), nn.ReLU(), nn.Conv1d(n, n, 3, groups=2), nn.ReLU(), Average(), nn.Linear(n, OUTPUTS)
    )


FINITE = {
    "convnext": Network(convnext, (2, 4, 4)),
    "depthwise and relu": Network(mobile, (2, 4), sampled=True),
    "transposed": Network(decoder, (2, 7)),
    "grouped": Network(grouped, (2, 6)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(FINITE))
def test_mean_over_initialisations(name):
    network, width = FINITE[name], 128
    limit, x = limit_at(network, width)
    products, tangents = finite_kernels(network.build, x, width, 40)
    agrees(products, limit.feature_kernel(x), 3 / width)
    agrees(tangents, limit(x).ntk, 3 / width)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convnext", "transposed", "grouped"])
def test_error_falls_like_the_root_of_the_width(name):
    for slope, error in slopes(FINITE[name], (64, 128, 256), 32):
        assert abs(slope + 0.5) < 3 * error, (slope, error)
        assert error < 0.15
