"""The plane of strength and learning rate on a real task."""

from dataclasses import replace

import numpy as np

from widthwise.core import Axis, Figure, Line, Points
from widthwise.numerics import fit_power_law
from widthwise.scaling import Exponent, RichnessSweep, richness_sweep, toy_descent
from widthwise.studies._feature_learning_strength_task import images, perceptron
from widthwise.studies._findings import Outcome, compare, floats
from widthwise.studies._types import Scale

DEPTHS = (2, 3, 4)
LAZY, RICH = 2.0**-6, 2.0**6  # there the toy model's local exponent is within 0.03 of its limit
QUICK = tuple(2.0**k for k in (-10, -8.5, -7, -6, -3, 0, 3, 6, 7.5, 9, 10.5, 12))
FULL = tuple(2.0**k for k in (-12, -10.5, -9, -7.5, -6, -3, 0, 3, 6, 7.5, 9, 10.5, 12))
ENTROPY = {"lazy": tuple(2.0**k for k in (-10, -8.5, -7, -6)), "rich": tuple(2.0**k for k in (6, 8, 10, 12))}
EDGE = {
    "many": (1300, tuple(2.0**k for k in (-7, -6, -5, -4)), 1.0),
    "few": (100, tuple(2.0**k for k in (-14, -13, -12, -11)), 2.0),
}
"""Steps, strengths and the exponent expected: ten or more, or a tenth or less, for steps times gamma."""
WITHIN = 0.15


def planes(scale: Scale) -> Outcome:
    """Exponents of the best and of the largest rate, three depths."""
    (x, y, _), _ = images(2000 if scale == "quick" else 10000)
    found = [_sweep(x.shape[1], depth, x, y, scale) for depth in DEPTHS]
    steps = found[0].steps
    findings = []
    for key, name in (("optimum", "best rate"), ("edge", "largest rate")):
        rows, predicted, fits = [], [], []
        for regime, law in (("lazy", lambda depth: 2.0), ("rich", lambda depth: 2 / depth)):
            rows += [f"{regime}, L = {depth}" for depth in DEPTHS]
            predicted += [law(depth) for depth in DEPTHS]
            fits += [sweep.exponents[f"{key}, {regime}"] for sweep in found]
        detail = (
            f"Exponent in gamma of the {name}: gamma from {min(found[0].gammas):.2g} to {LAZY:.2g} and from {RICH:g} "
            f"to {max(found[0].gammas):g}, perceptrons of width 32, {steps} steps of SGD. Uncertainty: a quarter "
            "of the 95 % interval."
        )
        values, errors = zip(*(_number(fit) for fit in fits), strict=True)
        claim = "best-rate" if key == "optimum" else "largest-rate"
        findings.append(
            compare(claim, rows, predicted, values, detail, absolute=WITHIN, uncertainty=errors, errors=0.0)
        )
    return findings, {"plane": found[1].plot(), "best-rates": _rates_figure(found)}


def _sweep(inputs: int, depth: int, x, y, scale: Scale) -> RichnessSweep:  # type: ignore[no-untyped-def]
    quick = scale == "quick"
    return richness_sweep(
        perceptron(inputs, depth), x, y, gammas=QUICK if quick else FULL, octaves=(-2, 4),
        per_octave=2, steps=600 if quick else 1000, seeds=1 if quick else 3, lazy_below=LAZY, rich_above=RICH,
    )  # fmt: skip


def _number(fit: Exponent | None) -> tuple[float, float]:
    return (float("nan"), 0.0) if fit is None else (fit.value, (fit.high - fit.low) / 4)


def _rates_figure(sweeps: list[RichnessSweep]) -> Figure:
    """Best rates over their value at gamma = 1, with the law."""
    series: list[Line | Points] = []
    for slot, sweep in enumerate(sweeps):
        unit = sweep.optima[sweep.gammas.index(1.0)].value
        known = [(g, o) for g, o in zip(sweep.gammas, sweep.optima, strict=True) if np.isfinite(o.value)]
        x = floats([g for g, _ in known])
        y, error = floats([o.value / unit for _, o in known]), [(o.high - o.low) / 4 / unit for _, o in known]
        series.append(Points(f"L = {sweep.depth}", x, y, floats(np.where(np.isfinite(error), error, 0.0)), slot))
        for regime, law in (("lazy", 2.0), ("rich", 2 / sweep.depth)):
            inside = [(g, v) for g, v in zip(x, y, strict=True) if (g <= LAZY if regime == "lazy" else g >= RICH)]
            if len(inside) > 1:
                shift = np.exp(np.mean([np.log(v) - law * np.log(g) for g, v in inside]))
                ends = (inside[0][0], inside[-1][0])
                series.append(Line("", ends, floats([shift * g**law for g in ends]), slot, dashed=True))
    return Figure(
        "Best learning rate against feature-learning strength", Axis("gamma", "log"),
        Axis("best rate over that at gamma = 1", "log"), tuple(series),
        "Dashed: slopes 2 (lazy) and 2/L (rich), through the middle of the points they are for.",
    )  # fmt: skip


