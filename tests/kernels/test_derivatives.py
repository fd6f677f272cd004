"""Kernels are differentiable in the inputs and in the variances: finite differences are the oracle."""

import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn

import widthwise as ww
from widthwise.program import Program

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "silu": nn.SiLU}
STEP = 1e-5


def dense(name: str) -> Program:
    act = ACTIVATIONS[name]
    net = nn.Sequential(nn.Linear(3, 16), act(), nn.Linear(16, 16), act(), nn.Linear(16, 1))
    return ww.trace(net, torch.randn(2, 3))


def inputs(count: int) -> Float[Tensor, "n 3"]:
    return torch.randn(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def differences(kernel, point: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
    """Central differences of a scalar function of a tensor."""
    result = torch.empty(point.numel(), dtype=torch.float64)
    for i in range(point.numel()):
        shift = torch.zeros_like(point).flatten()
        shift[i] = STEP
        shift = shift.reshape(point.shape)
        result[i] = (kernel(point + shift) - kernel(point - shift)) / (2 * STEP)
    return result.reshape(point.shape)


@pytest.mark.parametrize("which", [0, 1], ids=["nngp", "ntk"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gradient_by_the_inputs(name, which):
    limit = ww.infinite(dense(name), weight_std=1.3, bias_std=0.2)
    x1, x2, probe = inputs(5)[:3], inputs(5)[3:], torch.tensor([[1.0, -2.0], [0.5, 3.0], [-1.0, 1.0]]).double()

    def summed(x: Tensor) -> Tensor:
        return (limit(x, x2)[which] * probe).sum()

    (gradient,) = torch.autograd.grad(summed(x1.requires_grad_()), x1)
    assert torch.allclose(gradient, differences(summed, x1.detach()), rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gradient_of_a_symmetric_gram_is_finite_and_right(name):
    """Inputs that meet themselves: the diagonal's gradient is that of the variance, never NaN."""
    limit = ww.infinite(dense(name), weight_std=1.3, bias_std=0.2)
    x = inputs(3).requires_grad_()
    for which in (0, 1):
        diagonal = limit(x)[which].diagonal().sum()
        (gradient,) = torch.autograd.grad(diagonal, x)
        expected = differences(lambda y, which=which: limit(y)[which].diagonal().sum(), x.detach())
        assert torch.allclose(gradient, expected, rtol=2e-6, atol=2e-7)


def test_equal_rows_of_two_sets_give_finite_gradients():
    """The tangent kernel of ReLU has a cusp there; its gradient takes the symmetric value."""
    limit = ww.infinite(dense("relu"), weight_std=1.3, bias_std=0.0)
    x = inputs(3).requires_grad_()
    for kernel in limit(x, x.detach().clone()):
        (gradient,) = torch.autograd.grad(kernel.sum(), x, retain_graph=True)
        assert torch.isfinite(gradient).all()


def test_gradient_through_convolution_and_pooling():
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1)
    )
    limit = ww.infinite(ww.trace(net, torch.randn(2, 1, 4, 4)), weight_std=1.4, bias_std=0.1)
    x = torch.randn(2, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    other = torch.randn(2, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    (gradient,) = torch.autograd.grad(limit(x, other).ntk.sum(), x)
    assert torch.allclose(gradient, differences(lambda y: limit(y, other).ntk.sum(), x.detach()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("which", [0, 1], ids=["nngp", "ntk"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gradient_by_the_variances(name, which):
    program, x = dense(name), inputs(3)

    def summed(stds: Tensor) -> Tensor:
        scales = {"0.*": stds[0], "2.*": stds[1], "*": stds[2]}
        return ww.infinite(program, weight_std=scales, bias_std=stds[3])(x)[which].sum()

    point = torch.tensor([1.0, 1.3, 0.9, 0.4], dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(summed(point), point)
    assert torch.allclose(gradient, differences(summed, point.detach()), rtol=2e-6, atol=2e-7)
