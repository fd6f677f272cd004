"""Dense kernels of one angle, against PyTorch's engine and the closed form."""

import math

import pytest
import torch
from torch import nn

from widthwise.kernels import infinite
from widthwise.program import trace


def network(depth: int, *, bias: bool) -> nn.Module:
    layers: list[nn.Module] = [nn.Linear(5, 8, bias=bias), nn.ReLU()]
    for _ in range(depth - 2):
        layers += [nn.Linear(8, 8, bias=bias), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(8, 1, bias=bias))


@pytest.mark.parametrize("depth", [2, 3, 30])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_homogeneous_networks(depth: int, dtype: torch.dtype) -> None:
    """No biases, all norms; also an input of norm zero, nearly opposite inputs and multiples."""
    program = trace(network(depth, bias=False), torch.randn(2, 5))
    x = torch.randn(9, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x[3], x[4], x[5] = 0, 0.1 * x[1] - x[0], 3 * x[1]
    fused, plain = (
        infinite(program, weight_std=math.sqrt(2), bias_std=0.0, engine=engine) for engine in ("numba", "torch")
    )
    y = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for pair in ((x[:5], None), (x, y)):
        for got, expected in zip(fused(*pair, dtype=dtype), plain(*pair), strict=True):
            # Rounding of a cosine is amplified at every layer: 30 of them in single precision leave five digits.
            tolerance = 1e-12 if dtype == torch.float64 else 1e-6 * depth
            torch.testing.assert_close(
                got.double(), expected, rtol=tolerance, atol=tolerance * float(expected.abs().max())
            )


def test_equal_norms_with_biases() -> None:
    program = trace(network(3, bias=True), torch.randn(2, 5))
    x = torch.randn(9, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = x / x.norm(dim=1, keepdim=True)
    fused, plain = (infinite(program, weight_std=1.2, bias_std=0.3, engine=engine) for engine in ("numba", "torch"))
    for got, expected in zip(fused(x), plain(x), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)
        assert torch.equal(got, got.T)


def test_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles that do not divide the matrix."""
    monkeypatch.setattr("widthwise.kernels.engines._cosine.TILE", 16)
    program = trace(network(2, bias=False), torch.randn(2, 5))
    x = torch.randn(41, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    fused, plain = (infinite(program, weight_std=1.4, engine=engine) for engine in ("numba", "torch"))
    torch.testing.assert_close(fused(x).ntk, plain(x).ntk, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(fused(x, x[:19]).nngp, plain(x, x[:19]).nngp, rtol=1e-11, atol=1e-11)
