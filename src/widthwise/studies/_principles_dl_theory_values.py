"""Numbers of the effective theory: criticality, recursions, laws of depth, aspect ratios."""

from collections.abc import Sequence

import numpy as np
import torch

from widthwise.core import Axis, Figure, Line
from widthwise.studies._findings import Outcome, compare, floats
from widthwise.studies._types import Scale
from widthwise.theory.effective import (
    balanced_rates,
    critical,
    first_layer,
    flow,
    next_layer,
    optimal_ratio,
    perceptrons,
)

SETTING = ("tanh", 0.1, 1.3, 0.5, 0.8)  # activation, C_b, C_W, lambda_b, lambda_W of the sheet's check
SQUARE = 0.9

# Activation: class as a number, C_b, C_W, K* (0 for any).
CRITICAL: dict[str, tuple[float, ...]] = {
    "relu": (0, 0.0, 2.0),
    "identity": (0, 0.0, 1.0),
    "tanh": (1, 0.0, 1.0),
    "sin": (1, 0.0, 1.0),
    "gelu": (2, 0.17292239, 1.98305826, (3 + 17**0.5) / 2),
    "silu": (2, 0.55514317, 1.98800468, 14.32017362),  # root in 25-digit arithmetic; 14.32017276 is in circulation
    "sigmoid": (3,),
    "softplus": (3,),
    "step": (3,),
}
CLASSES = ("scale-invariant", "K*=0", "half-stable", "none")
TENSORS = {
    "K": 0.46391, "theta": 2.1098, "V": 0.13877, "G1": -0.06036, "F": 0.28669, "B": 3.65434, "D": -0.28875,
    "A": 0.76939, "P": -1.34713, "Q": -0.6232,
}  # fmt: skip


def criticality(scale: Scale) -> Outcome:
    """The table of classes and critical variances, against the values of the book."""
    rows: list[str] = []
    predicted: list[float] = []
    measured: list[float] = []
    for name, values in CRITICAL.items():
        found = critical(name)
        got = (float(CLASSES.index(found.kind)), found.C_b, found.C_W, found.kernel)
        rows += [f"{name}, {what}" for what in ("class", "C_b", "C_W", "K*")[: len(values)]]
        predicted += values
        measured += got[: len(values)]
    detail = "Classes: 0 scale-invariant, 1 K* = 0, 2 half-stable, 3 none."
    return [compare("criticality", rows, predicted, measured, detail, absolute=6e-9)], {}


def tensors(scale: Scale) -> Outcome:
    """All ten statistics of the fourth layer."""
    found = flow([1, 50, 50, 50, 1], *SETTING, square=SQUARE)
    measured = [float(getattr(found, name)[-1]) for name in TENSORS]
    detail = "tanh, C_b = 0.1, C_W = 1.3, lambda_b = 0.5, lambda_W = 0.8, equal widths, |x|^2 / n_0 = 0.9."
    digits = [5.1e-5 if name in ("theta", "Q") else 5.1e-6 for name in TENSORS]
    inside = np.abs(np.array(measured) - list(TENSORS.values())) <= digits
    finding = compare(
        "ten-tensors", list(TENSORS), list(TENSORS.values()), measured, detail, absolute=5.1e-5, also=bool(inside.all())
    )
    return [finding], {}


def universal_laws(scale: Scale) -> Outcome:
    """ReLU's exact vertex, tanh's kernel and vertex at large depth."""
    relu = flow([1, *[64] * 50, 1], "relu")
    depths = (2, 10, 51)
    rows = [f"relu V/K^2, layer {depth}" for depth in depths]
    predicted = [5.0 * (depth - 1) for depth in depths]
    measured = [float((relu.V / relu.K**2)[depth - 1]) for depth in depths]
    exact = compare("relu-vertex", rows, predicted, measured, "Critical ReLU, 50 hidden layers.", relative=1e-10)

    tanh = flow([1, *[64] * 999, 1], "tanh")
    layers = (10, 100, 1000)
    rows = [f"K l, layer {layer}" for layer in layers] + [f"V/(K^2 l), layer {layer}" for layer in layers[1:]]
    kernels = [float(tanh.K[layer - 1]) * layer for layer in layers]
    growth = (tanh.V / tanh.K**2) / np.arange(1, 1001)
    values = [*kernels, *(float(growth[layer - 1]) for layer in layers[1:])]
    stored = (0.58012, 0.51207, 0.50167, 0.648, 0.6641)
    detail = "Critical tanh from K = 1; the limits are 1/2 and 2/3, approached like log(l)/l."
    deep = compare("tanh-depth", rows, stored, values, detail, absolute=6e-5)
    return [exact, deep], {"depth": _depth_figure(relu.V / relu.K**2, tanh.V[:51] / tanh.K[:51] ** 2)}


def _depth_figure(relu: np.ndarray, tanh: np.ndarray) -> Figure:
    layers = tuple(float(layer) for layer in range(1, len(relu) + 1))
    lines = (
        Line("ReLU", layers, floats(relu), slot=0),
        Line("tanh", layers, floats(tanh), slot=1),
        Line("5 (l - 1)", layers, tuple(5 * (layer - 1) for layer in layers), slot=0, dashed=True),
        Line("2 l / 3", layers, tuple(2 * layer / 3 for layer in layers), slot=1, dashed=True),
    )
    caption = (
        "Growth of the four-point vertex with depth, which 1/width multiplies. Dashed: the laws of the two classes."
    )
    return Figure("Four-point vertex at criticality", Axis("layer"), Axis("V / K^2"), lines, caption)


