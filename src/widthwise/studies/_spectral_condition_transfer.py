"""Does the best learning rate stay when the width grows? Adam in two parametrisations, and the spectral optimisers."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from widthwise.core import Axis, Figure, Points, seeded
from widthwise.data import load
from widthwise.nn import mlp, modular_groups, modular_init_, unit_scale_, unit_scaled_groups
from widthwise.scaling import TransferCheck, transfer_check
from widthwise.studies._findings import Experiment, Outcome
from widthwise.studies._types import Finding, Scale

HELD = 0.5
"""Octaves in all that still count as transfer."""

EXAMPLES, DRAWS = 256, 4
"""Examples of one gradient, and networks, that the standard parametrisation's drift is predicted from."""


@dataclass(frozen=True)
class Setting:
    """Sizes of the sweeps."""

    data: str
    widths: tuple[int, ...]
    steps: int
    seeds: int


ADAM = {
    "quick": Setting("fashion-mnist", (64, 128, 256), 100, 3),
    "full": Setting("fashion-mnist", (64, 128, 256, 512, 1024), 300, 6),
}
OTHERS = {
    "quick": Setting("digits", (32, 64, 128), 60, 2),
    "full": Setting("digits", (64, 128, 256, 512), 100, 4),
}


def _task(name: str) -> tuple[tuple[Tensor, Tensor], Callable[[int], nn.Module]]:
    """The first 16 384 examples of a data set, and a perceptron of three layers for it by width."""
    data = load(name)
    shape = tuple(data.inputs.shape[1:])
    return (data.inputs[:16384], data.targets[:16384]), partial(mlp, input_shape=shape, outputs=10)


def _sweep(setting: Setting, octaves: range, optimizer: str, **options: Any) -> TransferCheck:
    data, build = _task(setting.data)
    return transfer_check(
        build, setting.widths, data, [2.0**k for k in octaves], optimizer=optimizer, steps=setting.steps,
        seeds=setting.seeds, around=1, tolerance=HELD, **options,
    )  # fmt: skip


def _stderr(check: TransferCheck) -> float:
    return float(check.drift.half_width / 1.96)


def _figure(title: str, checks: dict[str, TransferCheck], caption: str) -> Figure:
    """Best learning rates relative to that at the smallest width."""
    series = []
    for slot, (name, check) in enumerate(checks.items()):
        octaves = np.array([best.octaves for best in check.optima])
        errors = tuple(best.stderr for best in check.optima)
        shift = 2.0 ** (0.02 * slot)
        widths = tuple(width * shift for width in check.sizes)
        label = f"{name}: {check.drift.total:+.2f} ± {check.drift.half_width:.2f} octaves in all"
        series.append(Points(label, widths, tuple((octaves - octaves[0]).tolist()), errors, slot))
    return Figure(title, Axis("width", "log"), Axis("octaves from the best rate at the smallest width"), tuple(series),
                  caption)  # fmt: skip


def relative_changes(setting: Setting, width: int) -> np.ndarray:
    """Each layer's change of its outputs over their size, by its own first sign update of rate one, ``[layers]``.

    In the standard parametrisation the input layer's does not depend on the width; the others' grow with it.
    """
    (inputs, targets), build = _task(setting.data)
    found: list[list[float]] = []
    for number in range(DRAWS):
        with seeded(number, "relative changes", width):
            net, chosen = build(width), torch.randperm(len(inputs))[: 2 * EXAMPLES]
        h, others = (inputs[part].flatten(1) for part in chosen.chunk(2))
        nn.functional.cross_entropy(net(h), targets[chosen[:EXAMPLES]]).backward()
        found.append([])
        with torch.no_grad():
            for layer in net.children():
                if isinstance(layer, nn.Linear):
                    change = others @ layer.weight.grad.sign().T  # type: ignore[union-attr]
                    found[-1].append(float(change.norm() / layer(others).norm()))
                others = layer(others)
    return np.array(found).mean(0)


