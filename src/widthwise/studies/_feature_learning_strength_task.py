"""The real task of the strength studies: small Fashion-MNIST images, and perceptrons of a few matrices."""

from collections.abc import Callable
from functools import cache
from itertools import pairwise

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


def perceptron(inputs: int, depth: int, width: int = WIDTH) -> Callable[[], nn.Module]:
    """A factory of bias-free ReLU networks with `depth` matrices and ten outputs."""

    def build() -> nn.Module:
        sizes = [inputs, *[width] * (depth - 1)]
        layers = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b, bias=False), nn.ReLU())]
        return nn.Sequential(*layers, nn.Linear(sizes[-1], 10, bias=False))

    return build
