"""Lectures at large and infinite width: networks at initialisation, many at once."""

from collections.abc import Sequence
from math import pi

import numpy as np
import torch
from scipy.special import digamma, polygamma
from scipy.stats import binom
from torch import Tensor

from widthwise.core import Axis, Figure, Guide, Line, Points, generator
from widthwise.kernels import critical_line, deep_kernels, phase_diagram
from widthwise.studies._findings import Outcome, compare, floats
from widthwise.studies._types import Finding, Scale

SLUG = "infinite-width-lectures"


# -- depth scales ------------------------------------------------------------------------------------------------------


def tanh_layers(
    weight: float, bias: float, q: float, width: int, depth: int, draws: int, correlation: float
) -> tuple[np.ndarray, np.ndarray]:
    """Gaps ``1 - c`` of two inputs ``[depth, draws]`` and squared gradient norms ``[depth, draws]`` at preactivations.

    The first preactivations are Gaussian with variance q and the given correlation; gradients are those of a random
    direction in the last preactivations.
    """
    source = generator(0, SLUG, "depth", weight, width)
    first, other = (torch.randn(draws, width, 1, generator=source) for _ in range(2))
    z = q**0.5 * torch.cat([first, correlation * first + (1 - correlation**2) ** 0.5 * other], 2)
    slopes, matrices, gaps = [], [], []
    for layer in range(depth):
        gaps.append(1 - torch.nn.functional.cosine_similarity(z[:, :, 0], z[:, :, 1]))
        if layer + 1 < depth:
            matrix = torch.randn(draws, width, width, generator=source) * (weight / width) ** 0.5
            slopes.append(1 - torch.tanh(z[:, :, :1]) ** 2)
            matrices.append(matrix)
            z = matrix @ torch.tanh(z) + bias**0.5 * torch.randn(draws, width, 1, generator=source)
    gradient = torch.randn(draws, width, 1, generator=source)
    norms = [gradient.square().sum((1, 2))]
    for matrix, slope in zip(reversed(matrices), reversed(slopes), strict=True):
        gradient = slope * (matrix.transpose(1, 2) @ gradient)
        norms.append(gradient.square().sum((1, 2)))
    return torch.stack(gaps).double().numpy(), torch.stack(norms[::-1]).double().numpy()


def depth_scales(scale: Scale) -> Outcome:
    """Correlation and gradients through the layers of finite tanh networks."""
    width, draws, depth = (256, 48, 12) if scale == "quick" else (1024, 64, 24)
    rows: list[str] = []
    predicted: list[float] = []
    measured: list[float] = []
    errors: list[float] = []
    drawn: list[Points | Line] = []
    for slot, (weight, name) in enumerate(((1.0, "ordered"), (2.5, "chaotic"))):
        point = phase_diagram("tanh", weight, 0.05)
        gaps, norms = tanh_layers(weight, 0.05, float(point.q), width, depth, draws, 0.5)
        theory = deep_kernels("tanh", weight, 0.05, float(point.q), [0.5], depth)
        logs = np.log(norms[0] / norms[-1]) / (depth - 1)
        rows += [f"{name}: log growth of squared gradients per layer"]
        predicted += [float(np.log(point.chi_1))]
        measured += [float(np.log((norms[0] / norms[-1]).mean()) / (depth - 1))]
        errors += [float(logs.std() / draws**0.5)]
        rates = np.log(gaps[2].mean() / gaps[-1].mean()) / (depth - 3)
        spread = np.log(gaps[2] / gaps[-1]).std() / draws**0.5 / (depth - 3)
        rows += [f"{name}: mean decay of log (1 - c) per layer"]
        predicted += [float(np.log(theory.gap[2, 0] / theory.gap[-1, 0]) / (depth - 3))]
        measured, errors = [*measured, float(rates)], [*errors, float(spread)]
        at = floats(range(1, depth + 1))
        drawn.append(Points(f"{name}, measured", at, floats(gaps.mean(1)), floats(gaps.std(1) / draws**0.5), slot))
        drawn.append(Line(f"{name}, predicted", at, floats(theory.gap[:, 0]), slot, dashed=True))
    detail = f"tanh, bias variance 0.05, weight variance 1 (ordered) and 2.5 (chaotic), width {width}, {draws} draws."
    caption = "Mean over networks of one minus the correlation of two inputs; lines: infinitely wide networks."
    figure = Figure("Correlations with depth", Axis("layer"), Axis("1 - correlation", "log"), tuple(drawn), caption)
    finding = compare(
        "depth-scales", rows, predicted, measured, detail, uncertainty=errors, errors=4.0, absolute=8 / width
    )
    return [finding], {"correlations": figure}


