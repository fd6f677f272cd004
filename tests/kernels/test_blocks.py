"""Dropout in training mode, blocks of the width, joins along positions, and other moves."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.kernels.networks import OUTPUTS, Function
from widthwise.core import UnsupportedOperation
from widthwise.kernels import infinite
from widthwise.program import trace

X = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SEQUENCES = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
N = 16
relu = functional.relu


def kernels(net: nn.Module, x: Tensor, training: bool = False):
    return infinite(trace(net, x.float(), training=training), weight_std=1.3, bias_std=0.4)(x)


def same_kernels(one: nn.Module, other: nn.Module, x: Tensor) -> None:
    for got, expected in zip(kernels(one, x), kernels(other, x), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-13)


# -- dropout -----------------------------------------------------------------------------------------------------------


def dropped(rate: float, **options: bool) -> nn.Module:
    return nn.Sequential(
        nn.Linear(3, N), nn.ReLU(), nn.Dropout(rate), nn.Linear(N, N), nn.ReLU(), nn.Linear(N, 2, **options)
    )


def test_dropout_divides_the_diagonal():
    """One hidden layer, masks of different inputs independent: K' = s^2 K / keep on the diagonal, s^2 K off it."""
    net = nn.Sequential(nn.Linear(3, N), nn.ReLU(), nn.Dropout(0.25), nn.Linear(N, 2, bias=False))
    plain, masked = kernels(net, X), kernels(net, X, training=True)
    factor = 1 + torch.eye(4, dtype=torch.float64) * (1 / 0.75 - 1)
    for got, expected in zip(masked, plain, strict=True):
        torch.testing.assert_close(got, expected * factor, rtol=1e-12, atol=1e-14)


def test_dropout_of_other_inputs_shares_no_mask():
    net = dropped(0.25)
    limit = infinite(trace(net, X.float(), training=True), weight_std=1.3, bias_std=0.4)
    whole = limit(X)
    for got, expected in zip(limit(X[:2], X[2:]), whole, strict=True):
        torch.testing.assert_close(got, expected[:2, 2:], rtol=1e-12, atol=1e-14)


def test_dropout_of_rate_zero_is_nothing():
    for got, expected in zip(kernels(dropped(0.0), X, training=True), kernels(dropped(0.0), X), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("layer", [nn.Dropout, nn.Dropout1d])
def test_dropout_over_positions(layer):
    """Mean over positions: masks of single positions count at equal positions only, those of channels everywhere."""

    class Mean(nn.Module):
        def forward(self, h: Tensor) -> Tensor:
            return h.mean(2)

    body = nn.Sequential(nn.Conv1d(2, N, 2, bias=False), nn.ReLU())
    net = nn.Sequential(*body, layer(0.4), Mean(), nn.Linear(N, 2, bias=False))
    flat = nn.Sequential(*body, nn.Flatten(), nn.Linear(4 * N, 2, bias=False))
    keep = 0.6
    got = kernels(net, SEQUENCES, training=True).nngp.diagonal()
    plain, equal = (kernels(one, SEQUENCES).nngp.diagonal() for one in (net, flat))
    expected = plain / keep if layer is nn.Dropout1d else plain + (1 / keep - 1) * equal / 4
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=0)


def test_dropout_of_the_data_is_refused():
    net = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, N), nn.ReLU(), nn.Linear(N, 2))
    with pytest.raises(UnsupportedOperation, match="drops entries of the data"):
        infinite(trace(net, X.float(), training=True))


@pytest.mark.slow
def test_dropout_against_finite_networks():
    """Two random passes of one network on different inputs, and one pass with itself."""
    width, draws = 512, 300
    net = dropped(0.25)
    limit = infinite(trace(net, X.float(), training=True), weight_std=1.3, bias_std=0.4)
    generator = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    total, square = torch.zeros(4, 4, dtype=torch.float64), torch.zeros(4, 4, dtype=torch.float64)
    for _ in range(draws):
        h = relu(X @ normal(3, width) * 1.3 / 3**0.5 + 0.4 * normal(width))
        h = h * (torch.rand(4, width, generator=generator) < 0.75) / 0.75
        h = relu(h @ normal(width, width) * 1.3 / width**0.5 + 0.4 * normal(width))
        k = h @ h.T / width
        total, square = total + k, square + k**2
    mean = total / draws
    error = ((square / draws - mean**2) / draws).sqrt()
    assert bool(((mean - limit.feature_kernel(X)).abs() < 5 * error + 0.01 * mean).all())


