"""The plane of strength and learning rate on a real task."""

from dataclasses import replace

import numpy as np

from widthwise.core import Axis, Figure, Line, Points
from widthwise.scaling import Exponent, RichnessSweep, richness_sweep
from widthwise.studies._feature_learning_strength_task import images, perceptron
from widthwise.studies._findings import Outcome, compare, floats
from widthwise.studies._types import Scale

DEPTHS = (2, 3, 4)
LAZY, RICH = 2.0**-6, 2.0**6  # there the toy model's local exponent is within 0.03 of its limit
QUICK = tuple(2.0**k for k in (-10, -8.5, -7, -6, -3, 0, 3, 6, 7.5, 9, 10.5, 12))
FULL = tuple(2.0**k for k in (-12, -10.5, -9, -7.5, -6, -4, -2, 0, 2, 4, 6, 7.5, 9, 10.5, 12))
ENTROPY = {"lazy": tuple(2.0**k for k in (-10, -8.5, -7, -6)), "rich": tuple(2.0**k for k in (6, 8, 10, 12))}
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
        perceptron(inputs, depth), x, y, gammas=QUICK if quick else FULL, octaves=(-2, 4) if quick else (-6, 6),
        per_octave=2, steps=600 if quick else 4000, seeds=1 if quick else 3, lazy_below=LAZY, rich_above=RICH,
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
    windows = {"lazy": (1.5, 6.5), "rich": (-2.0, 3.0)} if quick else {"lazy": (-6, 9), "rich": (-6, 6)}
    sweeps = {
        regime: richness_sweep(
            perceptron(x.shape[1], 3), x, classes, gammas=ENTROPY[regime], octaves=octaves, per_octave=2,
            steps=400 if quick else 4000, seeds=1 if quick else 3, lazy_below=LAZY, rich_above=RICH,
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


EXPERIMENTS = (planes, entropy)
