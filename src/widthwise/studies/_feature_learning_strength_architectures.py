"""A convolutional network, a residual network and a vision transformer, as they are, on real digits."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from widthwise.core import Axis, Figure, Line, Points
from widthwise.data import load
from widthwise.nn import cnn, resnet
from widthwise.probe import largest_curvature
from widthwise.scaling import RateBound, RichnessSweep, richness_sweep
from widthwise.scaling._richness import prepare
from widthwise.scaling._richness_batch import Starts, half_square
from widthwise.studies._findings import Outcome, compare, floats
from widthwise.studies._types import Finding, Scale

LAZY = {"quick": tuple(2.0**k for k in (-14, -13, -12, -11)), "full": tuple(2.0**k for k in range(-14, -9))}
RICH = tuple(2.0**k for k in (4, 6, 8, 10))
OTHERS = tuple(2.0**k for k in (2, 3, 4, 5, 6))  # with skips and norms: beyond them little trains in so many steps
WATCHED = 16  # examples of the lazy runs, all of them at every step
TRAINED = 0.98  # a lazy transformer is slow: its kernel's largest eigenvalue is far above the others
WITHIN = 0.15


class VisionTransformer(nn.Module):
    """Patches of 2 x 2, learned positions, PyTorch's own encoder (norm first), mean over patches."""

    def __init__(self, width: int = 8, depth: int = 1, heads: int = 2) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, 2)
        self.position = nn.Parameter(torch.randn(1, 16, width) / 2)
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.readout = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.position
        return self.readout(self.norm(self.blocks(x)).mean(1))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "convolutional": lambda: cnn(8, input_shape=(1, 8, 8), outputs=10),
    "residual": lambda: resnet(4, input_shape=(1, 8, 8), outputs=10, blocks=(1,)),
    "transformer": VisionTransformer,
}


@cache
def digits() -> tuple[Tensor, Tensor]:
    """Images of 8 x 8, standardised together, and centred one-hot classes."""
    data = load("digits")
    x = data.inputs.float().reshape(-1, 1, 8, 8)
    return (x - x.mean()) / x.std(), nn.functional.one_hot(data.targets, 10).float() - 0.1


@dataclass(frozen=True)
class _Planes:
    """What was measured of one architecture."""

    lazy: RichnessSweep
    edge: float
    rich: RichnessSweep | None


class _Preconditioned(nn.Module):
    """The network in coordinates in which every tensor has the same learning rate."""

    def __init__(self, starts: Starts) -> None:
        super().__init__()
        self.module = [starts.module.eval()]  # hidden from `parameters`
        self.roots = {name: starts.factors.get(name, 1.0) ** 0.5 for name in starts.weights[0]}
        self.values = nn.ParameterList([starts.weights[0][name] / root for name, root in self.roots.items()])

    def forward(self, x: Tensor) -> Tensor:
        weights = {name: v * root for (name, root), v in zip(self.roots.items(), self.values, strict=True)}
        return functional_call(self.module[0], weights, (x,))


def stable_rate(build: Callable[[], nn.Module], x: Tensor, y: Tensor) -> float:
    """``2 / lambda`` of the initial tangent kernel: the largest stable rate over ``gamma^2`` in the lazy limit."""
    starts, _ = prepare(build, x, y, 1, "spectral", None, 0, LAZY["quick"][0])
    net = _Preconditioned(starts)
    return 2 / float(largest_curvature(net, starts.inputs, starts.targets, half_square, iterations=60))


def architectures(scale: Scale) -> Outcome:
    """Lazy exponents of all three and their largest rate; the rich exponent of the one that the law is for."""
    found = {name: _measured(name, scale) for name in MODELS}
    rows, predicted, values, errors = [], [], [], []
    for name, planes in found.items():
        for part, words in (("optimum", "best rate"), ("edge", "largest rate")):
            fit = planes.lazy.exponents[f"{part}, lazy"]
            rows.append(f"{name}, {words}")
            predicted.append(2.0)
            values.append(float("nan") if fit is None else fit.value)
            errors.append(0.0 if fit is None else (fit.high - fit.low) / 4)
    first = next(iter(found.values())).lazy
    detail = (
        f"Exponent in gamma, from {first.gammas[0]:.2g} to {first.gammas[-1]:.2g}, {first.steps} steps of descent on "
        f"{WATCHED} digits."
    )
    exponents = compare(
        "architectures", rows, predicted, values, detail, absolute=WITHIN, uncertainty=errors, errors=0.0
    )
    ratios = [planes.lazy.edges[0].value / planes.lazy.gammas[0] ** 2 / planes.edge for planes in found.values()]
    step = float(_step(first))
    edges = compare(
        "architectures-edge", list(found), [1.0] * len(found), ratios,
        f"Largest rate that trains over 2 gamma^2 / lambda, gamma = {first.gammas[0]:.2g}; neighbouring tried rates "
        f"differ by a factor of {step:.2f}.",
        relative=step**0.5 - 1 + 0.01,
    )  # fmt: skip
    return [exponents, edges, _rich(found)], {
        "architectures": _lazy_figure(found), "architectures-rich": _rich_figure(found),
    }  # fmt: skip


