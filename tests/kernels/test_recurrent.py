"""Recurrent networks: the closed recursion over time, hand-written loops, gates, and finite networks."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.kernels.finite import agrees, finite_kernels, limit_at, slopes
from tests.kernels.networks import OUTPUTS, Function, Network
from widthwise.kernels import infinite
from widthwise.program import trace


class Sequence(nn.Module):
    """A recurrent layer and a readout of its last state, or of the mean over time."""

    def __init__(self, cell: type[nn.RNNBase], n: int, read: str = "last", **options: object) -> None:
        super().__init__()
        self.cell = cell(3, n, batch_first=True, **options)
        self.last = nn.Linear((2 if options.get("bidirectional") else 1) * n, OUTPUTS)
        self.read = read

    def forward(self, x: Tensor) -> Tensor:
        states = self.cell(x)[0]
        return self.last(states[:, -1] if self.read == "last" else states.mean(1))


def loop(n: int, phi=torch.tanh, read: str = "last", bias: bool = True) -> Function:
    """The same recurrence written as a loop over two linear layers."""

    def forward(m: Function, x: Tensor) -> Tensor:
        h, states = torch.zeros(x.shape[0], n, dtype=m.u.weight.dtype), []
        for t in range(x.shape[1]):
            h = phi(m.w(h) + m.u(x[:, t]))
            states.append(h)
        return m.last(h if read == "last" else torch.stack(states, 1).mean(1))

    return Function(forward, w=nn.Linear(n, n, bias=bias), u=nn.Linear(3, n), last=nn.Linear(n, OUTPUTS, bias=bias))


# -- the closed recursion ----------------------------------------------------------------------------------------------


def recursion(x: np.ndarray, w: float, u: float, b: float, average: bool) -> np.ndarray:
    """Tangent kernel of ``h = W s + U x + b, s = erf(h)`` with gradients by unscaled matrices (sheet 2.10).

    Args:
        x: ``[n, T, d]``.
        w, u, b: variances.
    """
    n, steps, features = x.shape
    inner = np.einsum("itd,jsd->ijts", x, x) / features
    h, s, slope = (np.zeros((n, n, steps, steps)) for _ in range(3))
    for t in range(steps):
        for r in range(steps):
            before = s[:, :, t - 1, r - 1] if t and r else 0.0
            h[:, :, t, r] = w * before + u * inner[:, :, t, r] + b
        # needs the variances of both: filled in the order of the later of the two
        for r in range(t + 1):
            for a, c in {(t, r), (r, t)}:
                before = s[:, :, a - 1, c - 1] if a and c else 0.0
                h[:, :, a, c] = w * before + u * inner[:, :, a, c] + b
                p, q = (1 + 2 * np.diagonal(h[:, :, k, k]) for k in (a, c))
                root = p[:, None] * q[None]
                s[:, :, a, c] = 2 / np.pi * np.arcsin(2 * h[:, :, a, c] / np.sqrt(root))
                slope[:, :, a, c] = 4 / np.pi / np.sqrt(root - 4 * h[:, :, a, c] ** 2)
    read = np.ones((steps, steps)) / steps**2 if average else np.outer(*[np.arange(steps) == steps - 1] * 2)
    theta = np.einsum("ijts,ts->ij", s, read)
    back = np.zeros((n, n, steps + 1, steps + 1))
    for t in reversed(range(steps)):
        for r in reversed(range(steps)):
            back[:, :, t, r] = slope[:, :, t, r] * (read[t, r] + w * back[:, :, t + 1, r + 1])
            before = s[:, :, t - 1, r - 1] if t and r else 0.0
            theta += back[:, :, t, r] * (before + inner[:, :, t, r] + 1)
    return theta


SHEET = {
    "mean": [[0.848885772, 0.488922646], [0.488922646, 0.939575343]],
    "last": [[3.147790341, 0.632599604], [0.632599604, 3.053741752]],
}


@pytest.mark.parametrize("read", ["mean", "last"])
def test_closed_recursion(read):
    x = np.random.RandomState(3).randn(2, 4, 3)
    net = loop(16, torch.erf, read, bias=False)
    limit = infinite(
        trace(net, torch.tensor(x).float()), "plain", {"w.weight": 1.2**0.5, "u.weight": 0.8**0.5, "*": 1.0}, 0.1**0.5
    )
    got = limit(torch.tensor(x)).ntk.numpy()
    np.testing.assert_allclose(got, SHEET[read], atol=2e-9)
    np.testing.assert_allclose(got, recursion(x, 1.2, 0.8, 0.1, read == "mean"), rtol=1e-10)


def same_kernels(one: nn.Module, other: nn.Module, x: Tensor, rtol: float = 1e-10) -> None:
    """With entries of variance 1.3 / fan-in, and biases of variance 0.2."""
    kernels = (infinite(trace(net, x.float()), weight_std=1.3**0.5, bias_std=0.2**0.5)(x) for net in (one, other))
    for got, expected in zip(*kernels, strict=True):
        torch.testing.assert_close(got, expected, rtol=rtol, atol=1e-13)


X = torch.randn(3, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("phi", ["tanh", "relu"])
@pytest.mark.parametrize("read", ["mean", "last"])
def test_layer_is_the_loop_over_time(phi, read):
    """nn.RNN, nn.RNNCell in a loop and two linear layers in a loop."""
    layer = Sequence(nn.RNN, 16, read, nonlinearity=phi)
    same_kernels(layer, loop(16, getattr(torch, phi), read), X)
    cell = nn.RNNCell(3, 16, nonlinearity=phi)
    same_kernels(layer, Function(by_cell(read), cell=cell, last=layer.last), X)


def by_cell(read: str):
    def forward(m: Function, x: Tensor) -> Tensor:
        state, states = x.new_zeros(x.shape[0], 16), []
        if isinstance(m.cell, nn.LSTMCell):
            state = (state, state)
        for t in range(x.shape[1]):
            state = m.cell(x[:, t], state)
            states.append(state[0] if isinstance(state, tuple) else state)
        return m.last(states[-1] if read == "last" else torch.stack(states, 1).mean(1))

    return forward


def test_one_step_is_a_dense_layer():
    layer = Sequence(nn.RNN, 16, bias=False)
    dense = nn.Sequential(nn.Flatten(), nn.Linear(3, 16, bias=False), nn.Tanh(), layer.last)
    same_kernels(layer, dense, X[:, :1])


def test_two_layers_are_two_recurrences():
    layer = Sequence(nn.RNN, 16, num_layers=2)
    first, second = nn.RNN(3, 16, batch_first=True), nn.RNN(16, 16, batch_first=True)
    same_kernels(
        layer,
        Function(lambda m, x: m.last(m.b(m.a(x)[0])[0][:, -1]), a=first, b=second, last=layer.last),
        X,
    )


def test_both_directions_are_two_recurrences_side_by_side():
    layer = Sequence(nn.RNN, 16, "mean", bidirectional=True)
    forwards, backwards = nn.RNN(3, 16, batch_first=True), nn.RNN(3, 16, batch_first=True)

    def forward(m: Function, x: Tensor) -> Tensor:
        return m.last(torch.cat([m.f(x)[0], m.b(x.flip(1))[0].flip(1)], -1).mean(1))

    same_kernels(layer, Function(forward, f=forwards, b=backwards, last=layer.last), X)


def test_last_hidden_state_is_the_last_entry():
    layer = Sequence(nn.RNN, 16)
    same_kernels(layer, Function(lambda m, x: m.last(m.cell(x)[1][-1]), cell=layer.cell, last=layer.last), X)


def test_time_first():
    layer = Sequence(nn.RNN, 16)
    other = nn.RNN(3, 16)
    same_kernels(layer, Function(lambda m, x: m.last(m.cell(x.transpose(0, 1))[0][-1]), cell=other, last=layer.last), X)


def test_concatenated_positions_are_the_same_positions():
    """Cut in time and put together again, and reversed twice: nothing changes."""
    layer = Sequence(nn.RNN, 16, "mean")

    def forward(m: Function, x: Tensor) -> Tensor:
        states = m.cell(x)[0]
        again = torch.cat([states[:, :1], states[:, 1:3].flip(1).flip(1), states[:, 3:]], 1)
        return m.last(again.mean(1))

    same_kernels(layer, Function(forward, cell=layer.cell, last=layer.last), X)


@pytest.mark.parametrize(("layer", "cell"), [(nn.LSTM, nn.LSTMCell), (nn.GRU, nn.GRUCell)])
def test_gated_layer_is_the_loop_over_its_cell(layer, cell):
    """The same expressions, so the same samples."""
    whole, step = Sequence(layer, 16), cell(3, 16)
    same_kernels(whole, Function(by_cell("last"), cell=step, last=whole.last), X[:, :2], rtol=1e-8)


def test_gru_against_samples_of_one_coordinate():
    """The sheet's second moments of the last state, from a million samples; the errors of both are below 0.002."""
    x = torch.tensor(np.random.RandomState(7).randn(2, 4, 3))
    net = Sequence(nn.GRU, 16)
    limit = infinite(trace(net, x.float()), weight_std=1.0, bias_std=0.1**0.5)
    expected = torch.tensor([[0.2054, 0.1006], [0.1006, 0.2697]], dtype=torch.float64)
    torch.testing.assert_close(limit.feature_kernel(x), expected, rtol=0, atol=0.004)


