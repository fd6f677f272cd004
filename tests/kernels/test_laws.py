"""What holds for the kernels of every network: symmetry, tiles, rows, order, precision, certificates."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.kernels.networks import NETWORKS, OUTPUTS, Function, Network
from widthwise.core import DataError, ModelError, seeded
from widthwise.kernels import _certificate, _evaluation, infinite
from widthwise.program import trace

WIDTH = 16
COUNT = 4


def limit_of(network: Network, parametrization: str = "ntk", **scales):
    with seeded(0, "laws"):
        module = network.build(WIDTH).eval()
    inputs = network.inputs(3)
    return infinite(trace(module, inputs if network.tokens else inputs.float()), parametrization, **scales)


def close(got, expected, tolerance):
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))


@pytest.fixture(
    params=[pytest.param(k, marks=pytest.mark.slow) if v.sampled and k != "gated" else k for k, v in NETWORKS.items()]
)
def network(request):
    return NETWORKS[request.param]


def test_gram_matrices(network, monkeypatch):
    """One suite, so that each network is traced and its Gram matrices made once."""
    limit, x = limit_of(network, "standard"), network.inputs(COUNT)
    whole = limit(x)
    exact = 1e-9 if not network.sampled else 3e-2  # quadrature aims at 1e-10
    for gram in whole:
        close(gram, gram.T, 1e-12)
        smallest = float(torch.linalg.eigvalsh(gram)[0])
        assert smallest > -exact * float(gram.diagonal().max())

    crossed = limit(x, x)  # the general formulas, where the diagonal loses half of the digits
    for gram, other in zip(whole, crossed, strict=True):
        close(other, gram, 1e-6 if not network.sampled else exact)

    order = torch.tensor([3, 0, 1, 2])
    for gram, other in zip(whole, limit(x[order]), strict=True):
        close(other, gram[order][:, order], exact)
    for gram, other in zip(whole, limit(x[1:3]), strict=True):
        close(other, gram[1:3, 1:3], exact)

    left, right = limit(x[:2], x[2:]), limit(x[2:], x[:2])
    for one, other, gram in zip(left, right, whole, strict=True):
        close(one, other.T, exact)
        close(one, gram[:2, 2:], exact)

    monkeypatch.setattr(_evaluation, "TILE_BYTES", 1)
    assert limit.tile_side() == 1
    for gram, other in zip(whole, limit(x), strict=True):
        close(other, gram, exact)


def test_float32(network):
    if network.sampled:
        pytest.skip("roots of singular covariances differ in single precision beyond rounding")
    limit, x = limit_of(network), network.inputs(COUNT)
    for single, double in zip(limit(x, dtype=torch.float32), limit(x), strict=True):
        assert single.dtype == torch.float32
        close(single.double(), double, 1e-4)


def test_certificate(network):
    """Every operation on the way has a row; errors stand where a rule is not exact, and there only."""
    limit = limit_of(network)
    limit(network.inputs(COUNT))
    rows = {row.node: row for row in limit.certificate}
    assert set(rows) == {node.name for node in limit.program.nodes if node.kind == "op"}
    assert all(row.error == 0.0 for row in rows.values() if row.rule in ("exact", "concrete"))
    assert all(row.error < 1e-6 for row in rows.values() if row.rule == "quadrature")
    sampled = [row for row in rows.values() if row.rule == "sampled"]
    assert bool(sampled) == network.sampled
    assert all(1e-7 < row.error < 0.1 for row in sampled)


@pytest.mark.parametrize("name", ["mlp", "cnn2d", "layer norm after relu", "concatenation", "tokens"])
def test_kernel_is_the_readout_of_the_feature_kernel(name):
    network = NETWORKS[name]
    limit, x = limit_of(network, weight_std=1.3, bias_std=0.4), network.inputs(COUNT)
    close(limit.nngp(x), 1.3**2 * limit.feature_kernel(x) + 0.4**2, 1e-12)


def test_linear_network():
    """NTK = (L + 1) K without biases and at unit variances."""
    depth = 4
    layers = [nn.Linear(3, 8, bias=False), *(nn.Linear(8, 8, bias=False) for _ in range(depth))]
    kernels = infinite(trace(nn.Sequential(*layers), torch.ones(2, 3)), weight_std=1.0)(torch.eye(3))
    close(kernels.nngp, torch.eye(3, dtype=torch.float64) / 3, 1e-12)
    close(kernels.ntk, (depth + 1) * kernels.nngp, 1e-12)


def test_convolution_of_one_tap_is_dense():
    x = torch.randn(4, 3, 1)
    conv = nn.Sequential(nn.Conv1d(3, 8, 1), nn.GELU(), nn.Conv1d(8, 8, 1), nn.GELU(), nn.Flatten(), nn.Linear(8, 2))
    dense = nn.Sequential(nn.Linear(3, 8), nn.GELU(), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 2))
    first = infinite(trace(conv, x), "standard", 1.4, 0.2)(x)
    second = infinite(trace(dense, x[..., 0]), "standard", 1.4, 0.2)(x[..., 0])
    for one, other in zip(first, second, strict=True):
        close(one, other, 1e-12)


def test_global_average_of_circular_convolutions_does_not_see_translations():
    def forward(m: Function, x: torch.Tensor) -> torch.Tensor:
        return m.last(functional.relu(m.second(functional.relu(m.first(x)))).mean((2, 3)))

    circular = {"padding": 1, "padding_mode": "circular"}
    net = Function(
        forward, first=nn.Conv2d(1, 8, 3, **circular), second=nn.Conv2d(8, 8, 3, **circular), last=nn.Linear(8, 2)
    )
    x = torch.randn(3, 1, 4, 5, dtype=torch.float64)
    limit = infinite(trace(net, x.float()))
    for one, other in zip(limit(x), limit(x.roll((1, 2), (2, 3)), x), strict=True):
        close(other, one, 1e-6)


def test_batch_of_another_size_than_traced():
    network = NETWORKS["cnn2d"]
    limit, x = limit_of(network), network.inputs(7)
    assert limit(x[:1]).nngp.shape == (1, 1)
    close(limit(x).ntk[:1, :1], limit(x[:1]).ntk, 1e-12)


def test_examples_and_positions_on_one_axis():
    """Some models flatten (batch, time) before the first layer: the same kernel."""
    parts = {"first": nn.Linear(5, 8), "last": nn.Linear(8, OUTPUTS)}
    plain = Function(lambda m, x: m.last(functional.relu(m.first(x)).mean(1)), **parts)
    flat = Function(lambda m, x: m.last(functional.relu(m.first(x.reshape(-1, 5))).view(-1, 6, 8).mean(1)), **parts)
    x = torch.randn(4, 6, 5)
    for one, other in zip(infinite(trace(plain, x))(x), infinite(trace(flat, x))(x), strict=True):
        close(one, other, 1e-12)


def test_state_that_starts_at_zero():
    """Hand-written recurrences start from zeros made in the forward pass."""
    parts = {"first": nn.Linear(3, 8), "again": nn.Linear(8, 8), "last": nn.Linear(8, OUTPUTS)}

    def forward(m: Function, x: torch.Tensor) -> torch.Tensor:
        h = torch.zeros(x.shape[0], 8)
        for _ in range(2):
            h = functional.relu(m.again(h + m.first(x)))
        return m.last(h)

    def written_out(m: Function, x: torch.Tensor) -> torch.Tensor:
        return m.last(functional.relu(m.again(functional.relu(m.again(m.first(x))) + m.first(x))))

    x = torch.randn(3, 3)
    for one, other in zip(*(infinite(trace(Function(f, **parts), x))(x) for f in (forward, written_out)), strict=True):
        close(one, other, 1e-12)


@pytest.mark.parametrize("sizes", [(4, 4, 4), (4, 6, 4), (6, 4, 4), (4, 4, 6)])
def test_equal_sizes_do_not_confuse_axes(sizes):
    """Batch, time and width of one size give what other widths give."""
    batch, time, width = sizes

    def kernels(width: int):
        parts = {"first": nn.Linear(4, width), "second": nn.Linear(width, width), "last": nn.Linear(width, 4)}
        net = Function(lambda m, x: m.last(functional.relu(m.second(functional.relu(m.first(x)))).mean(1)), **parts)
        return infinite(trace(net, x), "ntk", 1.3, 0.1)(x)

    x = torch.randn(batch, time, 4)
    for one, other in zip(kernels(width), kernels(37), strict=True):
        close(one, other, 1e-12)


def test_frozen_parameters_add_nothing_to_the_tangent_kernel():
    net = NETWORKS["mlp"].build(8)
    program = trace(net, torch.ones(2, 3))
    x = NETWORKS["mlp"].inputs(4)
    total = torch.zeros(4, 4, dtype=torch.float64)
    names = [name for name, _ in net.named_parameters()]
    for chosen in names:
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(name == chosen)
        total += infinite(program, "standard")(x).ntk
    net.requires_grad_(False)
    assert not infinite(program, "standard")(x).ntk.any()
    net.requires_grad_(True)
    close(total, infinite(program, "standard")(x).ntk, 1e-12)


@pytest.mark.parametrize(
    ("inputs", "error", "words"),
    [
        (torch.full((2, 3), torch.nan), DataError, "x1 holds values that are not finite"),
        (torch.zeros(0, 3), DataError, "x1 is empty"),
        (torch.zeros(2, 4), ModelError, "traced with"),
        (torch.tensor(1.0), DataError, "x1 is empty"),
    ],
)
def test_bad_inputs(inputs, error, words):
    with pytest.raises(error, match=words):
        limit_of(NETWORKS["mlp"])(inputs)


def test_token_outside_the_table():
    with pytest.raises(DataError, match="token 9 is not in table"):
        limit_of(NETWORKS["tokens"])(torch.full((2, 6), 9))


def test_unknown_parametrization():
    with pytest.raises(DataError, match="'mup' is not one of ntk, plain, standard"):
        getattr(_certificate.contribution_of, "__wrapped__", _certificate.contribution_of)("mup")
