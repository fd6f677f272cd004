"""The real task of the strength studies: small Fashion-MNIST images, and perceptrons of a few matrices."""

from collections.abc import Callable
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor, nn

from widthwise.core import DataError
from widthwise.data import load

WIDTH = 32
Task = tuple[Tensor, Tensor, Tensor]  # inputs, targets (centred one-hot), classes


@cache
def images(samples: int, tests: int = 0) -> tuple[Task, Task]:
    """The first Fashion-MNIST images pooled to 7 x 7 and standardised per pixel, and as many others for tests; the
    digits where Fashion-MNIST is not installed."""
    try:
        data = load("fashion-mnist")
        x = nn.functional.avg_pool2d(data.inputs[: samples + tests].float().reshape(-1, 1, 28, 28), 4).flatten(1)
    except DataError:
        data = load("digits")
        x = data.inputs[: samples + tests].float().flatten(1)
    x = (x - x[:samples].mean(0)) / x[:samples].std(0).clamp_min(1e-3)
    classes = data.targets[: samples + tests]
    y = nn.functional.one_hot(classes, 10).float() - 0.1
    return (x[:samples], y[:samples], classes[:samples]), (x[samples:], y[samples:], classes[samples:])


def whitened_pair(samples: int, components: int) -> tuple[Tensor, Tensor]:
    """Two of the classes among those images as targets 1 and -1, and their leading principal components, whitened."""
    (x, _, classes), _ = images(samples)
    x, y = x[classes < 2].double(), 1.0 - 2.0 * classes[classes < 2, None].float()
    x = x - x.mean(0)
    values, vectors = torch.linalg.eigh(x.T @ x / len(x))
    return (x @ vectors[:, -components:] / values[-components:].sqrt()).float(), y


def perceptron(inputs: int, depth: int, width: int = WIDTH, outputs: int = 10) -> Callable[[], nn.Module]:
    """A factory of bias-free ReLU networks with `depth` matrices."""

    def build() -> nn.Module:
        sizes = [inputs, *[width] * (depth - 1)]
        layers = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b, bias=False), nn.ReLU())]
        return nn.Sequential(*layers, nn.Linear(sizes[-1], outputs, bias=False))

    return build
