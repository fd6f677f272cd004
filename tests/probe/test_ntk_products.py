"""Products with the empirical NTK against the matrix itself."""

import pytest
import torch
from torch import Tensor, nn

from tests.probe.test_ntk_layers import case
from widthwise.core import ModelError
from widthwise.probe import empirical_ntk, ntk_largest_eigenvalue, ntk_trace, ntk_vector_product

NAMES = ["cnn", "tied", "class token", "gpt2"]


def as_matrix(kernel: Tensor) -> Tensor:
    return kernel.permute(0, 2, 1, 3).reshape(kernel.shape[0] * kernel.shape[2], -1)


@pytest.mark.parametrize("name", NAMES)
def test_product_trace_and_largest_eigenvalue(name: str) -> None:
    module, x = case(name)
    full, mean = empirical_ntk(module, x, outputs="full"), empirical_ntk(module, x)
    v = torch.randn(2, full.shape[-1], dtype=torch.float64)
    expected = torch.einsum("ijab,jb->ia", full[:, 3:5][:, :2] if len(x) > 4 else full[:, 2:4], v)
    second = x[3:5] if len(x) > 4 else x[2:4]
    torch.testing.assert_close(ntk_vector_product(module, x, second, v, chunk=2), expected)
    w = torch.randn(len(x), dtype=torch.float64)
    torch.testing.assert_close(ntk_vector_product(module, x, None, w, outputs="trace"), mean @ w)
    assert ntk_trace(module, x, chunk=3) == pytest.approx(float(as_matrix(full).trace()), rel=1e-10)
    assert ntk_trace(module, x, outputs="trace") == pytest.approx(float(mean.trace()), rel=1e-10)
    top = float(torch.linalg.eigvalsh(as_matrix(full))[-1])
    assert ntk_largest_eigenvalue(module, x) == pytest.approx(top, rel=1e-6)


def test_without_forward_derivative() -> None:
    """A custom function has no forward rule: the reverse derivative taken twice gives the same."""

    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x: Tensor) -> Tensor:
            return 2 * x

        @staticmethod
        def backward(ctx, slope: Tensor) -> Tensor:
            return 2 * slope

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 2, bias=False).double()

        def forward(self, x: Tensor) -> Tensor:
            return Double.apply(self.linear(x))

    x, v = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
    torch.testing.assert_close(ntk_vector_product(Network(), x, None, v), 4 * x @ x.T @ v)


def test_one_number_and_bad_input() -> None:
    module = nn.Linear(3, 1, bias=False)
    x = torch.ones(1, 3)
    assert ntk_largest_eigenvalue(module, x) == pytest.approx(3)
    with pytest.raises(ModelError, match=r"takes \(1, 1\)"):
        ntk_vector_product(module, x, None, torch.ones(1))