def _step(sweep: RichnessSweep) -> float:
    """Ratio of neighbouring rates."""
    return sweep.rates[1] / sweep.rates[0]


def _measured(name: str, scale: Scale) -> _Planes:
    x, y = digits()
    quick, build = scale == "quick", MODELS[name]
    lazy = richness_sweep(
        build, x[:WATCHED], y[:WATCHED], gammas=LAZY[scale], octaves=(-2, 3), per_octave=2 if quick else 4,
        steps=60 if quick else 200, batch_size=None, trained=TRAINED,
    )  # fmt: skip
    rich = None
    if name == "convolutional":
        rich = richness_sweep(
            build, x[:1000], y[:1000], gammas=RICH, octaves=(0, 5 if quick else 7), per_octave=2,
            steps=200 if quick else 400, batch_size=32,
        )  # fmt: skip
    elif not quick:
        rich = _other(build, x, y)
    return _Planes(lazy, stable_rate(build, x[:WATCHED], y[:WATCHED]), rich)


def _other(build: Callable[[], nn.Module], x: Tensor, y: Tensor) -> RichnessSweep:
    """A wide window: the law says too little there."""
    return richness_sweep(
        build, x[:1000], y[:1000], gammas=OTHERS, octaves=(0, 8), steps=800, batch_size=32, rich_above=OTHERS[0]
    )


def _rich(found: dict[str, _Planes]) -> Finding:
    sweep = found["convolutional"].rich
    assert sweep is not None
    others = [
        f"{name} {planes.rich.rich} with {planes.rich.depth} matrices"
        for name, planes in found.items()
        if planes.rich is not None and name != "convolutional"
    ]
    fit = sweep.rich
    detail = f"Exponent of the best rate, gamma {RICH[0]:g} to {RICH[-1]:g}, {sweep.steps} steps on 1000 digits." + (
        f" Where the law does not apply (skips, norms): {'; '.join(others)}." if others else ""
    )
    value, error = (float("nan"), 0.0) if fit is None else (fit.value, (fit.high - fit.low) / 4)
    return compare(
        "architectures-rich", [f"convolutional, L = {sweep.depth}"], [2 / sweep.depth], [value], detail,
        absolute=WITHIN, uncertainty=[error], errors=0.0,
    )  # fmt: skip


def _lazy_figure(found: dict[str, _Planes]) -> Figure:
    series: list[Line | Points] = []
    for slot, (name, planes) in enumerate(found.items()):
        series.append(Points(f"{name}, best rate", *_known(planes.lazy.gammas, planes.lazy.optima), slot=slot))
        series.append(Line(f"{name}, largest", *_known(planes.lazy.gammas, planes.lazy.edges), slot))
        ends = (planes.lazy.gammas[0], planes.lazy.gammas[-1])
        series.append(Line("", ends, floats([planes.edge * g**2 for g in ends]), slot, dashed=True))
    return Figure(
        "Lazy learning rates of three architectures", Axis("gamma (outputs are divided by it)", "log"),
        Axis("learning rate", "log"), tuple(series),
        "Dashed: 2 gamma^2 over the largest eigenvalue of the tangent kernel, the largest stable rate in the limit.",
    )  # fmt: skip


def _rich_figure(found: dict[str, _Planes]) -> Figure:
    series: list[Line | Points] = []
    for slot, (name, planes) in enumerate(found.items()):
        if planes.rich is None:
            continue
        x, y = _known(planes.rich.gammas, planes.rich.optima)
        series.append(Points(f"{name}, best rate", x, y, slot=slot))
        if name == "convolutional" and len(x) > 1:
            law = 2 / planes.rich.depth
            shift = float(np.exp(np.mean(np.log(y) - law * np.log(x))))
            ends = (x[0], x[-1])
            series.append(
                Line(f"law: gamma^{law:.3g}", ends, floats([shift * g**law for g in ends]), slot, dashed=True)
            )
    return Figure(
        "Rich learning rates", Axis("gamma (outputs are divided by it)", "log"), Axis("learning rate", "log"),
        tuple(series), "The law 2/L is for feed-forward networks; skips and norms are outside it.",
    )  # fmt: skip


def _known(gammas: tuple[float, ...], bounds: tuple[RateBound, ...]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """What is known from both sides."""
    known = [(g, one.value) for g, one in zip(gammas, bounds, strict=True) if not one.censored]
    return floats([g for g, _ in known]), floats([v for _, v in known])


EXPERIMENTS = (architectures,)
