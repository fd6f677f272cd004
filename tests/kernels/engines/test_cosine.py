"""Dense kernels of one angle, against PyTorch's engine and the closed form."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from widthwise.kernels import infinite
from widthwise.kernels.engines._angles import spread
from widthwise.kernels.engines._cosine import one_polynomial
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


@pytest.mark.parametrize("segments", [False, True], ids=["polynomial", "segments"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_panels(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, segments: bool) -> None:
    """Panels that do not divide the matrix, beside and below each other; both ways to hold the functions."""
    monkeypatch.setattr("widthwise.kernels.engines._cosine.PANEL", 16)
    monkeypatch.setattr("widthwise.kernels.engines._cosine.PANEL_COLUMNS", 24)
    if segments:
        monkeypatch.setattr("widthwise.kernels.engines._cosine.one_polynomial", lambda values, dtype: None)
    program = trace(network(2, bias=False), torch.randn(2, 5))
    x = torch.randn(41, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    fused, plain = (infinite(program, weight_std=1.4, engine=engine) for engine in ("numba", "torch"))
    tolerance = 1e-11 if dtype == torch.float64 else 1e-6
    for pair in ((x, None), (x, x[:19] + 0.1)):
        for got, expected in zip(fused(*pair, dtype=dtype), plain(*pair), strict=True):
            atol = tolerance * float(expected.abs().max())
            torch.testing.assert_close(got.double(), expected, rtol=0.0, atol=atol)
            assert pair[1] is not None or torch.equal(got, got.T)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("depth", [3, 30])
def test_one_polynomial(depth: int, dtype: type) -> None:
    """It holds both kernels at any cosine: Cho and Saul's recursion (NIPS 2009, equation 6) on the same cosines."""

    def recursion(cosines: np.ndarray) -> np.ndarray:
        nngp, ntk = cosines, cosines
        for _ in range(depth - 1):
            angle = np.arccos(np.clip(nngp, -1, 1))
            nngp, slope = (np.sin(angle) + (math.pi - angle) * np.cos(angle)) / math.pi, 1 - angle / math.pi
            ntk = nngp + ntk * slope
        return np.stack([nngp, ntk])

    single = dtype == np.float32
    table = one_polynomial(lambda angles: recursion(np.cos(angles)), torch.float32 if single else torch.float64)
    if table is None:
        assert not single  # double precision may need segments
        return
    cosines, ones = np.cos(np.linspace(0, math.pi, 2001)).astype(dtype), np.ones(2001, dtype)
    out = np.empty((2, 1, 2001), dtype)
    coefficients = table.coefficients.astype(dtype)
    spread(cosines[None].copy(), (0, 0), coefficients, table.offset, ones[:1], ones, out, 0, 1, False)
    truth = recursion(cosines.astype(np.float64))
    worst = np.abs(out[:, 0] - truth).max(axis=1) / truth.max(axis=1)
    assert worst.max() < (1e-6 if single else 1e-11)
