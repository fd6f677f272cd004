"""Fused 3 x 3 convolutions against sums over windows and exact angles, on planes of random numbers."""

import mpmath
import numpy as np
import pytest

from widthwise.kernels.engines import _codes as code
from widthwise.kernels.engines._arcs import tables
from widthwise.kernels.engines._windows import fits, is_summed, products, summed_windows, windows

ACCURACY: dict[type, float] = {np.float32: 4e-7, np.float64: 1e-15}
SCALES = {"SCALE": 0.2, "SCALE_T": 0.15, "RATIO": 0.7, "CONSTANT": 0.1, "CONSTANT_T": 0.3, "CONSTANT0": 0.05}


def operation(height: int, width: int, **arguments: int) -> np.ndarray:
    """A convolution that keeps the size of the image, with a leaky ReLU after it."""
    op = np.zeros(code.INTS, np.int64)
    sizes = {
        "CODE": code.CONV,
        "H": height,
        "W": width,
        "SH": height,
        "SW": width,
        "KY": 3,
        "KX": 3,
        "PHI": code.ABRELU,
    }
    ones = dict.fromkeys(("MY", "MX", "SY", "SX", "PY", "PX", "DY", "DX"), 1)
    for name, value in {**sizes, **ones, "FEATURE2": height * width, **arguments}.items():
        op[getattr(code, name)] = value
    return op


def parameters(real: type, **arguments: float) -> np.ndarray:
    par: np.ndarray = np.zeros(code.REALS, real)
    for name, value in arguments.items():
        par[getattr(code, name)] = value
    return par


def inside(grid: tuple[int, ...], shift: tuple[int, int]) -> np.ndarray:
    """Positions p with both p and p + shift in the image."""
    p, q = np.indices(grid)
    return (p + shift[0] >= 0) & (p + shift[0] < grid[0]) & (q + shift[1] >= 0) & (q + shift[1] < grid[1])


def run(
    planes: np.ndarray, stds: np.ndarray, op: np.ndarray, par: np.ndarray, shift: tuple[int, int], own: np.ndarray
) -> np.ndarray:
    """``[2, slots, height, width, lanes]`` after the operation; stds are those of both inputs."""
    area, lanes = planes[0].size, planes.shape[4]
    longest = planes.shape[3] * lanes
    ws = np.concatenate([planes.ravel(), np.zeros(3 * longest, planes.dtype)])
    x, y = (np.concatenate([std.ravel(), 1 / std.ravel()]).astype(planes.dtype) for std in stds)
    table = tables(par[code.FIRST : code.SECOND], par[code.SECOND :], planes.dtype.type).ravel()
    fixed = (area, op, par, shift, lanes, x, y, own.astype(planes.dtype), 2 * area, longest, table)
    total = np.ones(2 * lanes)
    summed_windows(ws.copy(), *fixed, total, 0.5)
    windows(ws, *fixed)
    result = ws[: 2 * area].reshape(planes.shape)
    wanted = 1 + 0.5 * np.where(inside(planes.shape[2:4], shift)[..., None], result[:, int(op[code.DST] > 0)], 0).sum(
        (1, 2)
    )
    assert np.abs(total.reshape(2, -1) - wanted).max() < 100 * np.finfo(planes.dtype).eps
    return ws[: 2 * area].reshape(planes.shape)


