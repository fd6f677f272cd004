"""Perceptrons in the parametrisations of the spectral condition's table: how far every layer moves, at every width."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from widthwise.core import Axis, Figure, Line, Points, Value, seeded
from widthwise.nn import natural_norm, newton_schulz
from widthwise.studies._findings import Experiment, Outcome
from widthwise.studies._types import Finding, Scale

WIDTHS = {"quick": (64, 128, 256), "full": (64, 128, 256, 512, 1024)}
SEEDS = {"quick": 10, "full": 10}
INPUTS, EXAMPLES, LAYERS, STEPS = 10, 32, 4, 5
SQRT2 = 2**0.5

Update = Callable[[Tensor, int, int], Tensor]
"""Gradient, fan-in and fan-out to what is subtracted from the weights."""


@dataclass(frozen=True)
class Parametrisation:
    """One row of the table.

    Attributes:
        readout_power: the readout's entries start at ``fan_in ** readout_power``; all others at ``fan_in ** -0.5``.
        expected: exponents of width of the four layers' changes, as the fact sheet measured them.
    """

    readout_power: float
    update: Update
    expected: tuple[float, float, float, float]


def _orthogonal(gradient: Tensor, fan_in: int, fan_out: int) -> Tensor:
    factor = gradient / gradient.norm() if min(gradient.shape) == 1 else newton_schulz(gradient, polish=3)
    return 0.05 * (fan_out / fan_in) ** 0.5 * factor


TABLE = {
    "SP, SGD": Parametrisation(-0.5, lambda g, i, o: 0.05 * g, (-0.37, 0.47, 0.42, 0.91)),
    "SP, sign": Parametrisation(-0.5, lambda g, i, o: 0.001 * g.sign(), (0.01, 0.91, 0.91, 1.31)),
    "NTP, SGD": Parametrisation(-0.5, lambda g, i, o: 0.2 / i * g, (-0.37, -0.45, -0.51, -0.07)),
    "muP, SGD": Parametrisation(-1.0, lambda g, i, o: 0.1 * o / i * g, (0.03, -0.01, -0.03, -0.04)),
    "muP, sign": Parametrisation(-1.0, lambda g, i, o: 0.05 / i * g.sign(), (0.0, -0.02, -0.02, -0.01)),
    "orthogonalised": Parametrisation(-1.0, _orthogonal, (0.0, 0.0, 0.0, 0.01)),
}
STABLE, UNSTABLE = ("muP, SGD", "muP, sign", "orthogonalised"), ("SP, SGD", "SP, sign", "NTP, SGD")


@dataclass(frozen=True)
class Seen(Value):
    """What one network shows; one number for each layer.

    Attributes:
        change: root mean square change of the preactivations after one step.
        start: root mean square preactivations before it.
        weight: natural norm of the initial weights over ``1 + sqrt(smaller fan / larger fan)``, its limit for Gaussian
            entries.
        update, updates: natural norms of the change of the weights after one step and after `STEPS` (where training
            is stable; else after one as well).
        alignment: ``|dW x| / (|dW| |x|)`` of the first step.
        weight_alignment: ``|W x| / (|W| |x|)`` before it.
    """

    change: tuple[float, ...]
    start: tuple[float, ...]
    weight: tuple[float, ...]
    update: tuple[float, ...]
    updates: tuple[float, ...]
    alignment: tuple[float, ...]
    weight_alignment: tuple[float, ...]


def _forward(weights: list[Tensor], x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs and preactivations of every layer, ``[examples, features]``."""
    inputs, outputs = [], []
    for weight in weights:
        inputs.append(x)
        outputs.append(x @ weight.T)
        x = SQRT2 * outputs[-1].relu()
    return inputs, outputs


def _step(weights: list[Tensor], x: Tensor, y: Tensor, update: Update) -> list[Tensor]:
    live = [weight.clone().requires_grad_() for weight in weights]
    loss = (_forward(live, x)[1][-1] - y).square().mean() / 2
    gradients = torch.autograd.grad(loss, live)
    return [w - update(g, w.shape[1], w.shape[0]) for w, g in zip(weights, gradients, strict=True)]


def _rms(values: list[Tensor]) -> tuple[float, ...]:
    return tuple(float(value.square().mean().sqrt()) for value in values)


