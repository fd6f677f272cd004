"""Map-style PyTorch data sets, read example by example."""

from typing import Any

import numpy as np
import torch
from PIL import Image

from widthwise.core import DataError, progress
from widthwise.data._raw import Raw, as_array, is_grey, picture


def from_dataset(dataset: Any, chosen: np.ndarray | None = None) -> Raw:
    """Read the examples at `chosen` (None: all), each a pair ``(input, target)``, once.

    Random augmentations are therefore frozen at one draw. A list ``classes`` on the data set names its classes.

    Raises:
        DataError: an example is no pair, cannot be read, or has another shape than the first.
    """
    name = type(dataset).__name__
    places = range(len(dataset)) if chosen is None else chosen.tolist()
    if len(places) == 0:
        raise DataError(f"data set {name} is empty; give at least two examples.")
    inputs: np.ndarray | None = None
    targets: list[Any] = []
    in_order = False
    with progress(f"reading {name}", len(places)) as advance:
        for row, place in enumerate(places):
            example, target, in_order = _pair(dataset, place, name)
            if inputs is None:
                inputs = np.empty((len(places), *example.shape), dtype=example.dtype)
            if example.shape != inputs.shape[1:]:
                raise DataError(
                    f"example {place} of {name} has shape {example.shape} and the first one {inputs.shape[1:]}; "
                    "give every example the same shape."
                )
            inputs[row] = example
            targets.append(target)
            advance(1)
    assert inputs is not None
    labels = as_array(targets, f"the targets of {name}")
    classes = _class_names(dataset, labels)
    return Raw(name, inputs, labels, f"PyTorch data set {name}", classes, channels_first=in_order)


def _pair(dataset: Any, place: int, name: str) -> tuple[np.ndarray, Any, bool]:
    """Input, target, and whether the axes of the input are surely in PyTorch's order."""
    try:
        example = dataset[place]
    except Exception as error:
        raise DataError(
            f"example {place} of {name} cannot be read ({type(error).__name__}: {error}); mend it."
        ) from error
    if not isinstance(example, tuple | list) or len(example) != 2:
        raise DataError(f"example {place} of {name} is a {type(example).__name__}, not a pair; return (input, target).")
    target = example[1] if isinstance(example[1], str) else as_array(example[1], f"target {place} of {name}")
    if isinstance(example[0], Image.Image):
        return picture(example[0], not is_grey(example[0])), target, True
    return as_array(example[0], f"example {place} of {name}"), target, isinstance(example[0], torch.Tensor)


def _class_names(dataset: Any, labels: np.ndarray) -> tuple[str, ...] | None:
    names = getattr(dataset, "classes", None)
    whole = labels.ndim == 1 and labels.dtype.kind in "iu"
    if not whole or not isinstance(names, tuple | list) or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names) if labels.max() < len(names) else None