def sums(plane: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Sums over windows, of what lies inside."""
    padded = np.pad(np.where(valid[..., None], plane, 0.0), ((1, 1), (1, 1), (0, 0)))
    height, width = valid.shape
    return np.sum([padded[i : i + height, j : j + width] for i in range(3) for j in range(3)], 0)


@pytest.mark.parametrize("real", [np.float32, np.float64])
@pytest.mark.parametrize("shift", [(0, 0), (1, -2), (-3, 3), (0, 4), (3, 0)])
@pytest.mark.parametrize("kind", ["plain", "first", "added", "elsewhere", "no activation"])
def test_convolution_and_activation(kind: str, shift: tuple[int, int], real: type) -> None:
    generator = np.random.default_rng(0)
    height, width, lanes, slots = 4, 5, 32, 2
    planes: np.ndarray = generator.uniform(-1, 1, (2, slots, height, width, lanes)).astype(real)
    stds = generator.uniform(1.5, 2.5, (2, height, width, lanes))
    target = 1 if kind in ("elsewhere", "added") else 0
    extra = {"NO_TANGENT": int(kind == "first"), "PLUS": int(kind == "added")}
    op = operation(height, width, DST=target * height * width, **extra)
    if kind == "no activation":
        op[code.PHI] = -1
    low, high = (1.0, 1.0) if kind == "no activation" else (-0.3, 1.2)
    par = parameters(real, FIRST=low, SECOND=high, **SCALES)
    found = run(planes, stds, op, par, shift, np.zeros(lanes))

    valid = inside((height, width), shift)
    exact = planes.astype(np.float64)
    k = 0.2 * sums(exact[0, 0], valid)
    t = 0.15 * sums(exact[1, 0], valid) * (kind != "first") + 0.7 * k + 0.3
    k += 0.1 + 0.05 * (shift == (0, 0))
    if kind == "added":
        k, t = k + exact[0, 1], t + exact[1, 1]
    if kind != "no activation":
        both = stds[0] * np.roll(stds[1], (-shift[0], -shift[1]), (0, 1))
        rho = k / both
        jump, angle = (high - low) ** 2 / (2 * np.pi), np.arccos(np.clip(rho, -1, 1))
        slope = low * high + jump * (np.pi - angle)
        k, t = jump * both * np.sqrt(1 - np.clip(rho, -1, 1) ** 2) + slope * k, t * slope
    scale = 8 * np.finfo(real).eps * np.abs(k[valid]).max()
    assert np.abs(found[0, target] - k)[valid].max() < scale
    assert np.abs(found[1, target] - t)[valid].max() < scale


@pytest.mark.parametrize("real", [np.float32, np.float64])
def test_relu_from_cosine_minus_one_to_one(real: type) -> None:
    """Against arithmetic with 40 digits; the images have one position."""
    edges = [1 - 1e-6, -1 + 1e-6, 1 - 1e-3, 1e-7, -1e-7, 0.5, -0.5]
    cosines: np.ndarray = np.concatenate([np.linspace(-1, 1, 41), edges]).astype(real)
    planes = np.stack([cosines, np.ones_like(cosines)]).reshape(2, 1, 1, 1, -1)
    par = parameters(real, SCALE=1.0, SCALE_T=1.0, SECOND=1.0)
    value, slope = run(
        planes, np.ones((2, *cosines.shape)), operation(1, 1), par, (0, 0), np.zeros(len(cosines))
    ).reshape(2, -1)
    with mpmath.workdps(40):
        angles = [mpmath.acos(mpmath.mpf(float(c))) for c in cosines]
        exact = [(mpmath.sin(t) + (mpmath.pi - t) * mpmath.cos(t)) / (2 * mpmath.pi) for t in angles]
        exact_slope = [(mpmath.pi - t) / (2 * mpmath.pi) for t in angles]
    assert np.abs(value - np.array(exact, float)).max() < ACCURACY[real]
    assert np.abs(slope - np.array(exact_slope, float)).max() < ACCURACY[real]


def test_an_input_with_itself_has_no_angle() -> None:
    """Rounding leaves its correlation a little below one; `own` says that it is one."""
    lanes = 16
    planes = np.full((2, 1, 1, 1, lanes), 1 - 1e-6, np.float32)
    par = parameters(np.float32, SCALE=1.0, SCALE_T=1.0, SECOND=1.0)
    own = np.arange(lanes) % 2
    slope = run(planes, np.ones((2, lanes)), operation(1, 1), par, (0, 0), own)[1].ravel() / (1 - 1e-6)
    assert np.abs(slope[own == 1] - 0.5).max() < 1e-7
    assert slope[own == 0].max() < 0.4998


def test_which_convolutions_fit() -> None:
    assert fits(operation(4, 4))
    for name, value in {"KX": 5, "SY": 2, "PX": 0, "DY": 2}.items():
        assert not fits(operation(4, 4, **{name: value}))
    assert is_summed(operation(4, 4, SUMMED=1)) and not is_summed(operation(4, 4))
    assert not is_summed(operation(4, 4, SUMMED=1, PHI=code.ERF))


@pytest.mark.parametrize("shift", [(0, 0), (1, -2)])
def test_products_of_pixels(shift: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    lanes, channels = 16, 3
    x, y = generator.standard_normal((2, channels, 4, 5, lanes))
    ws = np.zeros(2 * 4 * 5 * lanes)
    op = operation(4, 5, CHANNELS=channels)
    products(ws, op, parameters(np.float64, SCALE=1 / channels), shift, lanes, x.ravel(), y.ravel())
    valid = inside((4, 5), shift)
    wanted = (x * np.roll(y, (-shift[0], -shift[1]), (1, 2))).mean(0)
    assert np.abs(ws[: 20 * lanes].reshape(4, 5, lanes) - wanted)[valid].max() < 1e-15
