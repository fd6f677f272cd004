"""Deep networks at large and infinite width: initialisation, linearised training, fluctuations, large learning rates
(arXiv:2309.01592)."""

from typing import Any

import numpy as np
import torch
from torch import nn

from widthwise.kernels import critical_line, infinite, phase_diagram
from widthwise.program import trace
from widthwise.studies._findings import Outcome, compare, floats, in_order
from widthwise.studies._infinite_width_lectures_catapult import catapult_digits, catapult_map
from widthwise.studies._infinite_width_lectures_networks import (
    SLUG,
    conditioning,
    depth_scales,
    fluctuations,
    relu_correlations,
)
from widthwise.studies._infinite_width_lectures_training import drift, ensembles, linearisation
from widthwise.studies._types import Claim, Finding, Scale, Study
from widthwise.theory import KernelDynamics

PAPER = "arXiv:2309.01592"

CLAIMS = (
    Claim("critical-line", "The edge of chaos of tanh is a line, parametrised by the variance at depth.",
          "arXiv:1606.05340; values of an independent computation", "1e-9 plus 1e-6, relative"),
    Claim("fixed-points", "Variance, chi_1, correlation and depth scale at depth follow from the two layer maps.",
          "arXiv:1611.01232; values of an independent computation", "2e-5, relative"),
    Claim("depth-scales", "Correlations and gradients of finite tanh networks change with depth as predicted.",
          "arXiv:1611.01232, figures 2 and 4", "four standard errors plus 8 / width"),
    Claim("relu-correlations", "At criticality ReLU correlations approach 1 like 9 pi^2 / (2 l^2).",
          f"{PAPER}, criticality; derived to the next order", "0.2 % of the growth of (1 - c)^(-1/2)"),
    Claim("ntk-conditioning", "Off over on the diagonal the deep NTK is 1/4 (ReLU) or 1/3 (smooth) at criticality; its "
          "condition number is bounded there, 1 in the chaotic phase, and grows exponentially in the ordered phase.",
          "arXiv:1912.13053", "3 %, relative (the approach is like log(l) / l)"),
    Claim("closed-form", "Mean and variance of trained ensembles, posterior, largest rate and condition number.",
          "arXiv:1902.06720, equations 14 to 16; values of an independent computation", "1e-8"),
    Claim("momentum", "With momentum m descent is stable up to 2 (1 + m) / lambda_max; modes obey a recurrence.",
          "second-order recurrence per eigenmode", "edge: factor 1 per step within 1e-9; outputs 1e-9"),
    Claim("trained-ensemble", "Ensembles of finite networks have the closed form's mean and variance as they train.",
          "arXiv:1902.06720, figure 1", "four standard errors plus 0.03, after extrapolation in 1 / width"),
    Claim("linearisation", "Trained tanh networks approach their linearisation like 1 / width, and the infinite one "
          "like 1 / sqrt(width).", "arXiv:1902.06720, 1909.08156", "three standard errors plus 0.15 of the exponent"),
    Claim("kernel-drift", "The tangent kernel's relative change in training falls like 1 / width (ReLU: width^(-3/4)).",
          "arXiv:1909.08156; ReLU derived", "three standard errors plus 0.15 of the exponent"),
    Claim("fluctuation-law", "Squared norms of activations and gradients are products of independent factors.",
          f"{PAPER}, finite width; arXiv:1812.05994", "4.5 standard errors"),
    Claim("log-normal", "Log norms of ReLU networks are Gaussian with mean -beta / 2 and variance beta = 5 sum 1 / n.",
          f"{PAPER}, finite width; arXiv:1812.05994", "10 / width, relative: the next order"),
    Claim("catapult-map", "Two-layer linear networks are lazy below eta lambda_0 = 2, catapult to 4, diverge beyond; "
          "the loss peaks at order n after log(n) / (2 log |1 - eta lambda_0|) steps.", "arXiv:2003.02218", "0.06"),
    Claim("catapult-network", "ReLU networks show the same regimes, with a higher upper edge, and end flatter than 2.",
          "arXiv:2003.02218, section 3", "the regime of every network; eta lambda below 2.05 after a catapult"),
)  # fmt: skip

LINE = {
    0.01: (1.0197107608, 1.2579959e-6),
    0.1: (1.1775690962, 0.0008322804),
    0.5: (1.6879751206, 0.0380412011),
    1.0: (2.1533026490, 0.1509646294),
    2.0: (2.8611624014, 0.5122649469),
}
POINTS = {
    (1.0, 0.05): (0.1935925202, 0.7590316472, 1.0, 3.62698),
    (2.5, 0.05): (1.0639583774, 1.1335156987, 0.4468042, 11.79560),
    (1.76, 0.05): (0.5694628, 0.9997964, 1.0, None),
}


