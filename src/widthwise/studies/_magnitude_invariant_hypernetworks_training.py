"""Training digit classifiers for every strength of label smoothing at once, with and without the parametrisation."""

import numpy as np
import torch
from torch import Tensor, nn

from widthwise.core import Axis, Figure, Line, seeded
from widthwise.data import load
from widthwise.nn import HyperNet, externalize
from widthwise.studies._findings import Experiment, Outcome
from widthwise.studies._types import Finding, Scale

RATES = {"quick": (1e-3, 1e-2, 1e-1), "full": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)}
STEPS = {"quick": 100, "full": 1000}
SEEDS = {"quick": 5, "full": 10}
GAMMAS = (1e-3, 1e-2, 1e-1, 1.0)
TRAIN = 1200


def _digits() -> tuple[Tensor, Tensor]:
    data = load("digits")
    x = data.inputs.flatten(1)
    return (x - x[:TRAIN].mean(0)) / x[:TRAIN].std(), data.targets


def _run(data: tuple[Tensor, Tensor], seed: int, mip: bool, rate: float, steps: int) -> float:
    """Accuracy on held-out digits, mean over gamma."""
    x, y = data
    with seeded(seed, "digits"):
        external, values = externalize(nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)))
        options = {"theta0": values} if mip else {"encoding": None, "residual": False}
        hyper = HyperNet({"gamma": ()}, external.shapes, (16, 64), **options)
        optimizer = torch.optim.SGD(hyper.parameters(), rate, momentum=0.9)
        for _ in range(steps):
            rows, gamma = torch.randint(0, TRAIN, (64,)), 10 ** (-3 * torch.rand(()))
            outputs = external(hyper(gamma=gamma), x[rows])
            loss = nn.functional.cross_entropy(outputs, y[rows], label_smoothing=0.5 * gamma.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        outputs = external.batched(hyper(gamma=torch.tensor(GAMMAS)), x[TRAIN:])
    return (outputs.argmax(-1) == y[TRAIN:]).float().mean().item()


def training(scale: Scale) -> Outcome:
    """Accuracy after equal steps at each learning rate, the same seeds and batches for both."""
    data = _digits()
    table = np.array(
        [
            [[_run(data, seed, mip, rate, STEPS[scale]) for seed in range(SEEDS[scale])] for rate in RATES[scale]]
            for mip in (False, True)
        ]
    )  # mip, rate, seed
    median = np.median(table, axis=2)
    slow = RATES[scale].index(1e-3)
    error = (table[1] - table[0]).std(axis=1, ddof=1) / np.sqrt(SEEDS[scale])
    gain = float(median[1, slow] - median[0, slow])
    detail = f"median of {SEEDS[scale]} seeds, {STEPS[scale]} steps of momentum; prediction: the plain parametrisation"
    faster = Finding(
        "faster", ("accuracy at rate 0.001",), (float(median[0, slow]),), (float(median[1, slow]),),
        gain > 0.1 + 2 * error[slow], detail + " plus 0.1", (float(error[slow]),),
    )  # fmt: skip
    best = median.argmax(axis=1)
    uncertain = float(np.hypot(*(table[i, best[i]].std(ddof=1) for i in (0, 1))) / np.sqrt(SEEDS[scale]))
    tops = [float(median[i, best[i]]) for i in (0, 1)]
    tuned = Finding(
        "tuned", ("best accuracy over learning rates",), (tops[0],), (tops[1],),
        tops[1] >= tops[0] - 0.02 - 2 * uncertain,
        detail + f"; best rates {RATES[scale][best[0]]:g} (plain) and {RATES[scale][best[1]]:g}", (uncertain,),
    )  # fmt: skip
    lines = [
        Line(name, RATES[scale], tuple(median[i].tolist()), i, markers=True)
        for i, name in enumerate(("plain", "magnitude-invariant"))
    ]
    figure = Figure(
        "Accuracy after equal steps",
        Axis("learning rate", "log"),
        Axis("accuracy on held-out digits"),
        tuple(lines),
        "Both parametrisations with the same seeds and batches; the higher line learns faster at that rate.",
    )
    return [faster, tuned], {"training": figure}


EXPERIMENTS: tuple[Experiment, ...] = (training,)