def entropy(scale: Scale) -> Outcome:
    """The same exponents with cross-entropy; its best lazy rates are some octaves above the law through gamma = 1."""
    (x, _, classes), _ = images(2000)
    quick = scale == "quick"
    windows = {"lazy": (1.5, 6.5), "rich": (-2.0, 3.0)} if quick else {"lazy": (0.0, 7.0), "rich": (-2.0, 4.0)}
    sweeps = {
        regime: richness_sweep(
            perceptron(x.shape[1], 3), x, classes, gammas=ENTROPY[regime], octaves=octaves, per_octave=2,
            steps=400 if quick else 1000, seeds=1 if quick else 3, lazy_below=LAZY, rich_above=RICH,
        )
        for regime, octaves in windows.items()
    }  # fmt: skip
    found = [_number(sweep.exponents[f"optimum, {regime}"]) for regime, sweep in sweeps.items()]
    values, errors = zip(*found, strict=True)
    rows, law = ["lazy, L = 3", "rich, L = 3"], [2.0, 2 / 3]
    detail = f"Exponent of the best rate, classes of the same images, {sweeps['rich'].steps} steps."
    finding = compare("entropy", rows, law, values, detail, absolute=WITHIN, uncertainty=errors, errors=0.0)
    titles = {regime: f"Learning rate against strength with cross-entropy, {regime} side" for regime in sweeps}
    return [finding], {f"entropy-{regime}": replace(one.plot(), title=titles[regime]) for regime, one in sweeps.items()}


def entropy_edge(scale: Scale) -> Outcome:
    """The largest lazy rate with cross-entropy: many steps, few steps, and where the toy model stays bounded."""
    (x, _, classes), _ = images(2000)
    seeds = 1 if scale == "quick" else 3
    rows, predicted, values, errors, sweeps = [], [], [], [], {}
    for key, (steps, strengths, law) in EDGE.items():
        rates = {gamma: gamma if law == 1.0 else 2.0**4 * gamma**2 for gamma in strengths}
        tried = sorted({start * 2.0 ** (k / 2) for start in rates.values() for k in range(7)})
        sweep = richness_sweep(
            perceptron(x.shape[1], 3), x, classes, gammas=strengths, rates=tried, steps=steps, seeds=seeds,
            lazy_below=max(strengths),
        )  # fmt: skip
        value, error = _number(sweep.exponents["edge, lazy"])
        rows.append(f"{steps} steps, gamma {min(strengths):.2g} to {max(strengths):.2g}")
        predicted.append(law)
        values.append(value)
        errors.append(error)
        sweeps[key] = sweep
    gammas = np.logspace(-5, -2, 4)
    for depth in DEPTHS:
        tried = np.logspace(-7, 0, 281)
        bounded = [tried[np.isfinite(toy_descent([gamma], tried, depth, 1000, "cross-entropy")[0])] for gamma in gammas]
        rows.append(f"toy model, L = {depth}, bounded")
        predicted.append(1.0)
        values.append(fit_power_law(gammas, [one.max() for one in bounded]).slope)
        errors.append(0.0)
    detail = (
        "Exponent in gamma of the largest rate that trains (toy model: at which the weights stay bounded). That of the "
        f"best rate with many steps: {sweeps['many'].lazy}; with few: {sweeps['few'].lazy}."
    )
    finding = compare("entropy-edge", rows, predicted, values, detail, absolute=WITHIN, uncertainty=errors, errors=0.0)
    drawn = sweeps["many"].plot()
    figure = Figure(
        "Largest lazy rate with cross-entropy and many steps", drawn.x, drawn.y,
        tuple(part for part in drawn.series if not getattr(part, "name", "").startswith("law")),
        f"One network per point, {sweeps['many'].steps} steps; the largest rate that trains goes like gamma.",
    )  # fmt: skip
    return [finding], {"entropy-edge": figure}


EXPERIMENTS = (planes, entropy, entropy_edge)
