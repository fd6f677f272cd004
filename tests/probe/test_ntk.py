"""Empirical NTK against closed forms, explicit Jacobians, and the analytic limit."""

import math

import pytest
import torch
from torch import Tensor, nn

from widthwise.core import ModelError, seeded
from widthwise.nn import build_model
from widthwise.probe import empirical_ntk


def explicit(module: nn.Module, x1: Tensor, x2: Tensor) -> Tensor:
    """``[n1, n2, O, O]`` from one autograd call per output."""

    def jacobian(x: Tensor) -> Tensor:
        outputs = module(x)
        rows = [
            torch.cat([part.flatten() for part in torch.autograd.grad(value, module.parameters(), retain_graph=True)])
            for value in outputs.flatten()
        ]
        return torch.stack(rows).reshape(*outputs.shape, -1)

    return torch.einsum("iap,jbp->ijab", jacobian(x1), jacobian(x2))


def small(name: str, **options: int) -> nn.Module:
    with seeded(3, name):
        return build_model(name, (2, 6), 3, 4, **options).double().eval()


X1 = torch.randn(5, 2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
X2 = torch.randn(4, 2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_linear_closed_form() -> None:
    """A linear map has f_a = w_a x + b_a: the kernel is (x x' + 1) on equal outputs and 0 between outputs."""
    module = nn.Linear(6, 3).double()
    a, b = X1[:, 0], X2[:, 0]
    full = empirical_ntk(module, a, b, outputs="full")
    torch.testing.assert_close(full, (a @ b.T + 1)[:, :, None, None] * torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(empirical_ntk(module, a, b), a @ b.T + 1)


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet", "transformer"])
def test_against_explicit_jacobian(name: str) -> None:
    module = small(name)
    expected = explicit(module, X1, X2)
    torch.testing.assert_close(empirical_ntk(module, X1, X2, outputs="full"), expected)
    trace = torch.einsum("ijaa->ij", expected) / 3
    torch.testing.assert_close(empirical_ntk(module, X1, X2), trace)


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 100])
@pytest.mark.parametrize("outputs", ["trace", "full"])
def test_chunk_invariance_and_symmetric_half(chunk: int, outputs: str) -> None:
    module = small("mlp")
    expected = empirical_ntk(module, X1, X1, outputs=outputs)
    torch.testing.assert_close(empirical_ntk(module, X1, outputs=outputs, chunk=chunk), expected)
    torch.testing.assert_close(empirical_ntk(module, X1, X1, outputs=outputs, chunk=chunk), expected)


def test_symmetric_and_positive() -> None:
    kernel = empirical_ntk(small("cnn"), X1, chunk=2)
    assert torch.equal(kernel, kernel.T)
    assert torch.linalg.eigvalsh(kernel).min() > -1e-10


def test_sum_over_parameters() -> None:
    """The kernel is a sum over parameters, so parts that partition them add up."""
    module = small("mlp")
    names = [name for name, _ in module.named_parameters()]
    parts = [empirical_ntk(module, X1, X2, parameters=[name]) for name in names]
    torch.testing.assert_close(sum(parts), empirical_ntk(module, X1, X2))


def test_tied_weights_are_counted_once_with_both_uses() -> None:
    """f = w2 relu(w1 x) with w2 = w1: the derivative by the shared tensor adds both uses."""
    module = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Tanh(), nn.Linear(4, 4, bias=False)).double()
    module[2].weight = module[0].weight
    x = X1[:, 0, :4]
    torch.testing.assert_close(empirical_ntk(module, x, outputs="full"), explicit(module, x, x))


class Untraceable(nn.Module):
    """Reads a value out of a tensor, which `torch.vmap` refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 2).double()

    def forward(self, x: Tensor) -> Tensor:
        sign = 1.0 if x[0, 0].item() > 0 else -1.0
        return sign * self.linear(x)


def test_falls_back_to_a_loop() -> None:
    module = Untraceable()
    a, b = X1[:, 0], X2[:, 0]
    signs = torch.sign(a[:, :1]) * torch.sign(b[:, 0])
    torch.testing.assert_close(empirical_ntk(module, a, b), signs * (a @ b.T + 1))


def test_modes_and_gradients_are_left_alone() -> None:
    module = small("resnet").train()
    module.norm.eval()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    empirical_ntk(module, X1)
    assert module.training and module.stem.training and not module.norm.training
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())


def test_inputs_are_cast_to_the_module() -> None:
    module = small("mlp").float()
    assert empirical_ntk(module, X1).dtype == torch.float32
    torch.testing.assert_close(
        empirical_ntk(module, X1).double(), empirical_ntk(small("mlp"), X1), rtol=1e-4, atol=1e-4
    )


def arc_cosine_ntk(x: Tensor) -> Tensor:
    """NTK of ``f(x) = m^-1/2 sum a_j relu(w_j x)``, all N(0, 1): kappa_1 / 2 + (x x') kappa_0 / 2 with
    kappa the arc-cosine functions of Cho and Saul (2009), over pi."""
    norms = x.norm(dim=1)
    cosine = (x @ x.T / (norms[:, None] * norms)).clamp(-1, 1)
    angle = torch.arccos(cosine)
    first = norms[:, None] * norms * (torch.sin(angle) + (math.pi - angle) * cosine) / (2 * math.pi)
    zeroth = (math.pi - angle) / (2 * math.pi)
    return first + x @ x.T * zeroth


class TwoLayer(nn.Module):
    """``f(x) = m^-1/2 sum_j a_j relu(w_j x)`` with standard normal weights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(width, 4, dtype=torch.float64))
        self.second = nn.Parameter(torch.randn(1, width, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x @ self.first.T) @ self.second.T / self.second.shape[1] ** 0.5


@pytest.mark.slow
def test_converges_to_the_arc_cosine_kernel_at_rate_one_half() -> None:
    """Relative error over widths 16 to 4096, 24 draws each: slope of log error in log width is -1/2."""
    x = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    limit = arc_cosine_ntk(x)
    widths = [16, 64, 256, 1024, 4096]
    errors = []
    for width in widths:
        squares = []
        for draw in range(24):
            with seeded(draw, width):
                module = TwoLayer(width)
            squares.append((empirical_ntk(module, x) - limit).square().sum())
        errors.append(torch.stack(squares).mean().sqrt() / limit.norm())
    slope = torch.log(errors[-1] / errors[0]) / math.log(widths[-1] / widths[0])
    assert errors[-1] < 0.05
    assert abs(float(slope) + 0.5) < 0.1


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: empirical_ntk(small("mlp"), X1[:, :1]), r"raises on inputs of shape \(1, 1, 6\)"),
        (lambda: empirical_ntk(small("mlp"), X1, parameters=["readout.wieght"]), "did you mean 'readout.weight'"),
        (lambda: empirical_ntk(nn.Flatten(), X1), "no parameter"),
    ],
)
def test_bad_input(call, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        call()
