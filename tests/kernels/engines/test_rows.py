"""The fused engine's own approximations against arithmetic with 40 digits, at the accuracy that they state."""

import mpmath
import numpy as np
import pytest

from widthwise.kernels.engines import _rows as rows

ACCURACY = {np.float32: 4e-7, np.float64: 1e-15}


@pytest.mark.parametrize("real", [np.float32, np.float64])
def test_relu_transform(real: type) -> None:
    """E relu(u) relu(v) and its slope at unit variance, from cosine -1 to 1."""
    cosines = np.concatenate([np.linspace(-1, 1, 41), [0.5 + 1e-7, 0.5 - 1e-7, 1 - 1e-6, -1 + 1e-6]]).astype(real)
    ones, zeros = np.ones_like(cosines), np.zeros_like(cosines)
    value, slope = cosines.copy(), ones.copy()
    rows.abrelu_row(value, slope, ones, ones, ones, ones, zeros, 0.0, 1.0)
    with mpmath.workdps(40):
        angles = [mpmath.acos(mpmath.mpf(float(c))) for c in cosines]
        exact = [(mpmath.sin(t) + (mpmath.pi - t) * mpmath.cos(t)) / (2 * mpmath.pi) for t in angles]
        exact_slope = [(mpmath.pi - t) / (2 * mpmath.pi) for t in angles]
    assert np.abs(value - np.array(exact, float)).max() < ACCURACY[real]
    assert np.abs(slope - np.array(exact_slope, float)).max() < ACCURACY[real]


@pytest.mark.parametrize("real", [np.float32, np.float64])
def test_sine_transform(real: type) -> None:
    """Through the exponential: variances from 0.1 to 60, so that one term all but vanishes."""
    variance = np.geomspace(0.1, 60, 23).astype(real)
    covariance = (variance * np.linspace(-0.99, 0.99, 23)).astype(real)
    value, slope = covariance.copy(), np.ones_like(covariance)
    half = (variance * real(0.5)).astype(real)
    rows.sin_row(value, slope, half, half, 1.0, 1.0)
    with mpmath.workdps(40):
        pairs = [(mpmath.mpf(float(a)), mpmath.mpf(float(c))) for a, c in zip(variance, covariance, strict=True)]
        exact = [(mpmath.exp(c - a) - mpmath.exp(-c - a)) / 2 for a, c in pairs]
        exact_slope = [(mpmath.exp(c - a) + mpmath.exp(-c - a)) / 2 for a, c in pairs]
    tolerance = 2e-6 if real is np.float32 else 4e-15
    assert np.abs(value - np.array(exact, float)).max() < tolerance
    assert np.abs(slope - np.array(exact_slope, float)).max() < tolerance
