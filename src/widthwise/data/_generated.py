"""Generated tasks: teacher-student regression, hierarchical Gaussian classes, MNIST-1D."""

import math
import random
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from widthwise.core import DataError, generator
from widthwise.data._raw import Raw

_ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh, "erf": torch.erf, "linear": lambda x: x}


def _require(condition: bool, what: str, value: object, mend: str) -> None:
    if not condition:
        raise DataError(f"{what}={value!r} does not work; {mend}.")


def teacher(
    *,
    samples: int = 2000,
    test: int = 1000,
    inputs: int = 20,
    outputs: int = 1,
    width: int = 50,
    activation: str = "tanh",
    noise: float = 0.0,
    seed: int = 0,
) -> Raw:
    """Regression on the outputs of a random two-layer network.

    ``y = W2 phi(W1 x) + noise * e`` with ``x``, ``e`` standard normal, ``W1`` of variance ``1 / inputs`` and ``W2`` of
    variance ``1 / width``. Noise is in both parts.

    Args:
        samples: training examples.
        test: held-out examples.
        inputs: input dimension.
        outputs: output dimension.
        width: hidden units of the teacher.
        activation: relu, tanh, erf or linear.
        noise: standard deviation of the noise.
        seed: of weights, inputs and noise.

    Raises:
        DataError: a size below 1, negative noise, or an unknown activation.
    """
    for what, size in {"samples": samples, "test": test, "inputs": inputs, "outputs": outputs, "width": width}.items():
        _require(size >= 1, what, size, "give a whole number of at least 1")
    _require(math.isfinite(noise) and noise >= 0, "noise", noise, "give a standard deviation of at least 0")
    _require(activation in _ACTIVATIONS, "activation", activation, f"give one of {', '.join(_ACTIVATIONS)}")
    weights = generator(seed, "teacher weights", inputs, width, outputs)
    w1 = torch.randn(width, inputs, generator=weights, dtype=torch.float64) / math.sqrt(inputs)
    w2 = torch.randn(outputs, width, generator=weights, dtype=torch.float64) / math.sqrt(width)

    def part(count: int, which: str) -> tuple[np.ndarray, np.ndarray]:
        stream = generator(seed, "teacher examples", which)
        x = torch.randn(count, inputs, generator=stream, dtype=torch.float64)
        e = torch.randn(count, outputs, generator=stream, dtype=torch.float64)
        return x.numpy(), (_ACTIVATIONS[activation](x @ w1.T) @ w2.T + noise * e).numpy()

    x, y = part(samples, "train")
    words = f"generated: teacher of width {width} ({activation}), noise {noise:g}, seed {seed}"
    return Raw("teacher", x, y, words, test=part(test, "test"), kind="table", standardise=None)


def gaussian_classes(
    *,
    samples: int = 2000,
    test: int = 1000,
    inputs: int = 32,
    depth: int = 3,
    branching: int = 2,
    separation: float = 2.0,
    decay: float = 0.5,
    label_noise: float = 0.0,
    seed: int = 0,
) -> Raw:
    """Gaussian classes whose means are the leaves of a tree.

    The mean of a class is the sum of one normal vector for each of its `depth` ancestors (itself included); at level
    ``l`` the squared norm of that vector is ``separation^2 * decay^l`` on average. Within a class, inputs have unit
    variance in each direction. In both parts a label is replaced with probability `label_noise` by one of the other
    labels.

    Args:
        samples: training examples.
        test: held-out examples.
        inputs: input dimension.
        depth: levels of the tree below its root; there are ``branching ** depth`` classes.
        branching: children of each node.
        separation: size of the coarsest differences between means.
        decay: ratio of squared sizes between a level and the one above.
        label_noise: probability of a wrong label.
        seed: of means, inputs and labels.

    Raises:
        DataError: a size below 1, fewer than two or too many classes, or a probability outside [0, 1].
    """
    for what, size in {"samples": samples, "test": test, "inputs": inputs, "depth": depth}.items():
        _require(size >= 1, what, size, "give a whole number of at least 1")
    _require(branching >= 2, "branching", branching, "give a whole number of at least 2")
    _require(0 <= label_noise <= 1, "label_noise", label_noise, "give a probability between 0 and 1")
    _require(separation >= 0 and decay >= 0, "separation and decay", (separation, decay), "give numbers of at least 0")
    classes = branching**depth
    _require(2 * classes <= samples, "samples", samples, f"{classes} classes need at least {2 * classes}")
    means = class_means(inputs, depth, branching, separation, decay, seed)

    def part(count: int, which: str) -> tuple[np.ndarray, np.ndarray]:
        stream = generator(seed, "gaussian examples", which)
        labels = torch.randint(classes, (count,), generator=stream)
        x = means[labels] + torch.randn(count, inputs, generator=stream, dtype=torch.float64)
        wrong = torch.rand(count, generator=stream) < label_noise
        shift = torch.randint(1, classes, (count,), generator=stream)
        return x.numpy(), torch.where(wrong, (labels + shift) % classes, labels).numpy()

    x, y = part(samples, "train")
    words = (
        f"generated: {classes} Gaussian classes (tree of depth {depth}, branching {branching}, "
        f"separation {separation:g}, decay {decay:g}), label noise {label_noise:g}, seed {seed}"
    )
    names = tuple(str(label) for label in range(classes))
    return Raw("gaussian-classes", x, y, words, names, part(test, "test"), kind="table", standardise=None)


