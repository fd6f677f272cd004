"""Real networks against the effective theory: fluctuations, learning, depth against width."""

from math import sqrt

import numpy as np
import torch

from widthwise.core import Axis, Figure, Guide, Line, Points, generator
from widthwise.numerics import ACTIVATIONS
from widthwise.studies._findings import Outcome, compare, floats
from widthwise.studies._principles_dl_theory_values import SETTING, SQUARE
from widthwise.studies._types import Scale
from widthwise.theory.effective import (
    Verification,
    balanced_rates,
    critical,
    extrapolate,
    flow,
    flow_inputs,
    optimal_ratio,
    perceptrons,
    residual_nu,
    residual_vertex,
    train_predict,
    verify_flow,
)

OUTPUTS = 4
ERRORS = 3.0  # standard errors that a measurement may lie off
WIDTHS = (12, 20, 40, 80)
STEP_WIDTHS = (10, 16, 28, 48)
RESIDUAL_WIDTHS, BLOCKS = (12, 24, 48, 96), 3


def monte_carlo(scale: Scale) -> Outcome:
    """All statistics of the fourth layer, drawn at four widths and extrapolated to infinite width."""
    more = 1 if scale == "quick" else 8
    plain = verify_flow(4, *SETTING, square=SQUARE, widths=WIDTHS, draws=8000 * more)
    moved = verify_flow(
        4, *SETTING, square=SQUARE, widths=(10, 14, 20, 36), draws=[n * more for n in (10000, 8000, 4000, 800)],
        differential=True,
    )  # fmt: skip
    tensors = {**plain.tensors, **{name: moved.tensors[name] for name in "PQ"}}
    predicted = [one.theory for one in tensors.values()]
    measured = [one.limit for one in tensors.values()]
    errors = [one.limit_error for one in tensors.values()]
    detail = f"Hidden widths {WIDTHS}, for P and Q {moved.widths}; fit a + b/n + c/n^2."
    finding = compare("monte-carlo", list(tensors), predicted, measured, detail, uncertainty=errors, errors=ERRORS)
    return [finding], {"monte-carlo": _extrapolation_figure(plain)}


def _extrapolation_figure(found: Verification) -> Figure:
    series: list[Points | Line] = []
    inverse = tuple(1 / width for width in found.widths)
    for slot, name in enumerate("VABF"):
        one = found.tensors[name]
        ratios, errors = floats(one.values / one.theory), floats(one.errors / one.theory)
        series.append(Points(name, inverse, ratios, errors, slot=slot))
        series.append(Line("", (0.0, *inverse), (one.limit / one.theory, *ratios), slot=slot))
    caption = "Measured coefficient over the recursion's, against 1/width; the lines end at the extrapolated values."
    return Figure(
        "Fluctuations of finite networks", Axis("1 / width"), Axis("measured / theory"),
        (*series, Guide(1.0, "theory", "horizontal")), caption,
    )  # fmt: skip


def product_moments(scale: Scale) -> Outcome:
    """The second moment of a ReLU network's kernel is a product, exactly at every width."""
    draws = 40000 if scale == "quick" else 400000
    rows, predicted, measured, errors = [], [], [], []
    for width, depth in ((16, 4), (32, 4), (64, 8)):
        random = generator(0, "products", width, depth)
        kernel = torch.ones(draws, dtype=torch.float64)
        for _ in range(depth):
            z = kernel.sqrt()[:, None] * torch.randn(draws, width, generator=random, dtype=torch.float64)
            kernel = 2 * z.relu().square().mean(1)
        rows.append(f"width {width}, {depth} layers")
        predicted.append((1 + 5 / width) ** depth)
        measured.append(float(kernel.square().mean()))
        errors.append(float(kernel.square().std()) / sqrt(draws))
    detail = f"E K^2 = (1 + 5/n)^depth, {draws} networks each."
    return [compare("product-moments", rows, predicted, measured, detail, uncertainty=errors, errors=ERRORS)], {}


