"""The toy model: closed forms against iteration."""

import numpy as np

from widthwise.core import Axis, Figure, Line, Points
from widthwise.numerics import fit_power_law
from widthwise.scaling import toy_critical_rate, toy_descent, toy_flow_time
from widthwise.studies._findings import Outcome, compare, floats
from widthwise.studies._types import Scale

DEPTHS = (2, 3, 4)
GAMMAS = (0.01, 1.0, 100.0, 1000.0)
RATIOS = np.arange(0.9, 1.2, 0.01)
STEPS = 3000
RICH = np.logspace(1.5, 4, 6)


def edges(scale: Scale) -> Outcome:
    """Where descent of the toy model stops converging, over the closed form."""
    rows, measured = [], []
    for loss in ("mse", "cross-entropy"):
        for depth in DEPTHS:
            for gamma in GAMMAS:
                gaps = toy_descent([gamma], RATIOS * toy_critical_rate(gamma, depth, loss), depth, STEPS, loss)[0]
                rows.append(f"{loss}, L = {depth}, gamma {gamma:g}")
                measured.append(float(RATIOS[gaps < 1e-3].max(initial=0.0)))
    detail = (
        f"Largest rate that ends within 0.001 of the target after {STEPS} steps, over the closed form; grid of 1 %."
    )
    return [compare("toy-edge", rows, np.ones(len(rows)), measured, detail, absolute=0.03)], {}


def triangle(scale: Scale) -> Outcome:
    """Exponents of the largest and smallest rate that get half way within the steps, at large gamma."""
    rows, predicted, measured = [], [], []
    series: list[Line | Points] = []
    for slot, depth in enumerate(DEPTHS):
        rates = np.logspace(-4, 5, 181 if scale == "quick" else 721)
        good = toy_descent(RICH, rates, depth, STEPS) < 0.5
        largest, smallest = (np.array([pick(rates[row]) for row in good]) for pick in (np.max, np.min))
        least = 1.0 if depth > 2 else fit_power_law(RICH, RICH * np.log(RICH)).slope
        for name, values, law in (("largest", largest, 2 / depth), ("smallest", smallest, least)):
            rows.append(f"{name} rate, L = {depth}")
            predicted.append(law)
            measured.append(fit_power_law(RICH, values).slope)
        series.append(Points(f"L = {depth}", floats(RICH), floats(largest), slot=slot))
        series.append(Points("", floats(RICH), floats(smallest), slot=slot))
        flow = [toy_flow_time(0.5, gamma, depth) / STEPS for gamma in RICH]
        edge = [toy_critical_rate(gamma, depth) for gamma in RICH]
        series += [Line("", floats(RICH), floats(row), slot, dashed=True) for row in (flow, edge)]
    detail = f"gamma {RICH[0]:.0f} to {RICH[-1]:.0f}, {STEPS} steps; for L = 2 the law is gamma log gamma."
    caption = "Points: largest and smallest rate that get half way; dashed: closed form, and flow time over steps."
    figure = Figure(
        "Triangle of optimisability, toy model", Axis("gamma", "log"), Axis("learning rate", "log"), tuple(series),
        caption,
    )  # fmt: skip
    return [compare("triangle", rows, predicted, measured, detail, absolute=0.15)], {"triangle": figure}


EXPERIMENTS = (edges, triangle)