# -- exact recursions --------------------------------------------------------------------------------------------------


def relu_correlations(scale: Scale) -> Outcome:
    """The approach of correlations to 1 for ReLU at criticality."""
    first, last = (250, 1000) if scale == "quick" else (1000, 8000)
    deep = deep_kernels("relu", 2.0, 0.0, 1.0, [0.3, -0.5], last)
    # y = gap^(-1/2) obeys y' = y + a / 2 + (3 / 8) a^2 / y with a = 2 sqrt(2) / (3 pi), hence 1 - c = 9 pi^2 / (2 l^2).
    inverse = deep.gap**-0.5
    found = (inverse[last - 1] - inverse[first - 1]) / (last - first)
    a = 2 * 2**0.5 / (3 * pi)
    law = a / 2 + 0.75 * a * np.log(last / first) / (last - first)
    rows = ("c = 0.3: growth of (1 - c)^(-1/2) per layer", "c = -0.5: the same")
    detail = (
        f"Layers {first} to {last}; sqrt(2 / (9 pi^2)) = {a / 2:.6f} per layer plus the logarithm of the next order. "
        f"(1 - c) l^2 / (9 pi^2 / 2) at layer {last}: {float(deep.gap[-1, 0]) * last**2 * 2 / (9 * pi**2):.4f}."
    )
    return [compare("relu-correlations", rows, [law, law], found, detail, relative=2e-3)], {}


def conditioning(scale: Scale) -> Outcome:
    """The NTK of deep networks, by phase."""
    depth, inputs = (1000, 10) if scale == "quick" else (4000, 10)
    relu = deep_kernels("relu", 2.0, 0.0, 1.0, [0.3], depth)
    line = critical_line("erf", 0.5)
    erf = deep_kernels("erf", float(line.weight_variance[0]), float(line.bias_variance[0]), 0.5, [0.3], depth)
    far, near = phase_diagram("tanh", 4.0, 0.05), phase_diagram("tanh", 1.0, 0.05)
    chaotic = deep_kernels("tanh", 4.0, 0.05, float(far.q), [0.3], 100)
    ordered = deep_kernels("tanh", 1.0, 0.05, float(near.q), [0.3], 41)
    growth = np.log(ordered.condition_number(inputs)[40, 0] / ordered.condition_number(inputs)[20, 0]) / 20
    rows = (
        "ReLU, critical: T_ab / T_aa",
        "erf, critical: T_ab / T_aa",
        "ReLU, critical: condition number",
        "erf, critical: condition number",
        "tanh, chaotic: condition number",
        "tanh, ordered: log growth of the condition number per layer, with that of l chi^l",
    )
    predicted = (
        0.25,
        1 / 3,
        (inputs + 3) / 3,
        (inputs + 2) / 2,
        1.0,
        -np.log(float(near.chi_1)) - np.log(41 / 21) / 20,
    )
    measured = (
        relu.ratio[-1, 0],
        erf.ratio[-1, 0],
        relu.condition_number(inputs)[-1, 0],
        erf.condition_number(inputs)[-1, 0],
        chaotic.condition_number(inputs)[-1, 0],
        growth,
    )
    detail = (
        f"{inputs} inputs of correlation 0.3, depth {depth} (critical), 100 (chaotic), 21 to 41 (ordered). At "
        "criticality the condition number tends to a constant, (m + 3) / 3 or (m + 2) / 2 for m inputs."
    )
    figure = relu.plot()
    return [compare("ntk-conditioning", rows, predicted, measured, detail, relative=0.03)], {"NTK ratio": figure}


# -- fluctuations ------------------------------------------------------------------------------------------------------


def log_moments(widths: Sequence[int], linear: bool = False) -> tuple[float, float]:
    """Exact mean and variance of ``log X_L``: X_L is a product of independent means of (rectified) chi-squares."""
    mean, variance = 0.0, 0.0
    for width in widths:
        if linear:
            count, weight = np.array([width]), np.ones(1)
        else:
            count = np.arange(1, width + 1)
            weight = binom.pmf(count, width, 0.5)
            weight = weight / weight.sum()  # without the event that all are off, which sampling leaves out as well
        logs = digamma(count / 2) + np.log(2) + np.log((1 if linear else 2) / width)
        average = weight @ logs
        mean, variance = mean + average, variance + weight @ (logs**2 + polygamma(1, count / 2)) - average**2
    return float(mean), float(variance)