def _norms(values: list[Tensor]) -> tuple[float, ...]:
    return tuple(float(natural_norm(value)) for value in values)


def _aligned(matrices: list[Tensor], norms: tuple[float, ...], inputs: list[Tensor]) -> tuple[float, ...]:
    """Natural norms are those of a root mean square: ``rms(W x) / (|W| rms(x))``."""
    pairs = zip(_rms([x @ m.T for m, x in zip(matrices, inputs, strict=True)]), _rms(inputs), strict=True)
    return tuple(out / (norm * x) for (out, x), norm in zip(pairs, norms, strict=True))


def look(row: Parametrisation, width: int, seed: int) -> Seen:
    """One network before and after its steps, all on the same 32 examples."""
    sizes = (INPUTS, width, width, width, 1)
    with seeded(seed, "examples"):
        x, y = torch.randn(EXAMPLES, INPUTS), torch.randn(EXAMPLES, 1)
    with seeded(seed, "weights", width):
        weights = [torch.randn(o, i) * i**-0.5 for i, o in pairwise(sizes)]
    weights[-1] *= width ** (row.readout_power + 0.5)
    inputs, before = _forward(weights, x)
    moved = _step(weights, x, y, row.update)
    first = [after - start for after, start in zip(moved, weights, strict=True)]
    change = [a - b for a, b in zip(_forward(moved, x)[1], before, strict=True)]
    for _ in range(STEPS - 1 if row.readout_power == -1.0 else 0):
        moved = _step(moved, x, y, row.update)
    natural, updates = _norms(weights), _norms(first)
    limits = [1 + (min(w.shape) / max(w.shape)) ** 0.5 for w in weights]
    return Seen(
        change=_rms(change),
        start=_rms(before),
        weight=tuple(norm / limit for norm, limit in zip(natural, limits, strict=True)),
        update=updates,
        updates=_norms([after - start for after, start in zip(moved, weights, strict=True)]),
        alignment=_aligned(first, updates, inputs),
        weight_alignment=_aligned(weights, natural, inputs),
    )


@cache
def measured(name: str, scale: Scale) -> dict[str, np.ndarray]:
    """Everything about one row of the table: arrays ``[layers, seeds, widths]`` by what was seen."""
    rows = [[look(TABLE[name], width, seed) for width in WIDTHS[scale]] for seed in range(SEEDS[scale])]
    return {key: np.moveaxis(np.array([[getattr(one, key) for one in row] for row in rows]), 2, 0) for key in KEYS}


KEYS = ("change", "start", "weight", "update", "updates", "alignment", "weight_alignment")


@dataclass(frozen=True)
class Exponent(Value):
    """Exponent of width and its standard error over seeds."""

    value: float
    error: float


def exponents(name: str, key: str, scale: Scale) -> list[Exponent]:
    """Exponent of width of each layer: mean and standard error of the seeds' own slopes."""
    x = np.log(WIDTHS[scale])
    x -= x.mean()
    each = np.log(measured(name, scale)[key]) @ x / (x @ x)  # [layers, seeds]
    return [Exponent(float(row.mean()), float(row.std(ddof=1) / len(row) ** 0.5)) for row in each]


def _finding(
    claim: str, groups: dict[str, tuple[list[Exponent], tuple[float, ...]]], bound: float, detail: str
) -> Finding:
    """A finding of exponents against predicted ones; holds where each is within `bound` and two standard errors."""
    names = [f"{name}, layer {number}" for name, (found, _) in groups.items() for number in range(1, len(found) + 1)]
    found = [one for rows, _ in groups.values() for one in rows]
    predicted = [value for _, values in groups.values() for value in values]
    pairs = zip(found, predicted, strict=True)
    holds = all(abs(one.value - value) <= bound + 2 * one.error for one, value in pairs)
    values, errors = tuple(one.value for one in found), tuple(one.error for one in found)
    return Finding(claim, tuple(names), tuple(predicted), values, holds, detail, errors)


def _detail(scale: Scale) -> str:
    return f"widths {WIDTHS[scale][0]} to {WIDTHS[scale][-1]}, {SEEDS[scale]} seeds; exponents of width"