def class_means(
    inputs: int, depth: int, branching: int, separation: float, decay: float, seed: int
) -> Float[Tensor, "classes inputs"]:
    """Means of the classes of ``load("gaussian-classes")``, float64, in the order of the leaves.

    >>> class_means(inputs=32, depth=3, branching=2, separation=2.0, decay=0.5, seed=0).shape
    torch.Size([8, 32])
    """
    stream = generator(seed, "gaussian means")
    means = torch.zeros(1, inputs, dtype=torch.float64)
    for level in range(depth):
        means = means.repeat_interleave(branching, 0)
        scale = separation * math.sqrt(decay**level / inputs)
        means = means + scale * torch.randn(means.shape, generator=stream, dtype=torch.float64)
    return means


MNIST1D_INSTALL = "install it with \"pip install 'widthwise[data]'\" (or pip install mnist1d)"


@lru_cache(maxsize=2)
def mnist1d(samples: int = 4000) -> Raw:
    """MNIST-1D (arXiv:2011.14439): ten digit-like curves of 40 points.

    `samples` of them are to train on and about a quarter as many are held out. 4000 gives the published set (seed 42).
    Each size is a draw of its own: a larger set does not contain a smaller one. Takes about a millisecond a curve; the
    last two sizes are kept in memory.

    Raises:
        DataError: the package `mnist1d` is not installed, or fewer than 20 samples.
    """
    _require(samples >= 20, "mnist1d samples", samples, "ask for at least 20")
    try:
        from mnist1d.data import get_dataset_args, make_dataset
    except ImportError as error:
        raise DataError(f"data set mnist1d needs the package mnist1d, which is missing; {MNIST1D_INSTALL}.") from error
    arguments = get_dataset_args()
    arguments.num_samples = 10 * math.ceil(samples / 8)
    with _global_seeds_restored():
        made = make_dataset(arguments)
    inputs = np.concatenate([made["x"], made["x_test"]])[:, None]
    targets = np.concatenate([made["y"], made["y_test"]]).astype(np.int64)
    source = f"generated by the PyPI package mnist1d: {arguments.num_samples} curves, seed {arguments.seed}"
    test = (inputs[samples:], targets[samples:])
    name = "mnist1d" if samples == 4000 else f"mnist1d:{samples}"
    return Raw(name, inputs[:samples], targets[:samples], source, tuple("0123456789"), test, kind="sequence")


class _global_seeds_restored:
    """The package seeds the global generators; give them back as they were."""

    def __enter__(self) -> None:
        self._states = random.getstate(), np.random.get_state(), torch.get_rng_state()

    def __exit__(self, *error: object) -> None:
        random.setstate(self._states[0])
        np.random.set_state(self._states[1])
        torch.set_rng_state(self._states[2])
