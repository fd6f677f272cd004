"""The plane of strength and rate for networks as they are: convolutional, residual with norms, vision transformer."""

import math
from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev

import widthwise as ww
from widthwise.program import trace
from widthwise.scaling._richness import prepare, richness_sweep
from widthwise.scaling._richness_batch import Cell, _composed, train_cells
from widthwise.scaling._richness_plane import richness_law
from widthwise.scaling._structure import matrix_depth

X = torch.randn(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.nn.functional.one_hot(torch.arange(12) % 3, 3).float() - 1 / 3


class VisionTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 4, 4)
        self.position = nn.Parameter(torch.randn(1, 4, 8) / 2)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 3))

    def forward(self, x):
        return self.head(self.blocks(self.patches(x).flatten(2).transpose(1, 2) + self.position).mean(1))


BUILDS = {
    "convolutional": (lambda: ww.nn.cnn(4, input_shape=(1, 8, 8), outputs=3), None),
    "residual": (lambda: ww.nn.resnet(4, input_shape=(1, 8, 8), outputs=3, blocks=(1,)), 4),
    "transformer": (VisionTransformer, 6),
}


@pytest.fixture(params=BUILDS, name="case")
def _case(request):
    torch.manual_seed(0)
    return BUILDS[request.param]


def test_depth_counts_matrices_and_not_what_is_added(case):
    build, depth = case
    if depth is not None:
        assert matrix_depth(trace(build(), X[:2])) == depth


def stable_rate(starts):
    """2 / lambda of the linearised descent, from the whole Jacobian, each tensor with its own rate."""
    module, weights = starts.module, starts.weights[0]
    with _composed(module):
        jacobian = jacrev(lambda w: functional_call(module, w, (starts.inputs,)).flatten())(weights)
    rows = starts.targets.numel()
    gram = sum(
        starts.factors[name] * part.reshape(rows, -1) @ part.reshape(rows, -1).T for name, part in jacobian.items()
    )
    return 2 / float(torch.linalg.eigvalsh(gram / rows)[-1])


def test_the_largest_lazy_rate_is_that_of_the_tangent_kernel(case):
    """Exponent 2, to the linear order in gamma that linearisation leaves out; height 2 / lambda, within 6 %."""
    module = case[0]()
    gammas = [2.0**k for k in (-13, -12, -11)]
    edge = stable_rate(prepare(deepcopy(module), X.double(), Y.double(), 1, "spectral", None, 0, gammas[0])[0])
    rates = [edge * gamma**2 * side for gamma in gammas for side in (0.94, 1.06)]
    sweep = richness_sweep(module, X, Y, gammas=gammas, rates=rates, steps=60, batch_size=None, trained=0.999)
    for gamma, bound in zip(gammas, sweep.edges, strict=True):
        assert (bound.low, bound.high) == pytest.approx((0.94 * edge * gamma**2, 1.06 * edge * gamma**2))
    fit = sweep.exponents["edge, lazy"]
    assert fit is not None and fit.value == pytest.approx(2, abs=0.02)
    assert sweep.lazy is None or sweep.lazy.value == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize("gamma", [0.25, 4.0])
def test_a_cell_is_what_parametrize_trains(case, gamma):
    """Outputs over gamma, rates by the law: `parametrize(gamma=...)` and plain SGD, targets moved by the start."""
    module = case[0]().double()
    starts, depth = prepare(deepcopy(module), X.double(), Y.double(), 1, "spectral", None, 0, 1.0)
    cell = Cell(gamma, 0.02 * richness_law(gamma, depth), 0)
    found = train_cells(starts, [cell], 6, None, curves=True).curve
    groups = ww.parametrize(
        module, "spectral", lr=0.02, optimizer="sgd", gamma=gamma, example_inputs=X[:2].double(),
    )  # fmt: skip
    module.eval()
    sgd = torch.optim.SGD(groups)
    targets, losses = Y.double() + module(X.double()).detach(), []
    for _ in range(6):
        sgd.zero_grad()
        loss = (module(X.double()) - targets).square().mean() / 2
        loss.backward()
        losses.append(float(loss.detach()))
        sgd.step()
    assert found is not None and math.isfinite(losses[-1]) and losses[-1] < losses[0]
    assert found[0].tolist() == pytest.approx(losses, rel=1e-6)


def test_dropout_and_fused_attention_stay_out_of_the_batch():
    torch.manual_seed(1)
    module = VisionTransformer()
    before = torch.backends.mha.get_fastpath_enabled()
    runs = [richness_sweep(module, X, Y, gammas=[0.5, 1.0], rates=[0.01, 0.1], steps=5) for _ in range(2)]
    assert (runs[0].losses == runs[1].losses).all() and torch.backends.mha.get_fastpath_enabled() == before