def _curves(key: str, scale: Scale) -> tuple[Line | Points, ...]:
    """The second layer's sizes by width: means over seeds with their standard errors."""
    series: list[Line | Points] = []
    for slot, name in enumerate(TABLE):
        table = measured(name, scale)[key][1]
        mean, error = table.mean(0), table.std(0, ddof=1) / len(table) ** 0.5
        widths = tuple(map(float, WIDTHS[scale]))
        series.append(Line("", widths, tuple(mean.tolist()), slot))
        series.append(Points(name, widths, tuple(mean.tolist()), tuple(error.tolist()), slot))
    return tuple(series)


def changes(scale: Scale) -> Outcome:
    """Exponents of every layer's change, against zero and against the table."""
    zero = (0.0,) * LAYERS
    stable = _finding(
        "stable-changes", {name: (exponents(name, "change", scale), zero) for name in STABLE}, 0.1, _detail(scale)
    )
    table = _finding(
        "unstable-changes",
        {name: (exponents(name, "change", scale), TABLE[name].expected) for name in UNSTABLE},
        0.15,
        _detail(scale) + "; predicted: the fact sheet's, from 64 to 1024",
    )
    start = exponents("muP, SGD", "start", scale)
    initial = _finding("initial-sizes", {"muP": (start, (0.0, 0.0, 0.0, -0.5))}, 0.1, _detail(scale))
    figure = Figure(
        "Change of the second layer's preactivations after one step",
        Axis("width", "log"),
        Axis("root mean square change", "log"),
        _curves("change", scale),
        "Level lines learn features alike at every width: muP and orthogonalised updates. In the standard "
        "parametrisation the change grows, in the neural tangent parametrisation it vanishes. Bars: standard errors.",
    )
    return [stable, table, initial], {"changes": figure}


def norms(scale: Scale) -> Outcome:
    """The condition itself: natural norms of weights and updates, and how updates meet the features."""
    groups: dict[str, tuple[list[Exponent], tuple[float, ...]]] = {}
    for name in STABLE:
        groups |= {
            f"{name}: W": (exponents(name, "weight", scale)[:-1], (0.0,) * (LAYERS - 1)),
            f"{name}: change of W, 1 step": (exponents(name, "update", scale), (0.0,) * LAYERS),
            f"{name}: change of W, {STEPS} steps": (exponents(name, "updates", scale), (0.0,) * LAYERS),
        }
    stable = _finding("natural-norms", groups, 0.1, _detail(scale) + "; the readout's own norm may fall")
    standard = exponents("SP, sign", "update", scale)[1:3]
    fails = Finding(
        "standard-norms",
        ("SP, sign: layer 2", "SP, sign: layer 3"),
        (1.0, 1.0),
        tuple(slope.value for slope in standard),
        all(abs(slope.value - 1) <= 0.15 for slope in standard),
        _detail(scale),
        tuple(slope.error for slope in standard),
    )
    figure = Figure(
        "Natural norm of the second layer's first update",
        Axis("width", "log"),
        Axis("spectral norm times sqrt(fan-in / fan-out)", "log"),
        _curves("update", scale),
        "The spectral condition asks for level lines.",
    )
    return [stable, fails, _alignment(scale)], {"norms": figure}


def _alignment(scale: Scale) -> Finding:
    names, values, errors, level = [], [], [], True
    for name in ("muP, SGD", "muP, sign"):
        for key, words in (("alignment", "update"), ("weight_alignment", "initial weights")):
            table = measured(name, scale)[key][:-1]
            for layer, (rows, slope) in enumerate(zip(table, exponents(name, key, scale), strict=False), start=1):
                names.append(f"{name}: {words}, layer {layer}, widest")
                values.append(float(rows[:, -1].mean()))
                errors.append(float(rows[:, -1].std(ddof=1) / len(rows) ** 0.5))
                level = level and slope.value + 2 * slope.error >= -0.1 and values[-1] >= 0.1
    return Finding(
        "alignment", tuple(names), (1.0,) * len(names), tuple(values), level,
        _detail(scale) + "; predicted: of order one; 1 would be the whole norm", tuple(errors),
    )  # fmt: skip


EXPERIMENTS: tuple[Experiment, ...] = (changes, norms)