def sampled_norms(widths: Sequence[int], draws: int, linear: bool) -> tuple[Tensor, Tensor]:
    """``X_L = (2 / n) ||relu(z)||^2`` (linear: ``||z||^2 / n``) and squared gradient norms of networks, ``[draws]``."""
    source = generator(0, SLUG, "fluctuations", *widths, linear)
    gain = 1.0 if linear else 2.0
    h = torch.ones(draws, widths[0], 1)
    h = h / (h.square().sum(1, keepdim=True) / widths[0] * gain).sqrt()
    steps = []
    for width in widths:
        matrix = torch.randn(draws, width, h.shape[1], generator=source) * (gain / h.shape[1]) ** 0.5
        z = matrix @ h
        gate = torch.ones_like(z) if linear else (z > 0).float()
        steps.append((matrix, gate))
        h = z * gate
    norms = h.square().sum((1, 2)).double() * gain / widths[-1]
    gradient = torch.randn(draws, widths[-1], 1, generator=source)
    gradient = gradient / gradient.square().sum(1, keepdim=True).sqrt()
    for matrix, gate in reversed(steps):
        gradient = matrix.transpose(1, 2) @ (gate * gradient)
    return norms, gradient.square().sum((1, 2)).double()


def fluctuations(scale: Scale) -> Outcome:
    """Fluctuations of activation and gradient norms of deep networks of finite width."""
    draws = 1500 if scale == "quick" else 20000
    rows: list[str] = []
    predicted: list[float] = []
    measured: list[float] = []
    errors: list[float] = []
    for widths, linear in (((50,) * 10, False), ((20,) * 5, False), ((50,) * 10, True)):
        name = f"{'linear' if linear else 'ReLU'} {len(widths)} x {widths[0]}"
        mean, variance = log_moments(widths, linear)
        for kind, norms in zip(("activations", "gradients"), sampled_norms(widths, draws, linear), strict=True):
            logs = norms[norms > 0].log().numpy()
            fourth = ((logs - logs.mean()) ** 4).mean()
            if kind == "activations":
                rows.append(f"{name}: mean log of squared {kind}")
                predicted.append(mean)
                measured.append(float(logs.mean()))
                errors.append(float(logs.std() / len(logs) ** 0.5))
            rows.append(f"{name}: variance of log squared {kind}")
            predicted.append(variance)
            measured.append(float(logs.var(ddof=1)))
            errors.append(float(((fourth - logs.var() ** 2) / len(logs)) ** 0.5))
    detail = f"{draws} networks each; predicted by the exact product law, sums of binomially mixed log chi-squares."
    first = compare("fluctuation-law", rows, predicted, measured, detail, uncertainty=errors, errors=4.5, absolute=1e-3)
    return [first, _log_normal()], {"spread of log norms": _spread_figure()}


def _log_normal() -> Finding:
    rows: list[str] = []
    predicted: list[float] = []
    measured: list[float] = []
    slack: list[float] = []
    for width, depth in ((50, 10), (200, 40), (1000, 200)):
        beta = 5 * depth / width
        mean, variance = log_moments((width,) * depth)
        rows += [f"width {width}, depth {depth}: variance / beta", f"width {width}, depth {depth}: -2 mean / beta"]
        predicted += [1.0, 1.0]
        measured += [variance / beta, -2 * mean / beta]
        slack += [10 / width, 10 / width]
    detail = "ReLU, beta = 5 depth / width = 1 throughout; exact moments against N(-beta / 2, beta)."
    return compare("log-normal", rows, predicted, measured, detail, uncertainty=slack, errors=1.0)


def _spread_figure() -> Figure:
    depths = tuple(range(1, 101, 3))
    lines: list[Line | Guide] = []
    for slot, width in enumerate((20, 50, 200)):
        exact = tuple(log_moments((width,) * depth)[1] for depth in depths)
        lines.append(Line(f"width {width}", floats([depth / width for depth in depths]), floats(exact), slot))
    at = (0.0, 5.0)
    lines.append(Line("5 L / n", at, (0.0, 25.0), 3, dashed=True))
    caption = "Variance of the logarithm of the squared activation norm of ReLU networks against depth over width."
    return Figure(
        "Fluctuations grow with depth / width", Axis("depth / width"), Axis("variance of log"), tuple(lines), caption
    )
