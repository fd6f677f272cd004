"""Largest curvature against dense matrices."""

import pytest
import torch
from torch import Tensor, nn

from widthwise.nn import build_model
from widthwise.probe import empirical_ntk, largest_curvature

X = torch.randn(6, 2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def squared(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().sum(-1).mean()


def test_quadratic() -> None:
    """Linear regression: the Hessian is 2 X^T X / n."""
    x = X[:, 0]
    found = largest_curvature(nn.Linear(5, 3, bias=False).double(), x, Y, squared, tolerance=1e-8, iterations=1000)
    exact = float(torch.linalg.eigvalsh(2 * x.T @ x / len(x))[-1])
    assert found == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet", "transformer"])
def test_squared_error_is_the_top_of_the_empirical_ntk(name: str) -> None:
    module = build_model(name, (2, 5), 3, 4).double().eval()
    kernel = empirical_ntk(module, X, outputs="full").permute(0, 2, 1, 3).reshape(18, 18)
    exact = 2 / 6 * float(torch.linalg.eigvalsh(kernel)[-1])
    found = largest_curvature(module, X, Y, squared, tolerance=1e-8, iterations=2000)
    assert found == pytest.approx(exact, rel=1e-4)
    assert largest_curvature(module, X, Y, squared, iterations=3) <= exact * (1 + 1e-9)  # from below


def test_cross_entropy_of_a_linear_model_is_the_hessian() -> None:
    x, labels = X[:, 0], torch.tensor([0, 1, 2, 0, 1, 2])
    module = nn.Linear(5, 3, bias=False).double()

    def loss(weight: Tensor) -> Tensor:
        return nn.functional.cross_entropy(x @ weight.T, labels)

    hessian = torch.autograd.functional.hessian(loss, module.weight.detach()).reshape(15, 15)
    found = largest_curvature(module, x, labels, nn.functional.cross_entropy, tolerance=1e-8, iterations=2000)
    assert found == pytest.approx(float(torch.linalg.eigvalsh(hessian)[-1]), rel=1e-4)


def test_batch_statistics_are_restored() -> None:
    module = build_model("resnet", (2, 5), 3, 4).double().train()
    before = {name: value.clone() for name, value in module.named_buffers()}
    largest_curvature(module, X, Y, squared, iterations=2)
    assert all(torch.equal(before[name], value) for name, value in module.named_buffers())