def phases(scale: Scale) -> Outcome:
    """Critical line and fixed points of tanh."""
    line = critical_line("tanh", list(LINE))
    found = np.stack([line.weight_variance, line.bias_variance], 1)
    rows = [f"q* = {q}: {name} variance" for q in LINE for name in ("weight", "bias")]
    detail = "tanh, by one-dimensional quadrature at relative error 1e-14."
    predicted = list(LINE.values())
    first = compare("critical-line", rows, floats(predicted), floats(found), detail, relative=1e-6, absolute=1e-9)
    rows, numbers, measured = [], [], []
    for (weight, bias), values in POINTS.items():
        point = phase_diagram("tanh", weight, bias)
        for name, value in zip(("q", "chi_1", "c", "xi_c"), values, strict=True):
            if value is not None:
                rows.append(f"({weight}, {bias}): {name}")
                numbers.append(value)
                measured.append(float(getattr(point, name)))
    detail = "The third point is nearly critical: chi_1 = 0.99980 and a depth scale of 4912 layers."
    second = compare("fixed-points", rows, numbers, measured, detail, relative=2e-5)
    side = 16 if scale == "quick" else 40
    grid = phase_diagram("tanh", np.linspace(0.5, 4.0, side), np.linspace(0.0, 0.5, side // 2))
    line = critical_line("tanh", np.geomspace(1e-3, 2.0, 60))
    return [first, second], {"phase diagram": grid.plot("chi_1"), "edge of chaos": line.plot()}


MEANS = ((0, 0, 0), (0.10884042, -0.0055577, -0.09031892), (0.33599698, -0.01972668, -0.33512415),
         (0.33447574, -0.03436551, -0.40298208), (0.32398006, -0.07366721, -0.53210332))  # fmt: skip
VARIANCES = ((1.38489583, 0.79442445, 1.11865533), (0.21076995, 0.5179331, 0.6569064),
             (0.07669291, 0.41265786, 0.40205507), (0.07627497, 0.40857049, 0.37333003),
             (0.07299645, 0.35555506, 0.33882937))  # fmt: skip


def closed_form(scale: Scale) -> Outcome:
    """Stored values of an independent computation, and momentum step by step."""
    nngp, ntk, y = _small_task()
    trained = KernelDynamics.fit(ntk[:6, :6], y, ntk[6:, :6])
    readout = KernelDynamics.fit(nngp[:6, :6], y, nngp[6:, :6])
    kernels: dict[str, Any] = {"test_nngp": nngp[6:, 6:], "test_train_nngp": nngp[6:, :6]}
    paths = (
        trained.ensemble(nngp[:6, :6], [0, 0.1, 1, np.inf], **kernels),
        readout.ensemble(nngp[:6, :6], np.inf, **kernels),
    )
    names = ("t = 0", "t = 0.1", "t = 1", "t = infinity", "posterior")
    rows = [f"{name}: mean {i}" for name in names for i in range(3)]
    rows += [f"{name}: variance {i}" for name in names for i in range(3)]
    rows += ["largest learning rate", "condition number"]
    predicted = [*floats(MEANS), *floats(VARIANCES), 0.0772727347, 26.79967671]
    measured = [*floats(np.concatenate([path.mean[:, :, 0] for path in paths]))]
    measured += [*floats(np.concatenate([path.variance for path in paths]))]
    measured += [trained.largest_rate(), trained.condition_number]
    detail = "Six inputs in four dimensions, three held out; ReLU, two hidden layers, variances 2 and 0.1."
    first = compare("closed-form", rows, predicted, measured, detail, absolute=2e-8)
    return [first, _momentum(trained)], {"training curve": trained.flow(np.geomspace(1e-2, 30, 40)).plot()}


def _momentum(made: KernelDynamics) -> Finding:
    rows, predicted, measured = [], [], []
    for momentum in (0.0, 0.5, 0.9):
        edge = made.largest_rate(momentum)
        rows += [f"m = {momentum}: slowest factor at the edge", f"m = {momentum}: first test output after 50 steps"]
        predicted += [1.0, float(made.simulate("squared", [50], 0.8 * edge, momentum).test[0, 0, 0])]  # type: ignore[index]
        measured += [made.slowest(edge, momentum), float(made.descent([50], 0.8 * edge, momentum).test[0, 0, 0])]  # type: ignore[index]
    detail = (
        "Predicted: 1, and the recurrence taken step by step in function space; measured: the closed form per mode."
    )
    return compare("momentum", rows, predicted, measured, detail, absolute=1e-9)


def _small_task() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x = np.random.RandomState(1).randn(9, 4)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))
    pair = infinite(trace(net, torch.zeros(2, 4)), "ntk", 2**0.5, 0.1**0.5)(torch.tensor(x))
    return pair.nngp.numpy(), pair.ntk.numpy(), (np.sin(x[:, 0]) + x[:, 1] / 2)[:6]


EXPERIMENTS = (
    phases, depth_scales, relu_correlations, conditioning, closed_form, ensembles, linearisation, drift, fluctuations,
    catapult_map, catapult_digits,
)  # fmt: skip


STUDY = Study(
    slug=SLUG,
    state="works",
    claims=CLAIMS,
    settings={
        "quick": "Perceptrons of width 64 to 256 on 24 digits, 2 to 300 draws; the lectures give theory and no "
        "experiment of their own, the papers they build on train widths of 512 and more on up to 10^4 images.",
        "full": "The same on widths up to 2048, up to 600 draws and 400 steps.",
    },
    measure=in_order(SLUG, CLAIMS, EXPERIMENTS),
)