def depth_over_width(scale: Scale) -> Outcome:
    """Every finite-width ratio grows like l / n once each layer contributes alike to the NTK."""
    rows: list[str] = []
    slopes: list[float] = []
    for activation in ("tanh", "relu"):
        ratios = [_ratios(activation, depth) for depth in (80, 160)]
        for name in ratios[0]:
            rows.append(f"{activation}, {name}")
            slopes.append(float(np.log2(ratios[1][name] / ratios[0][name])))
    detail = "Power of depth between 80 and 160 layers, learning rates balanced between layers."
    law = compare("depth-over-width", rows, np.ones(len(rows)), slopes, detail, absolute=0.05)

    shifted = critical(_shifted_tanh)
    powers = [critical("tanh").exponents, shifted.exponents]
    predicted = [value for one in powers for value in (one["lambda_b"], one["lambda_W"])]
    measured = [slope for f in ("tanh", _shifted_tanh) for slope in _rate_slopes(f)]
    rows = [f"{name}, {rate}" for name in ("tanh", "tanh(z + 0.3)") for rate in ("lambda_b", "lambda_W")]
    detail = "Power of the layer's number between layers 200 and 400 of 400; lambda_b ~ l^-p, lambda_W ~ l^(1 - p)."
    return [law, compare("equivalence", rows, predicted, measured, detail, absolute=0.03)], {}


def _shifted_tanh(z: torch.Tensor) -> torch.Tensor:
    return torch.tanh(z + 0.3) - float(np.tanh(0.3))


def _ratios(activation: str, depth: int) -> dict[str, float]:
    widths = [1, *[64] * (depth - 1), 1]
    rates = balanced_rates(widths, activation)
    found = flow(widths, activation, lambda_b=rates.lambda_b, lambda_W=rates.lambda_W)
    names = {"V/K^2": found.V / found.K**2, **{f"{n}/theta^2": getattr(found, n) / found.theta**2 for n in "ABPQ"}}
    return {name: abs(float(value[-1])) for name, value in names.items() if activation != "relu" or name[0] != "P"}


def _rate_slopes(activation: object) -> list[float]:
    rates = balanced_rates([1, *[64] * 399, 1], activation)  # type: ignore[arg-type]
    return [float(np.log2(rate[399] / rate[199])) for rate in (rates.lambda_b, rates.lambda_W)]


def aspect_ratios(scale: Scale) -> Outcome:
    """The optimal depth-to-width ratio."""
    table: dict[tuple[str, int], float] = {
        ("tanh", 10): 0.12, ("relu", 10): 0.016, ("tanh", 1): 0.26, ("tanh", 2): 0.23, ("relu", 1): 0.035,
        ("relu", 2): 0.031,
    }  # fmt: skip
    measured = [optimal_ratio(critical(name).nu, outputs) for name, outputs in table]
    rows = [f"{name}, {outputs} outputs" for name, outputs in table]
    detail = "r* = 4 / ((20 + 3 outputs) nu) with the computed nu; the printed values have two digits."
    return [compare("aspect-ratio", rows, list(table.values()), measured, detail, relative=0.02)], {}


def differential_step(scale: Scale) -> Outcome:
    """NTK and dNTK of one small network: the exact layer step against automatic differentiation."""
    widths = (3, 4, 5, 3)
    net = perceptrons(widths, *SETTING)
    start = net.draw(1, 5)
    x = torch.tensor([[0.4, -1.0, 0.7]], dtype=torch.float64)
    layer = first_layer(net(start[:2], x)[:, 0], 0.5 + 0.8 * float(x.square().mean()), True)
    for index in range(2, len(start), 2):
        layer = next_layer(layer, net.activation, start[index], start[index + 1], 0.5, 0.8)
    H, dH = _by_differentiation(net, start, x)
    assert layer.dH is not None
    pairs = {"H": (layer.H[0], H), "dH": (layer.dH[0], dH)}
    rows = [f"{name}, largest entry" for name in pairs] + [f"{name}, largest difference" for name in pairs]
    predicted = [float(right.abs().max()) for _, right in pairs.values()] + [0.0] * len(pairs)
    measured = [float(left.abs().max()) for left, _ in pairs.values()]
    measured += [float((left - right).abs().max()) for left, right in pairs.values()]
    detail = "A 3-4-5-3 tanh network, all components of both tensors; derivatives by forward over reverse mode."
    return [compare("dntk-step", rows, predicted, measured, detail, absolute=1e-10)], {}


def _by_differentiation(net, start: Sequence[torch.Tensor], x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[no-untyped-def]
    sizes, shapes = [t.numel() for t in start], [t.shape for t in start]
    rates = torch.cat([torch.full((size,), rate, dtype=x.dtype) for size, rate in zip(sizes, net.rates, strict=True)])

    def outputs(flat: torch.Tensor) -> torch.Tensor:
        parts = flat.split(sizes)
        return net(tuple(part.view(shape) for part, shape in zip(parts, shapes, strict=True)), x)[0, 0]

    flat = torch.cat([tensor.flatten() for tensor in start])
    J = torch.func.jacrev(outputs)(flat)
    hessian = torch.func.hessian(outputs)(flat)
    weighted = J * rates
    return weighted @ J.T, torch.einsum("imn,jm,kn->ijk", hessian, weighted, weighted)


EXPERIMENTS = (criticality, tensors, universal_laws, depth_over_width, aspect_ratios, differential_step)