def ntk_variance(scale: Scale) -> Outcome:
    """A and B of real networks, whose NTK comes from automatic differentiation."""
    draws = 4000 if scale == "quick" else 30000
    x = torch.full((1, 2), sqrt(SQUARE), dtype=torch.float64)
    samples: dict[str, list[tuple[float, float]]] = {"A": [], "B": []}
    for width in WIDTHS:
        net = perceptrons((2, width, width, width, OUTPUTS), *SETTING)
        H = torch.cat([net.tangent_kernel(net.draw(500, part), x) for part in range(draws // 500)])
        own = H.diagonal(dim1=1, dim2=2)
        own = own - own.mean()
        pairs = OUTPUTS * (OUTPUTS - 1)
        diagonal = (own.sum(1).square() - own.square().sum(1)) / pairs
        between = (H.square().sum((1, 2)) - H.diagonal(dim1=1, dim2=2).square().sum(1)) / pairs
        for name, sample in (("A", width * diagonal), ("B", width * between)):
            samples[name].append((float(sample.mean()), float(sample.std()) / sqrt(draws)))
    theory = flow([2, 50, 50, 50, 2], *SETTING, square=SQUARE)
    predicted = [float(theory.A[-1]), float(theory.B[-1])]
    limits = [extrapolate(WIDTHS, *np.array(sample).T) for sample in samples.values()]
    measured, errors = zip(*limits, strict=True)
    detail = f"n Cov(H_11, H_22) and n E H_12^2 of {draws} networks at each of the widths {WIDTHS}, extrapolated."
    return [compare("ntk-variance", list(samples), predicted, measured, detail, uncertainty=errors, errors=ERRORS)], {}


def residual(scale: Scale) -> Outcome:
    """nu of residual networks: the closed form for linear ones, networks drawn with |z| and with ReLU."""
    gammas = (0.0, 0.5, 0.8)
    rows = [f"linear, gamma {gamma}" for gamma in gammas]
    predicted = [2 * (1 - gamma**4) for gamma in gammas]
    measured = [residual_nu("identity", gamma) for gamma in gammas]
    errors = [0.0] * len(rows)
    for name in ("absolute", "relu"):
        for gamma in gammas[1:]:
            value, error = _drawn_vertex(name, gamma, 20000 if scale == "quick" else 400000)
            rows.append(f"{name}, drawn V/K^2, gamma {gamma}")
            predicted.append(float(residual_vertex(name, gamma, BLOCKS)[-1]))
            measured.append(value)
            errors.append(error)
    printed = [BLOCKS * _printed(5, gamma) for gamma in gammas[1:]]
    detail = (
        f"Drawn: after {BLOCKS} blocks, widths {RESIDUAL_WIDTHS}, extrapolated. The printed formula would give "
        f"{printed[0]:.2f} and {printed[1]:.2f} for ReLU: it leaves out that a unit's sign is kept."
    )
    return [
        compare("residual", rows, predicted, measured, detail, absolute=1e-12, uncertainty=errors, errors=ERRORS)
    ], {}


def _printed(nu: float, gamma: float) -> float:
    branch = 1 - gamma**2
    return branch * (nu * branch + 4 * gamma**2)


def _drawn_vertex(name: str, gamma: float, draws: int) -> tuple[float, float]:
    """V / K^2 after all blocks: given z, every unit's update is Gaussian with the same random variance."""
    function = ACTIVATIONS[name]()
    scale = (1 - gamma**2) * critical(function).C_W
    found = []
    for width in RESIDUAL_WIDTHS:
        random = generator(0, "residual", name, gamma, width)
        z = torch.randn(draws, width, generator=random, dtype=torch.float64)
        for _ in range(BLOCKS):
            variance = scale * function(z).square().mean(1, keepdim=True)
            z = gamma * z + variance.sqrt() * torch.randn(draws, width, generator=random, dtype=torch.float64)
        sample = _vertex_sample(z)
        found.append((float(sample.mean()), float(sample.std()) / sqrt(draws)))
    return extrapolate(RESIDUAL_WIDTHS, *np.array(found).T)


def _vertex_sample(z: torch.Tensor) -> torch.Tensor:
    """Per network, something whose mean is n (E z_1^2 z_2^2 - (E z^2)^2) / (E z^2)^2."""
    width, squares = z.shape[1], z.square()
    pairs = (squares.sum(1).square() - squares.square().sum(1)) / (width * (width - 1))
    own, mean = squares.mean(1), float(squares.mean())
    return width * (pairs - 2 * mean * own + mean**2) / mean**2


def one_step(scale: Scale) -> Outcome:
    """Representation learning: the part of a gradient step quadratic in its size moves the mean output by P + 2 Q."""
    draws, eta = (6000 if scale == "quick" else 80000), 0.01
    x, found = torch.full((1, 2), sqrt(SQUARE), dtype=torch.float64), []
    for width in STEP_WIDTHS:
        net = perceptrons((2, width, width, width, 1), *SETTING)
        parts = []
        for part in range(draws // 1000):
            start = net.draw(1000, part)
            bends = [_bend(net, start, x, target, eta) for target in (1.0, -1.0)]
            parts.append(-width * (bends[0] - bends[1]) / 2)
        sample = torch.cat(parts)
        found.append((float(sample.mean()), float(sample.std()) / sqrt(draws)))
    theory = flow([2, 50, 50, 50, 1], *SETTING, square=SQUARE)
    predicted = float(theory.P[-1] + 2 * theory.Q[-1])
    measured, error = extrapolate(STEP_WIDTHS, *np.array(found).T)
    detail = (
        f"One input, target y: E[(z(eta) + z(-eta))/2 - z(0)] = -eta^2 y (P + 2 Q)/n; {draws} real networks per width "
        f"{STEP_WIDTHS}, trained one step forwards and one backwards, extrapolated."
    )
    return [compare("one-step", ["P + 2 Q"], [predicted], [measured], detail, uncertainty=[error], errors=ERRORS)], {}


def _bend(net, start: tuple[torch.Tensor, ...], x: torch.Tensor, target: float, eta: float) -> torch.Tensor:  # type: ignore[no-untyped-def]
    goal = torch.full((1, 1), target, dtype=x.dtype)
    ends = [net(net.train(lambda p: net(p, x), start, goal, lr, 1), x) for lr in (eta, -eta)]
    return ((ends[0] + ends[1]) / 2 - net(start, x))[:, 0, 0] / eta**2


def trained_means(scale: Scale) -> Outcome:
    """After training, the mean over networks leaves infinite width like 1/n; the cubic expansion explains it."""
    networks = 200 if scale == "quick" else 4000
    random = np.random.default_rng(0)
    x, points, y = random.normal(size=(3, 3)), random.normal(size=(2, 3)), np.array([1.0, -1.0, 0.5])
    rows, predicted, measured = [], [], []
    for width in (32, 64):
        net = (x, y, points, (3, width, width, 1), "tanh", 0.0, 1.0, 0.5, 0.5)
        linear, cubic, real = (
            train_predict(*net, lr=0.3, steps=15, order=order, expansion=power, networks=networks)  # type: ignore[arg-type]
            for order, power in ((1, 1), (1, 3), (None, 0))
        )
        rows += [f"width {width}, {what}, point {k}" for what in ("mean", "variance") for k in (1, 2)]
        predicted += [*width * (cubic.mean - linear.mean), *width * (cubic.variance - linear.variance)]
        measured += [*width * (real.mean - linear.mean), *width * (real.variance - linear.variance)]
    detail = f"Width times the change against networks with a frozen NTK, the same {networks} initialisations."
    return [compare("trained-means", rows, predicted, measured, detail, relative=0.1, absolute=0.05)], {}


TRAINED = ((2, 32), (4, 64), (4, 16), (8, 32), (4, 8), (8, 16))  # layers, width: two sizes of each ratio
EXAMPLES, STEPS = 4, 40


def trainability(scale: Scale) -> Outcome:
    """The share of initialisations that train at a rate that suits infinite width falls with depth over width."""
    count = 150 if scale == "quick" else 1000
    shares = [_share(depth, width, count) for depth, width in TRAINED]
    errors = [sqrt(max(share * (1 - share), 1 / count) / count) for share in shares]
    ratios = [depth / width for depth, width in TRAINED]
    ordered = shares[0] + shares[1] - shares[4] - shares[5] > ERRORS * sqrt(sum(e * e for e in errors))
    rows = [f"L/n = {TRAINED[i][0] / TRAINED[i][1]:g}: {TRAINED[i]} as {TRAINED[i + 1]}" for i in (0, 2, 4)]
    pairs = [sqrt(errors[i] ** 2 + errors[i + 1] ** 2) for i in (0, 2, 4)]
    detail = (
        f"ReLU, critical, balanced rates, {EXAMPLES} examples, {STEPS} steps at half the largest stable rate of "
        f"infinite width; share of {count} networks whose loss falls tenfold, twice the depth at twice the width; "
        f"{shares[0]:.2f} to {shares[-1]:.2f} from L/n = {ratios[0]:g} to {ratios[-1]:g}."
    )
    finding = compare(
        "trainability",
        rows,
        shares[1::2],
        shares[::2],
        detail,
        absolute=0.1,
        uncertainty=pairs,
        errors=ERRORS,
        also=ordered,
    )
    measured = Points("trained", tuple(ratios), tuple(shares), tuple(errors))
    caption = "Each point: one depth and width; equal ratios behave alike. The guide is r* for one output."
    figure = Figure(
        "Trainability", Axis("depth / width", "log"), Axis("share of initialisations that train"),
        (measured, Guide(optimal_ratio(5.0), "r*")), caption,
    )  # fmt: skip
    return [finding], {"trainability": figure}


def _share(depth: int, width: int, count: int) -> float:
    widths = [EXAMPLES, *[width] * (depth - 1), 1]
    rates = balanced_rates(widths, "relu", bias_share=0.0)
    random = generator(0, "trainability")
    x = torch.randn(EXAMPLES, EXAMPLES, generator=random, dtype=torch.float64)
    x = x / x.square().mean(1, keepdim=True).sqrt()
    y = torch.tensor([[1.0], [-1.0]] * (EXAMPLES // 2), dtype=torch.float64)
    theory = flow_inputs(x.numpy(), widths, "relu", lambda_b=0.0, lambda_W=rates.lambda_W.tolist(), vertex="none")
    lr = 1 / float(np.linalg.eigvalsh(theory.theta[-1])[-1])
    net = perceptrons(widths, "relu", lambda_b=0.0, lambda_W=rates.lambda_W.tolist())
    start = net.draw(count, 0)
    end = net.train(lambda p: net(p, x), start, y, lr, STEPS)
    losses = [(net(p, x) - y).square().sum((1, 2)) for p in (start, end)]
    return float((losses[1] < losses[0] / 10).double().mean())


EXPERIMENTS = (monte_carlo, product_moments, ntk_variance, residual, one_step, trained_means, trainability)
