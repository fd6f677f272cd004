"""Sizes of predicted parameters and of gradients, against the size of the input."""

from math import prod, sqrt

import numpy as np
import torch
from torch import nn

from widthwise.core import Axis, Figure, Line, seeded
from widthwise.nn import HyperNet, encode, externalize, mlp, proportionality
from widthwise.studies._findings import Experiment, Outcome, compare
from widthwise.studies._types import Finding, Scale

GRID = (0.01, 0.1, 0.25, 0.5, 1.0)
SEEDS = {"quick": 5, "full": 20}
SHAPES = {"weights": (1000,)}


def network(seed: int, **options: object) -> HyperNet:
    """One input, hidden layers of 16 and 64, 1000 predicted parameters; no offset where not asked for."""
    with seeded(seed, "sizes"):
        settings = {"encoding": None, "residual": False, "hidden": (16, 64)} | options
        return HyperNet({"gamma": ()}, SHAPES, **settings).double()  # type: ignore[arg-type]


def grid(values: tuple[float, ...] = GRID) -> dict[str, torch.Tensor]:
    """Inputs, one a row."""
    return {"gamma": torch.tensor(values, dtype=torch.float64)}


def proportional(scale: Scale) -> Outcome:
    """Norms and variance of predicted parameters, and gradient norms, of the plain network."""
    found = [proportionality(network(seed), grid()) for seed in range(SEEDS[scale])]
    ratios = np.array([row.ratio for row in found])
    spread = ratios / ratios[:, -1:]
    weights = network(0)(**grid((0.1, 1.0)))["weights"].detach()
    variance = float(weights[1].var() / weights[0].var())
    rows = [f"norm over gamma, at {gamma:g} against 1" for gamma in GRID[:-1]]
    size = compare(
        "proportional",
        [*rows, "variance at 1 over 0.1"],
        [1.0] * len(rows) + [100.0],
        [*_farthest(spread[:, :-1]), variance],
        f"networks 1-16-64-1000, {len(found)} initialisations; the farthest of them",
        relative=1e-9,
    )
    gradients = np.array([list(row.gradient_norm.values()) for row in found])  # seed, matrix, gamma
    relative = (gradients / np.array(GRID) / gradients[:, :, -1:]).max(axis=0)
    slopes = compare(
        "gradients",
        [f"matrix {index + 1}, gradient norm over gamma, at 0.01 against 1" for index in range(len(relative))],
        [1.0] * len(relative),
        relative[:, 0],
        "gradient of an inner product of the predicted parameters with a random direction",
        relative=1e-9,
    )
    return [size, slopes], {"sizes": _figure(found[0].theta_norm)}


def _farthest(spread: np.ndarray) -> list[float]:
    return [float(column[np.abs(column - 1).argmax()]) for column in spread.T]


def _figure(plain: tuple[float, ...]) -> Figure:
    lines = [Line("plain", GRID, plain, 0, markers=True)]
    for slot, encoding in enumerate(("cos|sin", "z|1-z"), start=1):
        found = proportionality(network(0, encoding=encoding), grid())
        lines.append(Line(f"encoding {encoding}", GRID, found.theta_norm, slot, markers=True))
    return Figure(
        "Size of predicted parameters",
        Axis("gamma", "log"),
        Axis("norm of predicted parameters", "log"),
        tuple(lines),
        "Without an encoding the size follows the input; with one it stays of one order.",
    )


def constant_norm(scale: Scale) -> Outcome:
    """Norm of the encoding."""
    rows, predicted, measured = [], [], []
    for inputs in (1, 2, 5):
        with seeded(inputs, "encoding"):
            norms = encode(torch.rand(1000, inputs, dtype=torch.float64)).norm(dim=-1)
        rows += [f"{inputs} inputs, smallest norm", f"{inputs} inputs, largest norm"]
        predicted += [sqrt(inputs)] * 2
        measured += [norms.min().item(), norms.max().item()]
    return [compare("constant-norm", rows, predicted, measured, "1000 random inputs in [0, 1]", relative=1e-12)], {}


