"""What a reader hands over: arrays as they were found, and the canonical layout of their inputs."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from widthwise.core import DataError


@dataclass(frozen=True)
class Raw:
    """Inputs and targets before targets are encoded and inputs standardised.

    Attributes:
        name: what the user called the data.
        inputs: ``[samples, ...]``, any real type; bytes (uint8) are pixels.
        targets: ``[samples]`` or ``[samples, outputs]``; numbers, booleans or strings.
        source: where it came from, in words.
        classes: class names, where `targets` are indices into them.
        test: inputs and targets of the official held-out part.
        kind: "image", "sequence", "table" or "tokens"; None: read off the array.
        divisor: what brings pixels to [0, 1].
        standardise: what `load` does when it is not told: "global", "feature" or None.
        columns: names of the features of a table.
        channels_first: whether the axes of images are known to be in PyTorch's order.
    """

    name: str
    inputs: np.ndarray
    targets: np.ndarray
    source: str
    classes: tuple[str, ...] | None = None
    test: tuple[np.ndarray, np.ndarray] | None = None
    kind: str | None = None
    divisor: float = 1.0
    standardise: str | None = "auto"
    columns: tuple[str, ...] | None = None
    channels_first: bool = False


def as_array(values: Any, what: str) -> np.ndarray:
    """Tensors, arrays, data frames and lists as one NumPy array, without a copy where possible.

    Raises:
        DataError: ragged lists, objects other than text, complex numbers, sparse tensors.
    """
    if isinstance(values, torch.Tensor):
        if values.layout != torch.strided:
            raise DataError(f"{what} are a sparse tensor; give them as a dense one (.to_dense()).")
        values = values.detach().cpu()
        values = values.float() if values.dtype in (torch.bfloat16, torch.float16) else values
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise DataError(f"{what} do not form one array ({error}); give every example the same shape.") from error
    if array.dtype.kind == "S":
        return np.char.decode(array, "utf-8")
    if array.dtype.kind == "O":
        if array.size and all(isinstance(item, str) for item in array.flat):
            return array.astype(str)
        raise DataError(
            f"{what} are an object array (Python objects, not numbers or text), which is refused; "
            "convert them to one numeric array, or to text for labels."
        )
    if array.dtype.kind not in "biufUT":
        raise DataError(f"{what} have type {array.dtype}; give real numbers (or text for labels).")
    return array.astype(str) if array.dtype.kind == "T" else array


def canonical(raw: Raw) -> Raw:
    """Give inputs their layout: images NCHW, sequences ``[n, channels, length]``, tables ``[n, features]``.

    Raises:
        DataError: nothing in the inputs, or text where numbers are needed, or parts of different shape.
    """
    if raw.inputs.dtype.kind == "U":
        raise DataError(f"the inputs of {raw.name} are text; give numbers, or token numbers as int64.")
    if raw.inputs.ndim == 0 or 0 in raw.inputs.shape:
        raise DataError(
            f"data set {raw.name} is empty (inputs of shape {raw.inputs.shape}); give at least two examples."
        )
    kind = raw.kind or _kind(raw.inputs)
    inputs, note = _arrange(raw.inputs, kind, raw.channels_first)
    test = raw.test
    if test is not None:
        test_inputs = _arrange(test[0], kind, raw.channels_first)[0] if test[0].ndim else test[0]
        if test_inputs.ndim == 0 or len(test_inputs) == 0:
            raise DataError(f"the test part of {raw.name} is empty; leave it out or give examples.")
        if test_inputs.shape[1:] != inputs.shape[1:]:
            raise DataError(
                f"the test part of {raw.name} has examples of shape {test_inputs.shape[1:]} and the training part of "
                f"shape {inputs.shape[1:]}; give both the same shape."
            )
        test = (test_inputs, test[1])
    divisor = 255.0 if inputs.dtype == np.uint8 and raw.divisor == 1.0 and kind == "image" else raw.divisor
    return replace(raw, inputs=inputs, test=test, kind=kind, divisor=divisor, source=raw.source + note)


def _kind(inputs: np.ndarray) -> str:
    if inputs.ndim >= 4 or (inputs.ndim == 3 and inputs.dtype == np.uint8):
        return "image"
    if inputs.ndim == 3:
        return "sequence"
    whole_numbers = inputs.dtype.kind in "iu" and inputs.dtype != np.uint8
    return "tokens" if inputs.ndim == 2 and whole_numbers else "table"


def _arrange(inputs: np.ndarray, kind: str, channels_first: bool) -> tuple[np.ndarray, str]:
    if kind == "image" and inputs.ndim == 3:
        return inputs[:, None], ""
    if kind == "image" and inputs.ndim == 4 and not channels_first and _channels_last(inputs.shape):
        return np.moveaxis(inputs, -1, 1), "; channels moved from the last axis to the second"
    if kind == "table" and inputs.ndim == 1:
        return inputs[:, None], ""
    return inputs, "; whole numbers taken as token sequences" if kind == "tokens" else ""


def _channels_last(shape: tuple[int, ...]) -> bool:
    """NumPy images usually have their channels last: one, three or four, where the second axis cannot be that."""
    return (shape[-1] in (1, 3) and shape[1] not in (1, 3)) or (shape[-1] == 4 and shape[1] not in (1, 3, 4))


def picture(image: Image.Image, colour: bool) -> UInt8[np.ndarray, "channels height width"]:
    """Pixels of a picture, with one channel (grey) or three."""
    pixels = np.asarray(image.convert("RGB" if colour else "L"))
    return np.moveaxis(pixels, -1, 0) if colour else pixels[None]


def is_grey(image: Image.Image) -> bool:
    """Whether one channel holds all of the picture."""
    return image.mode in ("1", "L", "LA")