# -- finite networks ---------------------------------------------------------------------------------------------------


def learned_start(n: int) -> nn.Module:
    """The initial state is a function of the first input.

    The others are scaled up: PyTorch draws the input matrix with variance 1 / (3 hidden), so that their share would
    fall with the width beside that of the start, and the relative error would have no single power law.
    """

    def forward(m: Function, x: Tensor) -> Tensor:
        return m.last(m.cell(n**0.5 * x[:, 1:], torch.tanh(m.start(x[:, 0])).unsqueeze(0))[0][:, -1])

    return Function(forward, cell=nn.RNN(3, n, batch_first=True), start=nn.Linear(3, n), last=nn.Linear(n, OUTPUTS))


FINITE = {
    "last state": Network(lambda n: Sequence(nn.RNN, n), (4, 3)),
    "mean over time": Network(lambda n: Sequence(nn.RNN, n, "mean", nonlinearity="relu"), (4, 3)),
    "two layers, both directions": Network(
        lambda n: Sequence(nn.RNN, n, "mean", num_layers=2, bidirectional=True), (3, 3)
    ),
    "start from an input": Network(learned_start, (4, 3)),
    "loop": Network(lambda n: loop(n, torch.erf, "mean"), (4, 3)),
    "LSTM": Network(lambda n: Sequence(nn.LSTM, n, "mean"), (3, 3)),
    "GRU": Network(lambda n: Sequence(nn.GRU, n), (3, 3)),
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
@pytest.mark.parametrize("name", ["last state", "mean over time", "start from an input"])
def test_error_falls_like_the_root_of_the_width(name):
    for slope, error in slopes(FINITE[name], (64, 128, 256, 512), 32):
        assert abs(slope + 0.5) < 3 * error, (slope, error)
        assert error < 0.15
