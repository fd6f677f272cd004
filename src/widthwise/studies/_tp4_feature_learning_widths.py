"""Finite networks against their feature-learning limits, and features that move or do not."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from widthwise.core import Axis, Figure, Line, Points
from widthwise.data import load
from widthwise.scaling import AbcTable, abc, classify, named_abc
from widthwise.studies._findings import Outcome, compare, floats
from widthwise.studies._types import Scale
from widthwise.theory import AbcNetwork, FeatureLimit, LinearLimit, descend, feature_limit

SHEET = (
    0.782986, 0.260233, 0.226202, 0.217100, 0.212578, 0.210277,
    0.209113, 0.208530, 0.208239, 0.208096, 0.208025, 0.207991,
)  # fmt: skip
STEPS, RATE = 6, 0.5
TABLES: dict[str, AbcTable] = {
    "muP": named_abc("mup", 2),
    "between (r = 1/4)": abc(["-1/4", "1/4", "1/2"], ["1/4"] * 3, 0),
    "NTK": named_abc("ntk", 2),
    "standard, rate / n": abc([0, 0, 0], [0, "1/2", "1/2"], 1),
}


def linear_losses(scale: Scale) -> Outcome:
    """The losses of one linear limit, step by step."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        x, y = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 2, dtype=torch.float64)
    losses = descend(LinearLimit(3, 2, dtype=torch.float64), x, y, steps=12, rate=0.3).losses[:12].numpy()
    rows = [f"step {step}" for step in range(12)]
    detail = "Three inputs, two outputs, six samples, rate 0.3; the module of five hidden units, by autograd."
    return [compare("linear-losses", rows, SHEET, losses, detail, absolute=6e-7)], {}