# -- blocks of the width -----------------------------------------------------------------------------------------------


def two(forward, **parts: nn.Module) -> nn.Module:
    return Function(forward, first=nn.Linear(3, N), last=nn.Linear(N, 2), **parts)


def test_cut_and_joined_again_is_the_same():
    def joined(m: Function, x: Tensor) -> Tensor:
        h = m.first(x)
        return m.last(relu(h + torch.cat(h.chunk(2, 1), 1)))

    same_kernels(two(joined), two(lambda m, x: m.last(relu(2.0 * m.first(x)))), X)


def test_swapped_halves_are_independent_copies():
    """``h + swapped h``: the sum of two independent vectors of the law of h."""

    def swapped(m: Function, x: Tensor) -> Tensor:
        h = m.first(x)
        a, b = h.chunk(2, 1)
        return m.last(relu(h + torch.cat([b, a], 1)))

    def sheared(m: Function, x: Tensor) -> Tensor:
        return m.last(relu(m.first(x) + m.second(x)))

    got, expected = kernels(two(swapped), X), kernels(two(sheared, second=nn.Linear(3, N)), X)
    torch.testing.assert_close(got.nngp, expected.nngp, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(got.ntk, expected.ntk, rtol=1e-10, atol=1e-13)


# -- joins and moves along positions -----------------------------------------------------------------------------------


class Tokens(nn.Module):
    """A learned vector in front of the sequence, as for classification."""

    def __init__(self, by_hand: bool) -> None:
        super().__init__()
        self.first, self.hidden, self.last = nn.Linear(2, N), nn.Linear(N, N), nn.Linear(N, 2)
        self.mark = nn.Parameter(torch.randn(1, 1, N))
        self.by_hand = by_hand

    def forward(self, x: Tensor) -> Tensor:
        h = relu(self.first(x.transpose(1, 2)))
        mark = self.mark.expand(x.shape[0], 1, N)
        if self.by_hand:
            both = relu(self.hidden(mark)).sum(1) + relu(self.hidden(h)).sum(1)
            return self.last(both / 6.0)
        return self.last(relu(self.hidden(torch.cat([mark, h], 1))).mean(1))


def test_vector_in_front_of_the_sequence():
    same_kernels(Tokens(True), Tokens(False), SEQUENCES)


MOVES = {
    "roll": (lambda h: torch.roll(h, 2, 2), lambda h: torch.cat([h[:, :, -2:], h[:, :, :-2]], 2)),
    "index": (
        lambda h: h.index_select(2, torch.tensor([3, 0, 0])),
        lambda h: torch.stack([h[:, :, 3], h[:, :, 0], h[:, :, 0]], 2),
    ),
    "flip": (lambda h: h.flip(2), lambda h: torch.stack([h[:, :, i] for i in range(4, -1, -1)], 2)),
    "cumsum": (
        lambda h: h.cumsum(2),
        lambda h: torch.stack([sum(h[:, :, j] for j in range(1, i + 1)) + h[:, :, 0] for i in range(5)], 2),
    ),
}


@pytest.mark.parametrize("name", list(MOVES))
def test_moves_of_positions(name):
    """Followed by a filter, which sees neighbours, and the mean of the first two."""

    def build(move) -> nn.Module:
        def forward(m: Function, x: Tensor) -> Tensor:
            h = m.second(move(relu(m.first(x))))
            return m.last(relu(h)[:, :, :2].mean(2))

        return Function(forward, first=nn.Conv1d(2, N, 1), second=nn.Conv1d(N, N, 2), last=nn.Linear(N, OUTPUTS))

    same_kernels(*(build(one) for one in MOVES[name]), SEQUENCES)


def test_weights_of_positions():
    """A constant of several numbers times the positions, then their sum: the product with a row of these numbers."""
    weights, x = torch.linspace(-1, 2, 6), torch.randn(3, 6, 5, generator=torch.Generator().manual_seed(2)).double()

    def build(weigh) -> nn.Module:
        return Function(lambda m, x: m.last(weigh(relu(m.first(x)))), first=nn.Linear(5, N), last=nn.Linear(N, OUTPUTS))

    by_product = build(lambda h: (weights[None, None] @ h).squeeze(1))
    same_kernels(build(lambda h: (h * weights[:, None]).sum(1)), by_product, x)