def standard_range(setting: Setting) -> tuple[float, float]:
    """How far the best rate of the standard parametrisation should move: its lower and its upper end, in octaves.

    Outputs move by at most the sum of the layers' relative changes (subadditivity of the norm, arXiv:2310.17813), each
    proportional to the rate. If all layers count alike, the best rate follows one over that sum; if only those whose
    change grows with the width do, it falls by an octave per doubling.
    """
    ends = [relative_changes(setting, width).sum() for width in (setting.widths[0], setting.widths[-1])]
    return -float(np.log2(setting.widths[-1] / setting.widths[0])), -float(np.log2(ends[1] / ends[0]))


def adam(scale: Scale) -> Outcome:
    """AdamW on Fashion-MNIST, the spectral condition in natural units against one learning rate for all weights."""
    setting = ADAM[scale]
    checks = {
        "spectral": _sweep(setting, range(-8, 7), "adamw", scheme="spectral", natural_units=True),
        "standard": _sweep(setting, range(-15, -2), "adamw", scheme="standard"),
    }
    detail = (
        f"perceptron of 3 layers, {setting.data}, widths {setting.widths[0]} to {setting.widths[-1]}, {setting.steps} "
        f"steps of 64 examples, {setting.seeds} seeds; octaves of learning rate over all widths"
    )
    spectral, standard = (checks[scheme].drift.total for scheme in ("spectral", "standard"))
    held = Finding(
        "transfer", ("muP: drift of the best rate",), (0.0,), (spectral,), abs(spectral) <= HELD, detail,
        (_stderr(checks["spectral"]),),
    )  # fmt: skip
    lower, upper = standard_range(setting)
    slack = 2 * _stderr(checks["standard"])
    moved = Finding(
        "standard-drifts", ("standard: drift of the best rate, at least", "at most"), (upper, lower),
        (standard, standard), bool(lower - slack <= standard <= upper + slack and standard < -slack),
        detail + "; predicted from all layers' relative changes, and from the growing ones alone", (slack / 2,) * 2,
    )  # fmt: skip
    figure = _figure(
        "Best learning rate of AdamW against the width", checks,
        "In the spectral parametrisation the best rate should stay within half an octave; with one rate for all "
        "weights it falls as the network widens. Bars: one standard error over seeds.",
    )  # fmt: skip
    return [held, moved], {"transfer": figure}


def _modular(module: nn.Module, lr: float) -> list[dict[str, Any]]:
    return modular_groups(modular_init_(module), lr)


def _unit(module: nn.Module, lr: float) -> list[dict[str, Any]]:
    return unit_scaled_groups(unit_scale_(module, readout="readout"), lr, readout="readout")


def optimisers(scale: Scale) -> Outcome:
    """Spectral descent, Muon, the modular norm and unit scaling: each with one learning rate for every width."""
    setting = OTHERS[scale]
    checks = {
        "spectral descent": _sweep(setting, range(-11, 2), "spectral"),
        "Muon": _sweep(setting, range(-11, 2), "muon"),
        "modular norm": _sweep(setting, range(-9, 4), "spectral", groups=_modular),
        "unit scaling": _sweep(setting, range(-9, 4), "adam", groups=_unit),
    }
    drifts = tuple(check.drift.total for check in checks.values())
    finding = Finding(
        "optimisers", tuple(f"{name}: drift of the best rate" for name in checks), (0.0,) * len(checks), drifts,
        all(abs(drift) <= HELD for drift in drifts),
        f"perceptron of 3 layers, {setting.data}, widths {setting.widths[0]} to {setting.widths[-1]}, {setting.steps} "
        f"steps of 64 examples, {setting.seeds} seeds; octaves over all widths",
        tuple(_stderr(check) for check in checks.values()),
    )  # fmt: skip
    figure = _figure(
        "Best learning rate of the spectral optimisers", checks,
        "One learning rate for every width, in units of relative feature change. Bars: one standard error over seeds.",
    )  # fmt: skip
    return [finding], {"optimisers": figure}


EXPERIMENTS: tuple[Experiment, ...] = (adam, optimisers)
