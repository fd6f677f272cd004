"""Matrices of the spectral condition: random norms, scales and rates by rule, orthogonal factors, equivalence."""

import numpy as np
import torch
from torch import Tensor, nn

from widthwise.core import seeded
from widthwise.nn import natural_norm, newton_schulz
from widthwise.scaling import parametrize
from widthwise.studies._findings import Experiment, Outcome, compare
from widthwise.studies._types import Finding, Scale

SEEDS = {"quick": 3, "full": 20}
INPUTS, OUTPUTS = 16, 4


def gaussian(scale: Scale) -> Outcome:
    """Spectral norm of Gaussian matrices of 2000 by 500."""
    with seeded(0, "gaussian"):
        norms = [float(torch.linalg.matrix_norm(torch.randn(2000, 500), ord=2)) for _ in range(SEEDS[scale])]
    error = float(np.std(norms, ddof=1) / len(norms) ** 0.5)
    rows = ["2000 x 500"]
    detail = f"mean of {len(norms)} draws; predicted: sqrt(2000) + sqrt(500)"
    value = [2000**0.5 + 500**0.5]
    return [compare("gaussian", rows, value, [np.mean(norms)], detail, relative=0.01, uncertainty=[error])], {}


def _network(width: int) -> nn.Sequential:
    """Square, widening and narrowing matrices between fixed inputs and outputs."""
    return nn.Sequential(
        nn.Linear(INPUTS, width, bias=False), nn.ReLU(), nn.Linear(width, width, bias=False), nn.ReLU(),
        nn.Linear(width, 4 * width, bias=False), nn.ReLU(), nn.Linear(4 * width, width, bias=False), nn.ReLU(),
        nn.Linear(width, OUTPUTS, bias=False),
    )  # fmt: skip


def initial(scale: Scale) -> Outcome:
    """Natural norms of the weights that `parametrize` sets, against ``1 + sqrt(smaller fan / larger fan)``."""
    width = 256
    found = []
    for number in range(SEEDS[scale]):
        with seeded(number, "initial"):
            module = _network(width)
        for layer in module:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.5)
        parametrize(module, lr=1.0, optimizer="sgd", example_inputs=torch.zeros(2, INPUTS), base=None)
        found.append([float(natural_norm(weight.detach())) for weight in module.parameters()][:4])
    shapes = [(width, INPUTS), (width, width), (4 * width, width), (width, 4 * width)]
    predicted = [1 + (min(shape) / max(shape)) ** 0.5 for shape in shapes]
    table = np.array(found)
    finding = compare(
        "initial", [f"{o} x {i}" for o, i in shapes], predicted, table.mean(0),
        f"natural norm of random entries, mean of {len(found)} draws", relative=0.05,
        uncertainty=table.std(0, ddof=1) / len(found) ** 0.5,
    )  # fmt: skip
    return [finding], {}


def rates(scale: Scale) -> Outcome:
    """Learning rates of `parametrize` in natural units against the table: fo / fi, 1 / fi, sqrt(fo / fi)."""
    width, names, predicted, measured = 64, [], [], []
    rules = {
        "sgd": lambda i, o: o / i, "adam": lambda i, o: 1 / i, "orthogonal": lambda i, o: (o / i) ** 0.5,
    }  # fmt: skip
    for optimizer, rule in rules.items():
        module = _network(width)
        groups = parametrize(module, lr=1.0, optimizer=optimizer, example_inputs=torch.zeros(2, INPUTS), dry_run=True)
        for row in groups.plan.rows:
            fan_out, fan_in = row.shape
            names.append(f"{optimizer}, {fan_out} x {fan_in}")
            predicted.append(rule(fan_in, fan_out))
            measured.append(row.lr)
    return [compare("rates", names, predicted, measured, "learning rate of each weight", relative=1e-12)], {}


def _orthogonalised(shape: tuple[int, int], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Newton-Schulz without and with polishing, and the exact factor of a Gaussian matrix."""
    with seeded(seed, "orthogonal", *shape):
        matrix = torch.randn(shape, dtype=torch.float64)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    return newton_schulz(matrix), newton_schulz(matrix, polish=3), u @ v


def newton(scale: Scale) -> Outcome:
    """Singular values after five quintic steps, and the distance from the exact factor after polishing."""
    names, predicted, measured, inside, far = [], [], [], True, 0.0
    for shape in ((512, 128), (128, 512), (256, 192)):
        values = []
        for seed in range(SEEDS[scale]):
            rough, polished, exact = _orthogonalised(shape, seed)
            values.append(torch.linalg.svdvals(rough))
            far = max(far, float((polished - exact).abs().max()))
        low, high = float(torch.stack(values).min()), float(torch.stack(values).max())
        names += [f"{shape[0]} x {shape[1]}, smallest singular value", f"{shape[0]} x {shape[1]}, largest"]
        predicted += [0.7, 1.2]
        measured += [low, high]
        inside = inside and low >= 0.65 and high <= 1.25
    names.append("distance from U V^T after three polishing steps, largest entry")
    finding = Finding(
        "newton-schulz", tuple(names), (*predicted, 0.0), (*measured, far), inside and far < 1e-6,
        "Gaussian matrices; predicted: the ends of the range, and zero",
    )  # fmt: skip
    return [finding], {}


def equivalence(scale: Scale) -> Outcome:
    """The multiplier-free spectral form and muP's multipliers train alike, step by step, in float64."""
    with seeded(0, "equivalence"):
        x, y = torch.randn(32, INPUTS, dtype=torch.float64), torch.randn(32, OUTPUTS, dtype=torch.float64)
    names, distances = [], []
    for optimizer, lr in (("sgd", 0.05), ("adam", 0.01)):
        outputs = []
        for scheme in ("spectral", "mup"):
            with seeded(1, "equivalence"):
                module, base = (nn.Sequential(*_square(width)).double() for width in (128, 32))
            groups = parametrize(module, scheme, lr=lr, optimizer=optimizer, base=base, example_inputs=x[:2])
            trainer = torch.optim.SGD(groups) if optimizer == "sgd" else torch.optim.Adam(groups)
            for _ in range(10):
                trainer.zero_grad()
                (module(x) - y).square().mean().backward()
                trainer.step()
            outputs.append(module(x).detach())
        names.append(f"{optimizer}, 10 steps")
        distances.append(float((outputs[0] - outputs[1]).norm() / outputs[0].norm()))
    detail = "relative distance of the outputs, width 128 relative to width 32"
    return [compare("equivalence", names, [0.0, 0.0], distances, detail, absolute=1e-6)], {}


def _square(width: int) -> list[nn.Module]:
    return [
        nn.Linear(INPUTS, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, OUTPUTS),
    ]  # fmt: skip


EXPERIMENTS: tuple[Experiment, ...] = (gaussian, initial, rates, newton, equivalence)