def images(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Real training images of zeros and ones with labels -1 and 1, and as many to test on; root mean square one."""
    data = load("digits")
    chosen = torch.nonzero(data.targets < 2)[: 2 * count, 0]
    x = data.inputs[chosen].flatten(1).double()
    x = x / x.square().sum(1).mean().sqrt()
    y = 2.0 * data.targets[chosen, None].double() - 1
    return x[:count], y[:count], x[count:]


@dataclass(frozen=True)
class Deviations:
    """Squared deviations from the limit, mean over test points, ``[widths, seeds]``; of trained and drawn networks."""

    widths: Sequence[int]
    trained: np.ndarray
    drawn: np.ndarray


def deviations(
    limit: Tensor,
    noise: float,
    start: Callable[[int, int], tuple[nn.Module, list[dict]]],
    drawn: Callable[[int, int], nn.Module],
    widths: Sequence[int],
    seeds: int,
    count: int,
) -> Deviations:
    """Train networks of each width and draw others from the trained limit; `noise` is the limit's own mean square."""
    x, y, tests = images(count)
    table = np.zeros((2, len(widths), seeds))
    for i, width in enumerate(widths):
        for seed in range(seeds):
            net, groups = start(width, seed)
            descend(net, x, y, steps=STEPS, rate=RATE, groups=groups)
            for kind, module in enumerate((net, drawn(width, seed))):
                with torch.no_grad():
                    table[kind, i, seed] = (module(tests) - limit).square().mean() - noise
    return Deviations(widths, table[0], table[1])


def slope(widths: Sequence[int], squares: np.ndarray) -> tuple[float, float]:
    """Slope of log root mean square against log width, and its bootstrap standard error over seeds."""
    rng = np.random.default_rng(0)
    logs = np.log(widths)
    seeds = squares.shape[1]

    def fit(table: np.ndarray) -> float:
        return float(np.polyfit(logs, 0.5 * np.log(np.maximum(table.mean(1), 1e-30)), 1)[0])

    again = [fit(np.stack([row[rng.integers(0, seeds, seeds)] for row in squares])) for _ in range(200)]
    return fit(squares), float(np.std(again))


def _linear(widths: Sequence[int], seeds: int, count: int) -> Deviations:
    x, y, tests = images(count)
    limit = LinearLimit(x.shape[1], 1, dtype=torch.float64)

    def start(width: int, seed: int) -> tuple[nn.Module, list[dict]]:
        net = LinearLimit(x.shape[1], 1, dtype=torch.float64).sample(width, seed)
        return net, [{"params": list(net.parameters())}]

    descend(limit, x, y, steps=STEPS, rate=RATE)
    with torch.no_grad():
        target = limit(tests)
    return deviations(target, 0.0, start, limit.sample, widths, seeds, count)


def _sampled(limit: FeatureLimit, widths: Sequence[int], seeds: int, count: int) -> Deviations:
    def start(width: int, seed: int) -> tuple[nn.Module, list[dict]]:
        net = limit.network(width, seed)
        return net, net.parameter_groups(RATE)

    estimate = limit(images(count)[2])
    noise = float(estimate.error.square().mean())
    return deviations(estimate.mean, noise, start, limit.sample, widths, seeds, count)


def width_rates(scale: Scale) -> Outcome:
    """Trained and drawn networks of three kinds, from narrow to wide."""
    full = scale == "full"
    count, seeds = 8, 40 if full else 12
    x, y, _ = images(count)
    wide = (64, 256, 1024, 4096, 16384) if full else (64, 256, 1024, 4096)
    square = (64, 128, 256, 512, 1024, 2048) if full else (64, 128, 256, 512)
    more = 4 if full else 1
    one = feature_limit(x, y, depth=1, steps=STEPS, rate=RATE, samples=2**14 * more)
    two = feature_limit(x, y, depth=2, steps=STEPS, rate=RATE, samples=2**13 * more)
    found = {
        "linear": _linear(wide, seeds, count),
        "one hidden tanh layer": _sampled(one, wide, seeds, count),
        "two hidden tanh layers": _sampled(two, square, seeds, count),
    }
    findings = []
    for key, words in (("trained", "trained"), ("drawn", "drawn from the trained limit")):
        fits = [slope(item.widths, getattr(item, key)) for item in found.values()]
        detail = (
            f"Digits 0 and 1, {count} images, {STEPS} steps at rate {RATE}; outputs at {count} other images of "
            f"{seeds} networks {words} at each width."
        )
        measured, errors = zip(*fits, strict=True)
        findings.append(
            compare(f"{key}-rate", list(found), [-0.5] * 3, measured, detail, absolute=0.1, uncertainty=errors)
        )
    return findings, {"width": _width_figure(found)}


def _width_figure(found: dict[str, Deviations]) -> Figure:
    series: list[Points | Line] = []
    for slot, (name, item) in enumerate(found.items()):
        widths = floats(item.widths)
        root = np.sqrt(np.maximum(item.trained.mean(1), 1e-30))
        error = item.trained.std(1, ddof=1) / item.trained.shape[1] ** 0.5 / (2 * root)
        series.append(Points(name, widths, floats(root), floats(error), slot=slot))
        anchor = np.exp(np.mean(np.log(root * np.sqrt(item.widths))))
        series.append(Line("", widths, floats(anchor / np.sqrt(item.widths)), slot=slot))
    caption = "Root mean square difference of outputs from the infinite-width limit; the lines fall as width^-1/2."
    return Figure(
        "muP networks approach their feature-learning limit", Axis("width (units per hidden layer)", "log"),
        Axis("deviation of the output", "log"), tuple(series), caption,
    )  # fmt: skip


def movement(scale: Scale) -> Outcome:
    """How far hidden features and their kernel move, by parametrisation and width."""
    seeds = 24 if scale == "full" else 8
    widths = (64, 256, 1024, 4096) if scale == "full" else (64, 192, 576)
    x, y, _ = images(8)
    coordinates, kernels = {}, {}
    for name, table in TABLES.items():
        rows = np.array([[_moved(table, width, seed, x, y) for seed in range(seeds)] for width in widths])
        coordinates[name], kernels[name] = rows[:, :, 0], rows[:, :, 1]
    r = {name: float(classify(table).r) for name, table in TABLES.items()}
    found = []
    for claim, table_of, power, room in (("movement", coordinates, 1, 0.1), ("kernel-movement", kernels, 2, 0.15)):
        fits = [slope(widths, squares) for squares in table_of.values()]
        measured, errors = zip(*fits, strict=True)
        detail = (
            f"Two hidden tanh layers of widths {widths}, {seeds} networks each, {STEPS} steps at rate {RATE}; "
            "predictions from the exact classifier."
        )
        predicted = [-power * value for value in r.values()]
        found.append(compare(claim, list(r), predicted, measured, detail, absolute=room, uncertainty=errors))
    return found, {"movement": _movement_figure(widths, coordinates, x, y)}


def _moved(table: AbcTable, width: int, seed: int, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Mean squares of the change of last features, and of their kernel relative to itself."""
    net = AbcNetwork(x.shape[1], width, 1, table, "tanh", seed=seed, dtype=torch.float64)
    with torch.no_grad():
        before = net.hidden(x)[-1]
    descend(net, x, y, steps=STEPS, rate=RATE, groups=net.parameter_groups(RATE))
    with torch.no_grad():
        after = net.hidden(x)[-1]
    old, new = before @ before.T, after @ after.T
    return float((after - before).square().mean()), float((new - old).square().sum() / old.square().sum())


def _movement_figure(widths: Sequence[int], coordinates: dict[str, np.ndarray], x: Tensor, y: Tensor) -> Figure:
    series: list[Points | Line] = []
    for slot, (name, squares) in enumerate(coordinates.items()):
        root = np.sqrt(squares.mean(1))
        error = squares.std(1, ddof=1) / squares.shape[1] ** 0.5 / (2 * root)
        series.append(Points(name, floats(widths), floats(root), floats(error), slot=slot))
        power = -float(classify(TABLES[name]).r)
        level = np.exp(np.mean(np.log(root) - power * np.log(widths)))
        series.append(Line("", floats(widths), floats(level * np.array(widths, dtype=float) ** power), slot=slot))
    limit = feature_limit(x, y, depth=2, steps=STEPS, rate=RATE, samples=2048, replicates=2)
    level = float(limit.movement[-1])
    series.append(Line("muP, infinite width", floats((widths[0], widths[-1])), (level, level), slot=0, dashed=True))
    caption = (
        "Root mean square change of a last-layer feature in training; lines fall as width^-r, r from the classifier."
    )
    return Figure(
        "Features move in muP and freeze in the kernel regime", Axis("width (units per hidden layer)", "log"),
        Axis("change of a feature", "log"), tuple(series), caption,
    )  # fmt: skip


EXPERIMENTS = (linear_losses, width_rates, movement)