def variation(scale: Scale) -> Outcome:
    """Largest over smallest gradient norm over the grid, with and without the encoding, in every initialisation."""
    spreads: dict[str, list[float]] = {"plain": [], "encoded": []}
    for seed in range(SEEDS[scale]):
        for name, options in (("plain", {}), ("encoded", {"encoding": "cos|sin"})):
            norms = np.array(list(proportionality(network(seed, **options), grid()).gradient_norm.values()))
            spreads[name].append(float((norms.max(axis=1) / norms.min(axis=1)).max()))
    measured = (max(spreads["plain"]), max(spreads["encoded"]))
    holds = abs(measured[0] - GRID[-1] / GRID[0]) < 1e-6 and measured[1] < 3
    detail = f"largest over smallest gradient norm of any weight matrix, gamma {GRID[0]} to 1, worst initialisation"
    return [Finding("gradient-variation", ("plain", "encoded, at most"), (100.0, 3.0), measured, holds, detail)], {}


def compounding(scale: Scale) -> Outcome:
    """Outputs of a primary network of L matrices without biases: gamma^L for the plain network, constant for MIP."""
    rows, predicted, measured = [], [], []
    for depth in (1, 3):
        with seeded(depth, "primary"):
            primary = mlp(32, input_shape=(10,), outputs=4, depth=depth).double()
            external, values = externalize(primary, "*weight")
            x = torch.randn(200, 10, dtype=torch.float64)
            plain = HyperNet({"gamma": ()}, external.shapes, encoding=None, residual=False).double()
            mip = HyperNet({"gamma": ()}, external.shapes, theta0=values).double()
            nn.init.zeros_(mip.head.weight)
        for name, net, power in (("plain", plain, depth + 1), ("zero head", mip, 0)):
            low, high = (external(net(gamma=torch.tensor(g, dtype=torch.float64)), x).norm().item() for g in (0.1, 1.0))
            rows.append(f"{name}, {depth + 1} matrices")
            predicted.append(10.0**power)
            measured.append(high / low)
    detail = "size of a ReLU network's outputs, gamma 1 over 0.1; biases zero"
    return [compare("compounding", rows, predicted, measured, detail, relative=1e-5)], {}


def normalization(scale: Scale) -> Outcome:
    """With layer norm the predicted parameters do not depend on a positive scalar."""
    worst = []
    for seed in range(SEEDS[scale]):
        net = network(seed, normalization="layer")
        for part in net.modules():
            if isinstance(part, nn.LayerNorm):
                part.eps = 1e-12
        values = net(**grid())["weights"]
        worst.append(((values - values[-1]).norm(dim=-1) / values[-1].norm()).max().item())
    detail = f"relative distance of predicted parameters to those at gamma 1, from {GRID[0]}; layer norm with eps 1e-12"
    finding = compare("layer-norm", ["farthest"], [0.0], [max(worst)], detail, absolute=1e-6)
    return [finding], {}


def ordinary(scale: Scale) -> Outcome:
    """With a zero head, training the offset is training the network."""
    with seeded(0, "ordinary"):
        module = mlp(32, input_shape=(10,), outputs=1, depth=2).double()
        external, values = externalize(module)
        hyper = HyperNet({"gamma": ()}, external.shapes, theta0=values).double()
        nn.init.zeros_(hyper.head.weight).requires_grad_(False)
        x, y = torch.randn(64, 10, dtype=torch.float64), torch.randn(64, 1, dtype=torch.float64)
    direct = torch.optim.SGD(module.parameters(), 0.02, momentum=0.9)
    offset = torch.optim.SGD([hyper.offset], 0.02, momentum=0.9)
    curves: list[list[float]] = [[], []]
    for step in range(50):
        gamma = torch.tensor((step % 7) / 7).double()
        for curve, optimizer, output in (
            (curves[0], direct, module(x)),
            (curves[1], offset, external(hyper(gamma=gamma), x)),
        ):
            loss = (output - y).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            curve.append(loss.item())
    at = [0, 9, 49]
    count = compare(
        "ordinary",
        [*(f"loss at step {index + 1}" for index in at), "weights of the head per hidden unit"],
        [*(curves[0][index] for index in at), float(sum(prod(shape) for shape in external.shapes.values()))],
        [*(curves[1][index] for index in at), hyper.head.weight.shape[0]],
        "stochastic gradient descent with momentum; prediction: the network trained without a hypernetwork",
        relative=1e-10,
    )
    return [count], {}


EXPERIMENTS: tuple[Experiment, ...] = (
    proportional, constant_norm, variation, compounding, normalization, ordinary,
)  # fmt: skip
