"""Data, kernels and splits for `forecast_accuracy.py`: the package's own networks on named data sets."""

from dataclasses import dataclass

import numpy as np

import widthwise
from widthwise.core import DataError
from widthwise.data import DataSet, load
from widthwise.nn import build_model

DATA = {"digits": "digits", "mnist1d": "mnist1d:12000", "fashion-mnist": "fashion-mnist", "mnist": "mnist"}
MODELS = ("mlp", "cnn")


@dataclass(frozen=True)
class Scale:
    """How much to run, per model. A pair of 28 x 28 images costs the convolutional kernel some 70 microseconds.

    Attributes:
        samples: P in range.
        small: P from which 8 P is extrapolated; the first of the `samples`.
        pool: examples, disjoint from all samples, on which errors are measured.
        splits: independent samples.
        trials: least number of training sets per measured error.
        draws: random networks per measured error at finite width.
    """

    samples: dict[str, int]
    small: dict[str, int]
    pool: dict[str, int]
    splits: int
    trials: int
    draws: int


QUICK = Scale({"mlp": 500, "cnn": 150}, {"mlp": 200, "cnn": 50}, {"mlp": 1800, "cnn": 450}, 2, 8, 2)
FULL = Scale({"mlp": 800, "cnn": 240}, {"mlp": 400, "cnn": 120}, {"mlp": 4000, "cnn": 1100}, 2, 12, 5)


@dataclass(frozen=True)
class Split:
    """Indices of the samples that predict, and of the pool that errors are measured on."""

    sample: np.ndarray
    pool: np.ndarray


@dataclass(frozen=True)
class Case:
    """A kernel on a data set, with splits for predictions in range and for extrapolation."""

    data: str
    model: str
    gram: np.ndarray
    targets: np.ndarray
    labels: np.ndarray
    frequencies: np.ndarray
    inside: tuple[Split, ...]
    beyond: tuple[Split, ...]


def load_all() -> tuple[dict[str, DataSet], list[str]]:
    """The data sets that are on this machine, and a sentence for each that is not."""
    found, missing = {}, []
    for name, source in DATA.items():
        try:
            found[name] = load(source)
        except DataError as error:
            missing.append(str(error))
    return found, missing


def limit(data: DataSet, model: str, **options: int) -> widthwise.Limit:
    """The infinite-width network."""
    module = build_model(model, data.input_shape, data.outputs, **options)
    return widthwise.infinite(widthwise.trace(module, data.inputs[:2]))


def make_case(data: DataSet, name: str, model: str, scale: Scale, seed: int) -> Case:
    """Samples and pool are disjoint; a small data set (digits) is split anew each time instead."""
    samples, small, pool = scale.samples[model], scale.small[model], scale.pool[model]
    wanted = pool + scale.splits * samples
    if len(data) >= wanted:
        order = np.random.default_rng(seed).permutation(len(data))[:wanted]
        parts = [np.arange(start, start + samples) for start in range(pool, wanted, samples)]
        inside = tuple(Split(part, np.arange(pool)) for part in parts)
        beyond = tuple(Split(part[:small], np.arange(pool)) for part in parts)
    else:
        order = np.arange(len(data))
        shuffled = [np.random.default_rng([seed, split]).permutation(len(data)) for split in range(scale.splits)]
        samples, small = min(samples, len(data) // 3), min(small, len(data) // 12)  # 8 P leaves enough to test on
        inside = tuple(Split(pick[:samples], pick[samples:]) for pick in shuffled)
        beyond = tuple(Split(pick[:small], pick[small:]) for pick in shuffled)
    labels = data.targets[order].numpy()
    gram = limit(data, model).ntk_and_features(data.inputs[order])[0].numpy()
    frequencies = np.bincount(labels, minlength=data.outputs) / len(labels)
    targets = np.eye(data.outputs)[labels] - frequencies
    return Case(name, model, gram, targets, labels, frequencies, inside, beyond)
