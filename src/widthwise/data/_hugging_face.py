"""Data sets of the Hugging Face `datasets` library (an optional extra)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from widthwise.core import DataError
from widthwise.data._raw import Raw, as_array, is_grey, picture
from widthwise.data._tables import TARGET_COLUMNS, target_column

INSTALL = "pip install 'widthwise[huggingface]'"
_HELD_OUT = ("test", "validation")


def is_hugging_face(source: Any) -> bool:
    """Whether `source` looks like a `datasets.Dataset` or a `datasets.DatasetDict`."""
    if isinstance(source, Mapping):
        return "train" in source and is_hugging_face(source["train"])
    return all(hasattr(source, name) for name in ("features", "column_names", "__len__", "__getitem__"))


def read_hugging_face(text: str, target: str | None) -> Raw:
    """``hf:name`` or ``hf:name:config``, fetched by `datasets.load_dataset`.

    Raises:
        DataError: `datasets` is not installed, the hub cannot be reached, or the set does not exist.
    """
    name, _, config = text.removeprefix("hf:").partition(":")
    if not name:
        raise DataError("hf: names no data set; write hf:name or hf:name:config.")
    try:
        import datasets
    except ImportError as error:
        raise DataError(f"{text} needs the package datasets, which is missing; install it with {INSTALL}.") from error
    try:
        found = datasets.load_dataset(name, config or None)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{text} cannot be had ({type(error).__name__}: {reason}); check the name and the connection, "
            "or save the data as .npz or .parquet and give the path."
        ) from error
    return from_hugging_face(found, name=text, target=target)


def from_hugging_face(dataset: Any, *, name: str, target: str | None = None) -> Raw:
    """A `datasets.Dataset`, or a dictionary with "train" and perhaps "test" or "validation", as raw data.

    An image column, or else ``input_ids``, is the input; otherwise numeric columns are features, or one column of
    equally long lists is the input.

    Raises:
        DataError: no usable column, text among the features, or no such target column.
    """
    if not isinstance(dataset, Mapping):
        inputs, targets, classes, words, pictures = _convert(dataset, name, target)
        source = f"Hugging Face data set {name}{words}"
        return Raw(name, inputs, targets, source, classes, channels_first=pictures)
    if "train" not in dataset:
        raise DataError(f"{name} has no part called 'train' (its parts: {', '.join(dataset)}); load one and give it.")
    inputs, targets, classes, words, pictures = _convert(dataset["train"], name, target)
    part = next((part for part in _HELD_OUT if part in dataset), None)
    test = None if part is None else _convert(dataset[part], f"{name} ({part})", target)[:2]
    held_out = "" if part is None else f", held-out part '{part}'"
    source = f"Hugging Face data set {name}{words}{held_out}"
    return Raw(name, inputs, targets, source, classes, test, channels_first=pictures)


_Converted = tuple[np.ndarray, np.ndarray, tuple[str, ...] | None, str, bool]


def _convert(dataset: Any, name: str, target: str | None) -> _Converted:
    """Inputs, targets, class names, words for the source, and whether the inputs are decoded pictures."""
    columns = list(dataset.column_names)
    if len(dataset) == 0 or len(columns) < 2:
        raise DataError(f"{name} has {len(dataset)} rows and columns {columns}; it needs rows, inputs and a target.")
    chosen = columns[target_column(columns, target or _likely_target(dataset, columns), name)]
    classes = getattr(dataset.features[chosen], "names", None)
    targets = as_array(list(dataset[chosen]), f"the targets of {name} (column {chosen!r})")
    inputs, used, pictures = _inputs(dataset, [column for column in columns if column != chosen], name)
    return inputs, targets, tuple(classes) if classes else None, f", inputs {used}, target {chosen!r}", pictures


def _likely_target(dataset: Any, columns: list[str]) -> str | None:
    if any(column.lower() in TARGET_COLUMNS for column in columns):
        return None
    labels = [column for column in columns if getattr(dataset.features[column], "names", None)]
    if labels:
        return labels[0]
    return "labels" if "labels" in columns else None


def _inputs(dataset: Any, columns: list[str], name: str) -> tuple[np.ndarray, str, bool]:
    first = dataset[0]
    images = [column for column in columns if isinstance(first[column], Image.Image)]
    single = images[0] if images else "input_ids" if "input_ids" in columns else None
    if single is None:
        lists = [column for column in columns if isinstance(first[column], list | tuple | np.ndarray)]
        single = lists[0] if len(lists) == 1 and len(columns) == 1 else None
    if single is not None:
        return _stacked(list(dataset[single]), single, name), repr(single), bool(images)
    text = next((column for column in columns if not isinstance(first[column], int | float | None)), None)
    if text is not None:
        raise DataError(
            f"feature column {text!r} of {name} holds {type(first[text]).__name__} values, not numbers; "
            "encode it as numbers (for text: tokenise into 'input_ids'), drop it, or name it as the target."
        )
    values = [np.asarray([np.nan if v is None else v for v in dataset[column]], dtype=float) for column in columns]
    return np.stack(values, axis=1), "columns " + ", ".join(columns[:8]), False


def _stacked(values: list[Any], column: str, name: str) -> np.ndarray:
    if isinstance(values[0], Image.Image):
        colour = not all(is_grey(value) for value in values)
        values = [picture(value, colour) for value in values]
    arrays = [np.asarray(value) for value in values]
    odd = next((i for i, array in enumerate(arrays) if array.shape != arrays[0].shape), None)
    if odd is not None:
        raise DataError(
            f"row {odd} of column {column!r} of {name} has shape {arrays[odd].shape} and the first {arrays[0].shape}; "
            "bring all examples to one shape (for text: pad or cut)."
        )
    return as_array(np.stack(arrays), f"the inputs of {name} (column {column!r})")
