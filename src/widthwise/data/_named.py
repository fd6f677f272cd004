"""Data sets by name."""

import difflib
import importlib.util
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np
import sklearn.datasets

from widthwise.core import DataError, Value
from widthwise.data._generated import MNIST1D_INSTALL, gaussian_classes, mnist1d, teacher
from widthwise.data._idx import FASHION_MNIST, MNIST, locate, read_idx_set
from widthwise.data._raw import Raw

_DESCRIPTIONS = {
    "digits": "scikit-learn digits: 1797 images of 1x8x8, 10 classes",
    "mnist1d": "MNIST-1D: 4000 + 1000 curves of 40 points, 10 classes; mnist1d:20000 generates more",
    "fashion-mnist": "Fashion-MNIST: 60000 + 10000 images of 1x28x28, 10 classes",
    "mnist": "MNIST: 60000 + 10000 images of 1x28x28, 10 classes",
    "breast-cancer": "Wisconsin breast cancer: 569 rows of 30 features, 2 classes",
    "wine": "Wine: 178 rows of 13 features, 3 classes",
    "iris": "Iris: 150 rows of 4 features, 3 classes",
    "diabetes": "Diabetes progression: 442 rows of 10 features, regression",
    "teacher": "generated: regression on a random two-layer network; teacher:inputs=20,noise=0.1",
    "gaussian-classes": "generated: Gaussian classes with means on a tree; gaussian-classes:depth=3,label_noise=0.1",
}
NAMES: tuple[str, ...] = tuple(_DESCRIPTIONS)
"""Names that `load` knows."""


@dataclass(frozen=True)
class Available(Value):
    """A named data set: what it is, whether it is on this machine, and how to get it where it is not."""

    name: str
    description: str
    present: bool
    install: str


def available() -> tuple[Available, ...]:
    """Every named data set, in the order of `NAMES`.

    >>> [entry.present for entry in available() if entry.name == "digits"]
    [True]
    """
    state = {known.name: (locate(known) is not None, known.install) for known in (FASHION_MNIST, MNIST)}
    state["mnist1d"] = (importlib.util.find_spec("mnist1d") is not None, MNIST1D_INSTALL)
    return tuple(
        Available(name, words, *state.get(name, (True, "comes with widthwise's dependencies")))
        for name, words in _DESCRIPTIONS.items()
    )


def read_named(text: str, seed: int) -> Raw:
    """The set called ``name`` or ``name:options``.

    Raises:
        DataError: an unknown name or option, or a set that is not on this machine.
    """
    name, _, options = text.partition(":")
    if name in ("teacher", "gaussian-classes"):
        make = teacher if name == "teacher" else gaussian_classes
        return replace(make(**{"seed": seed, **_options(make, options, name)}), name=text)
    if name == "mnist1d":
        return mnist1d(_whole(options, "samples", name)) if options else mnist1d()
    if options:
        raise DataError(f"data set {name} takes no options and was given {options!r}; write just '{name}'.")
    if name in ("fashion-mnist", "mnist"):
        return read_idx_set(FASHION_MNIST if name == "fashion-mnist" else MNIST)
    return _from_sklearn(name)


def unknown_name(text: str) -> DataError:
    """The error for a name that is neither a set nor a file."""
    near = difflib.get_close_matches(text.partition(":")[0].lower(), NAMES, n=2, cutoff=0.5)
    hint = f" (did you mean {' or '.join(near)}?)" if near else ""
    return DataError(
        f"no data set or file is called {text!r}{hint}; the named sets are {', '.join(NAMES)}; "
        "or give a path, or hf:name for one from the Hugging Face hub."
    )


def _from_sklearn(name: str) -> Raw:
    source = f"scikit-learn {version('scikit-learn')}, {name}"
    if name == "digits":
        bunch: Any = sklearn.datasets.load_digits()
        return Raw(
            name, bunch.images, bunch.target.astype(np.int64), source, tuple("0123456789"), kind="image", divisor=16.0
        )
    if name == "diabetes":
        bunch = sklearn.datasets.load_diabetes(scaled=False)
        return Raw(name, bunch.data, bunch.target, source, kind="table", columns=tuple(bunch.feature_names))
    readers: dict[str, Callable[[], Any]] = {
        "breast-cancer": sklearn.datasets.load_breast_cancer,
        "wine": sklearn.datasets.load_wine,
        "iris": sklearn.datasets.load_iris,
    }
    bunch = readers[name]()
    classes = tuple(str(label) for label in bunch.target_names)
    columns = tuple(bunch.feature_names)
    return Raw(name, bunch.data, bunch.target.astype(np.int64), source, classes, kind="table", columns=columns)


def _options(make: Callable[..., Raw], options: str, name: str) -> dict[str, Any]:
    """``a=1,b=0.5`` as arguments of `make`, of the types of its parameters."""
    parameters = inspect.signature(make).parameters
    given: dict[str, Any] = {}
    for item in filter(None, options.split(",")):
        key, _, value = item.partition("=")
        key = key.strip().replace("-", "_")
        if key not in parameters:
            raise DataError(f"data set {name} has no option {key!r}; its options are {', '.join(parameters)}.")
        kind = parameters[key].annotation
        given[key] = _whole(value, key, name) if kind is int else _number(value, key, name) if kind is float else value
    return given


def _whole(value: str, key: str, name: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise DataError(
            f"{key} of {name} is {value!r}, which is not a whole number; write for example 20000."
        ) from None


def _number(value: str, key: str, name: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise DataError(f"{key} of {name} is {value!r}, which is not a number; write for example {key}=0.1.") from None
