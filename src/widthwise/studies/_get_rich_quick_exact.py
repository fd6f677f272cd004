"""One linear neuron: closed forms against integration of the flow."""

import numpy as np

from widthwise.core import Axis, Figure, Line
from widthwise.studies._findings import Outcome, compare, floats
from widthwise.studies._types import Scale
from widthwise.theory import LinearNeuron, balanced_split, function_metric, implicit_bias, neuron_flow

DELTAS = (-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0)
START, TARGET = np.array([-1.0, 0.0]), np.array([0.0, 1.0])


def solution(scale: Scale) -> Outcome:
    """Random neurons: any sign of a and delta, unequal rates, two to five dimensions."""
    times = np.array([0.1, 0.5, 1.0, 3.0, 8.0])
    rows, errors = [], []
    for case in range(12 if scale == "quick" else 60):
        random = np.random.default_rng(case)
        d = 2 + case % 4
        a = 0.0 if case == 0 else float(random.normal())
        w, target = random.normal(size=d), random.normal(size=d)
        rates = (1.0, 1.0) if case % 3 else (0.5, 2.0)
        neuron = LinearNeuron(a, w, target, rates)
        path, flow = neuron.at(times), neuron_flow(np.eye(d), target, a, w, times, rates)
        rows.append(f"{d} inputs, delta {neuron.delta:.2f}")
        errors.append(max(np.abs(path.a - flow[:, 0]).max(), np.abs(path.w - flow[:, 1:]).max()))
    detail = "Largest difference of any weight from numerical integration (DOP853, 1e-11) at five times."
    return [compare("exact-solution", rows, np.zeros(len(rows)), errors, detail, absolute=1e-7)], {}


def movement(scale: Scale) -> Outcome:
    """How far the tangent kernel turns, by balance."""
    rows, predicted, measured = [], [], []
    x = np.linspace(0, 12, 121)
    lines: list[Line] = []
    for delta in DELTAS:
        neuron = LinearNeuron.from_balance(delta, START, TARGET)
        end = neuron_flow(np.eye(2), TARGET, neuron.a, neuron.w, 20.0)[0]
        late, first = function_metric(end[0] * end[1:], delta), function_metric(START, delta)
        rows.append(f"delta = {delta:g}")
        predicted.append(neuron.kernel_distance(0, 20))
        measured.append(1 - (late * first).sum() / (np.linalg.norm(late) * np.linalg.norm(first)))
        if delta in (-4, -1, 0, 1, 4):
            lines.append(
                Line(f"delta = {delta:g}", floats(x), floats([neuron.kernel_distance(0, t) for t in x]), len(lines))
            )
    ordered = bool((np.diff(measured) < 0).all())
    figure = Figure(
        "Kernel movement of one linear neuron", Axis("time"), Axis("kernel distance from the start"), tuple(lines),
        "From beta = (-1, 0) to (0, 1). Large positive delta (upstream) hardly moves the kernel, zero does at once, "
        "large negative delta (downstream) moves it most, but later.",
    )  # fmt: skip
    detail = "Kernel distance at t = 20: closed form, and metric at the integrated weights; it falls with delta."
    found = compare("kernel-movement", rows, predicted, measured, detail, absolute=1e-6, also=ordered)
    return [found], {"kernel-movement": figure}


def bias(scale: Scale) -> Outcome:
    """Where the flow ends when many solutions fit."""
    random = np.random.default_rng(7)
    X, start = random.normal(size=(2, 4)), random.normal(size=4)
    y = X @ random.normal(size=4)
    rows, errors = [], []
    for delta, until in ((-1.0, 800.0), (0.0, 150.0), (1.0, 80.0), (4.0, 40.0), (20.0, 15.0)):
        end = neuron_flow(X, y, *balanced_split(start, delta), until)[0]
        rows.append(f"delta = {delta:g}")
        errors.append(np.abs(end[0] * end[1:] - implicit_bias(X, y, delta, start)).max())
    detail = "Largest difference of the function at the end of the flow from the minimiser; two examples, four inputs."
    return [compare("implicit-bias", rows, np.zeros(len(rows)), errors, detail, absolute=1e-6)], {}


EXPERIMENTS = (solution, movement, bias)
