"""Products with a parameter in any position, tables, shuffles and token mixing, and finite networks with them."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.kernels.finite import agrees, finite_kernels, limit_at, slopes
from tests.kernels.networks import OUTPUTS, Function, Network
from tests.kernels.test_recurrent import same_kernels
from widthwise.core import UnsupportedOperation
from widthwise.kernels import infinite
from widthwise.kernels._batch_norm import batch_norm_relu_across
from widthwise.probe import features
from widthwise.program import trace

N = 12
SEQUENCE = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
IMAGES = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def weights(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape))) / shape[-1] ** 0.5)


def after_filters(inner, *, n: int = N, **parts) -> nn.Module:
    """Filters and ReLU, something, ReLU, the mean over positions and a readout."""

    def forward(m: Function, x: Tensor) -> Tensor:
        return m.last(functional.relu(inner(m, functional.relu(m.first(x)))).mean(2))

    return Function(forward, first=nn.Conv1d(2, n, 3), last=nn.Linear(n, OUTPUTS), **parts)


DENSE = {
    "einsum": (lambda m, h: torch.einsum("oi,bit->bot", m.w, h), (N, N)),
    "einsum, last axis": (lambda m, h: torch.einsum("bti,io->bto", h.transpose(1, 2), m.w).transpose(1, 2), (N, N)),
    "einsum, parameter first": (lambda m, h: torch.einsum("io, bit -> bot", m.w, h), (N, N)),
    "from the left": (lambda m, h: m.w @ h, (N, N)),
    "heads": (
        lambda m, h: torch.einsum("bthk,hki->bit", torch.einsum("bit,ihk->bthk", h, m.v), m.w),
        (3, N, N),
    ),
}


@pytest.mark.parametrize("name", list(DENSE))
def test_a_matrix_in_any_position_is_a_dense_layer(name):
    inner, shape = DENSE[name]
    parts = {"w": weights(*shape)} | ({"v": weights(N, 3, N)} if name == "heads" else {})
    layers = [nn.Conv1d(N, 3 * N, 1, bias=False), nn.Conv1d(3 * N, N, 1, bias=False)]
    plain = nn.Sequential(*layers) if name == "heads" else nn.Conv1d(N, N, 1, bias=False)
    same_kernels(after_filters(inner, **parts), after_filters(lambda m, h: m.c(h), c=plain), SEQUENCE)


def test_patches_times_a_shared_matrix_are_a_convolution():
    """unfold and a linear layer over taps and channels."""

    def unfolded(m: Function, x: Tensor) -> Tensor:
        seen = functional.unfold(functional.relu(m.first(x)), 2, stride=2)
        return m.last(functional.relu(m.filters(seen.transpose(1, 2))).flatten(1))

    def convolved(m: Function, x: Tensor) -> Tensor:
        return m.last(functional.relu(m.filters(functional.relu(m.first(x)))).flatten(2).transpose(1, 2).flatten(1))

    def build(forward, filters: nn.Module) -> nn.Module:
        return Function(forward, first=nn.Conv2d(2, N, 1), filters=filters, last=nn.Linear(4 * N, OUTPUTS))

    one, other = build(unfolded, nn.Linear(4 * N, N)), build(convolved, nn.Conv2d(N, N, 2, stride=2))
    same_kernels(one, other, IMAGES)


def unshared(n: int, *, pooled: bool = False) -> nn.Module:
    """Patches times a matrix of their own at each place (a locally connected layer), on the data and behind it."""

    def forward(m: Function, x: Tensor) -> Tensor:
        h = functional.relu(torch.einsum("bkl,lko->bol", functional.unfold(x, 2), m.first) + m.shift)
        h = functional.relu(torch.einsum("bcl,lco->blo", h, m.second))
        return m.last(h.mean(1) if pooled else h.flatten(1))

    first, second = torch.randn(9, 8, n) / 8**0.5, torch.randn(9, n, n) * (2 / n) ** 0.5
    parts = {"first": nn.Parameter(first), "second": nn.Parameter(second), "shift": nn.Parameter(torch.randn(n, 9))}
    return Function(forward, last=nn.Linear(n if pooled else 9 * n, OUTPUTS), **parts)


@pytest.mark.parametrize("pooled", [False, True])
def test_unshared_filters_are_independent_at_each_place(pooled):
    """Kernels of one place at a time, written out; a mean over places keeps pairs of equal places alone, but for the
    product of means that ReLU leaves between different ones."""
    limit = infinite(trace(unshared(N, pooled=pooled), IMAGES.float()), weight_std=1.2, bias_std=0.3)
    x = functional.unfold(IMAGES, 2)
    first = 1.44 * torch.einsum("ikl,jkl->ijl", x, x) / 8 + 0.09
    size = first.diagonal().T.sqrt()[:, None] * first.diagonal().T.sqrt()[None]
    angle = torch.acos((first / size).clamp(-1, 1))
    second = 1.44 * size * (angle.sin() + (torch.pi - angle) * angle.cos()) / (2 * torch.pi)
    power = second.diagonal().T
    size = (power[:, None] * power[None]).sqrt()
    angle = torch.acos((second / size).clamp(-1, 1))
    same = size * (angle.sin() + (torch.pi - angle) * angle.cos()) / (2 * torch.pi)  # [n, n, places]
    expected = same.mean(2)
    if pooled:
        mean = power.sqrt() / (2 * torch.pi) ** 0.5
        expected = same.sum(2) + mean.sum(1)[:, None] * mean.sum(1)[None] - torch.einsum("il,jl->ij", mean, mean)
        expected = expected / 81
    torch.testing.assert_close(limit.feature_kernel(IMAGES), expected, rtol=1e-6, atol=1e-9)


def bagged(n: int, mode: str = "mean", by_hand: bool = False) -> nn.Module:
    def forward(m: Function, x: Tensor) -> Tensor:
        rows = m.table(x)
        rows = (rows.mean(1) if mode == "mean" else rows.sum(1)) if by_hand else rows
        return m.last(functional.relu(m.hidden(functional.relu(rows))))

    table = nn.Embedding(9, n) if by_hand else nn.EmbeddingBag(9, n, mode=mode)
    return Function(forward, table=table, hidden=nn.Linear(n, n), last=nn.Linear(n, OUTPUTS))


@pytest.mark.parametrize("mode", ["mean", "sum"])
def test_a_bag_is_the_mean_of_its_rows(mode):
    x = torch.randint(0, 9, (4, 5), generator=torch.Generator().manual_seed(0))
    one, other = (
        infinite(trace(bagged(N, mode, flag), x[:2]), weight_std=1.1, bias_std=0.2)(x) for flag in (False, True)
    )
    for got, expected in zip(one, other, strict=True):
        torch.testing.assert_close(got, expected)


def stem(n: int, *rest: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, n, 3, padding=1), nn.ReLU(), *rest, nn.Flatten())


def shuffled(n: int, *between: nn.Module) -> nn.Module:
    return stem(n, nn.Conv2d(n, 4 * n, 1), *between, nn.ReLU(), nn.Flatten(), nn.Linear(64 * n, OUTPUTS))


def test_sub_pixels_are_independent_copies():
    """Where everything is flattened their order is nothing."""
    same_kernels(shuffled(N, nn.PixelShuffle(2)), shuffled(N), IMAGES)


def test_pixels_taken_apart_and_put_together_again():
    filters = [nn.Conv2d(4 * N, N, 1), nn.Conv2d(N, N, 2, stride=2)]
    tail = [nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(N, OUTPUTS)]
    apart = stem(N, nn.PixelUnshuffle(2), filters[0], *tail)
    same_kernels(apart, stem(N, filters[1], *tail), IMAGES)
    again = stem(N, nn.PixelUnshuffle(2), nn.PixelShuffle(2), filters[1], *tail)
    same_kernels(again, stem(N, filters[1], *tail), IMAGES)


def test_channels_in_another_order():
    tail = [nn.Conv2d(N, N, 3, groups=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(N, OUTPUTS)]
    same_kernels(stem(N, nn.ChannelShuffle(2), *tail), stem(N, *tail), IMAGES)


def test_both_orders_of_channels_in_one_sum_are_refused():
    class Both(nn.Module):
        def forward(self, h: Tensor) -> Tensor:
            return h + functional.channel_shuffle(h, 3)

    net = stem(N, Both(), nn.Flatten(), nn.Linear(16 * N, OUTPUTS))
    with pytest.raises(UnsupportedOperation, match="meets the whole"):
        infinite(trace(net, IMAGES.float()))(IMAGES)


# -- norms of one coordinate over positions ----------------------------------------------------------------------------


def instance_normalised(n: int, norm: type[nn.Module] | None = nn.InstanceNorm1d) -> nn.Module:
    layer = nn.GroupNorm(n, n) if norm is None else norm(n)
    return nn.Sequential(nn.Conv1d(2, n, 3), layer, nn.ReLU(), nn.Flatten(), nn.Linear(6 * n, OUTPUTS))


@pytest.mark.parametrize("norm", [nn.InstanceNorm1d, None])
def test_instance_norm_and_relu_against_the_integrals(norm):
    """Each coordinate is standardised over its six positions, two inputs apart: integrals in two variables."""
    x = torch.randn(2, 2, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    limit = infinite(
        trace(instance_normalised(N, norm), x.float()), weight_std=1.0, bias_std={"0.bias": 0.5}, rtol=1e-2
    )
    got = limit.feature_kernel(x)
    patches = x.unfold(2, 3, 1).permute(0, 2, 1, 3).flatten(2)
    cov = torch.einsum("ipk,jqk->ijpq", patches, patches) / 6 + 0.25
    moment, _ = batch_norm_relu_across(cov[0, 0], cov[1, 1], cov[0, 1], cov[0, 1], eps=1e-5)
    assert float(got[0, 1]) == pytest.approx(float(moment.diagonal().mean()), abs=0.02)
    torch.testing.assert_close(got.diagonal(), torch.full((2,), 0.5, dtype=torch.float64), rtol=0, atol=0.02)
    assert {row.rule for row in limit.certificate} == {"sampled"}


def test_instance_norm_by_running_statistics_is_an_affine_map():
    def build(norm: nn.Module) -> nn.Module:
        norm.running_mean.fill_(0.3)
        norm.running_var.fill_(0.5)
        return nn.Sequential(nn.Conv1d(2, N, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(3 * N, OUTPUTS)).eval()

    one, other = build(nn.InstanceNorm1d(N, track_running_stats=True)), build(nn.BatchNorm1d(N, affine=False))
    same_kernels(one, other, SEQUENCE)


# -- token mixing ------------------------------------------------------------------------------------------------------


class Mixing(nn.Module):
    """A two-layer perceptron over tokens whose small matrices are the same in every network."""

    def __init__(self, tokens: int, hidden: int) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(7)
        self.up = nn.Parameter(torch.randn(hidden, tokens, generator=draw) / tokens**0.5, requires_grad=False)
        self.down = nn.Parameter(torch.randn(tokens, hidden, generator=draw) / hidden**0.5, requires_grad=False)
        self.shift = nn.Parameter(torch.randn(hidden, generator=draw) / 2, requires_grad=False)

    def forward(self, h: Tensor) -> Tensor:
        return functional.linear(functional.gelu(functional.linear(h, self.up, self.shift)), self.down)


class MixerBlock(nn.Module):
    """Tokens are mixed, then channels (arXiv:2105.01601)."""

    def __init__(self, n: int, tokens: int, hidden: int) -> None:
        super().__init__()
        self.tokens, self.one, self.two = Mixing(tokens, hidden), nn.LayerNorm(n), nn.LayerNorm(n)
        self.channels = nn.Sequential(nn.Linear(n, 2 * n), nn.GELU(), nn.Linear(2 * n, n))

    def forward(self, h: Tensor) -> Tensor:
        h = h + self.tokens(self.one(h).transpose(1, 2)).transpose(1, 2)
        return h + self.channels(self.two(h))


def mixer(n: int, hidden: int = 6) -> nn.Module:
    def forward(m: Function, x: Tensor) -> Tensor:
        return m.last(m.norm(m.block(m.patches(x).flatten(2).transpose(1, 2))).mean(1))

    parts = {"norm": nn.LayerNorm(n), "last": nn.Linear(n, OUTPUTS)}
    return Function(forward, patches=nn.Conv2d(2, n, 2, stride=2), block=MixerBlock(n, 4, hidden), **parts)


def test_mixing_by_the_identity_is_no_mixing():
    """A token matrix that copies tokens leaves a pointwise function of each."""

    def build(inner) -> nn.Module:
        def forward(m: Function, x: Tensor) -> Tensor:
            return m.last(functional.relu(inner(m, m.first(x))).mean(2))

        parts = {"copy": nn.Linear(3, 3, bias=False), "same": nn.Linear(3, 3)}
        net = Function(forward, first=nn.Conv1d(2, N, 3), last=nn.Linear(N, OUTPUTS), **parts)
        for part in (net.copy, net.same):
            nn.init.eye_(part.weight)
        nn.init.constant_(net.same.bias, 0.25)
        return net

    inner = [lambda m, h: m.same(functional.gelu(m.copy(h))), lambda m, h: functional.gelu(h) + 0.25]
    kernels = []
    for one in inner:
        torch.manual_seed(0)
        kernels.append(infinite(trace(build(one), SEQUENCE.float()))(SEQUENCE))
    for got, expected in zip(*kernels, strict=True):
        torch.testing.assert_close(got, expected, rtol=0.03, atol=0.02 * float(expected.max()))


@pytest.mark.parametrize("wider", [False, True])
def test_a_mixer_is_exact_given_its_token_weights(wider):
    """Hidden tokens are positions, whether a wider network shows it or not."""
    program = trace(mixer(16), IMAGES.float(), wider=mixer(32) if wider else None)
    limit = infinite(program)
    kernels = limit(IMAGES[:2])
    assert limit.method == "exact"
    given = [row.node for row in limit.certificate if row.rule.startswith("exact, given")]
    assert len(given) == 2 and {row.rule for row in limit.certificate} >= {"exact", "quadrature"}
    assert float(torch.linalg.eigvalsh(kernels.ntk)[0]) > 0


# -- finite networks ---------------------------------------------------------------------------------------------------


def einsum_net(n: int) -> nn.Module:
    return after_filters(
        lambda m, h: torch.einsum("oi,bit->bot", m.w, h), n=n, w=nn.Parameter(torch.randn(n, n) / n**0.5)
    )


def pixels(n: int) -> nn.Module:
    return stem(
        n, nn.Conv2d(n, 4 * n, 1), nn.PixelShuffle(2), nn.ReLU(), nn.Conv2d(n, n, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n, OUTPUTS),
    )  # fmt: skip


FINITE = {
    "mixer": Network(mixer, (2, 4, 4)),
    "unshared": Network(lambda n: unshared(n, pooled=True), (2, 4, 4)),
    "bag": Network(bagged, (5,), tokens=9),
    "einsum": Network(einsum_net, (2, 5)),
    "pixel shuffle": Network(pixels, (2, 4, 4)),
    "instance norm": Network(instance_normalised, (2, 8), sampled=True),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(FINITE))
def test_mean_over_initialisations(name):
    network, width = FINITE[name], 128
    limit, x = limit_at(network, width)
    products, tangents = finite_kernels(network.build, x, width, 30)
    agrees(products, limit.feature_kernel(x), 3 / width)
    agrees(tangents, limit(x).ntk, 3 / width)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, network in FINITE.items() if not network.sampled])
def test_error_falls_like_the_root_of_the_width(name):
    draws = 36 if name == "pixel shuffle" else 24  # its errors scatter most between draws
    for slope, error in slopes(FINITE[name], (64, 128, 256), draws):
        assert abs(slope + 0.5) < 3 * error, (slope, error)
        assert error < 0.15


def test_finite_mixers_approach_the_limit():
    """The features alone, at one width: within four standard errors of the limit, whose correction is of order 1/n."""
    network, width = FINITE["mixer"], 128
    limit, x = limit_at(network, width)
    products = []
    for draw in range(8):
        torch.manual_seed(draw)
        h = features(mixer(width).double(), x).flatten(1)
        products.append(h @ h.T / h.shape[1])
    agrees(torch.stack(products), limit.feature_kernel(x), 3 / width)
