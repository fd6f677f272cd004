"""One function for every source of data."""

import difflib
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from widthwise.core import DataError
from widthwise.data._examples import from_dataset
from widthwise.data._folders import read_folder
from widthwise.data._hugging_face import from_hugging_face, is_hugging_face, read_hugging_face
from widthwise.data._named import NAMES, read_named, unknown_name
from widthwise.data._prepare import draw, prepare
from widthwise.data._raw import Raw, as_array
from widthwise.data._tables import read_npz, read_table
from widthwise.data._types import DataSet

SUFFIXES = (".npz", ".csv", ".tsv", ".parquet")


def load(
    source: Any,
    *,
    target: str | None = None,
    samples: int | None = None,
    seed: int = 0,
    task: str | None = None,
    standardise: str | None = "auto",
) -> DataSet:
    """Load data from a name, a file, a folder, arrays or a PyTorch data set.

    Args:
        source: one of `NAMES` (``"digits"``, ``"mnist1d:20000"``, ``"teacher:noise=0.1"``), a path to a ``.npz``,
            ``.csv``, ``.tsv`` or ``.parquet`` file or to a folder (one subfolder of images per class, IDX files, or
            CIFAR-10's binary files), ``"hf:name"`` or ``"hf:name:config"``, a pair ``(inputs, targets)`` of arrays or
            tensors, a map-style `torch.utils.data.Dataset`, or a `DataSet`.
        target: column (or key) of the target in a table; by default target, label, y, class, or the last column.
        samples: how many training examples to draw; None: all. The held-out part stays whole.
        seed: of the draw, and of generated data.
        task: "classification" or "regression"; None: whole numbers with at most 100 distinct values, booleans and
            text are classes, floats are regression.
        standardise: "global" (one mean and one standard deviation), "feature" (one of each per feature), None, or
            "auto": per feature for tables, global for images and sequences, none for generated Gaussian inputs and
            for a `DataSet`, which stays as it is. The constants are those of the whole training part; the held-out
            part gets the same ones.

    Returns:
        Images as ``[samples, channels, height, width]``, sequences as ``[samples, channels, length]``, tables as
        ``[samples, features]``, all float32; token sequences (inputs of two axes and whole numbers) as int64.
        Images in NumPy arrays may have their channels last; tensors are taken to be in PyTorch's order.

    Raises:
        DataError: the source is missing, torn, empty, not finite, of one class, or otherwise unusable.
        ResourceError: it would not fit in memory.

    >>> data = load("iris", samples=100)
    >>> data.inputs.shape, data.classes
    (torch.Size([100, 4]), ('setosa', 'versicolor', 'virginica'))
    """
    if isinstance(source, DataSet):
        return _from_data_set(source, samples, seed, task, standardise)
    drawn = None
    if isinstance(source, tuple | list):
        raw = _from_pair(source)
    elif isinstance(source, TensorDataset):
        raw = replace(_from_pair(source.tensors), name="TensorDataset")
    elif is_hugging_face(source):
        raw = from_hugging_face(source, name="hugging-face", target=target)
    elif isinstance(source, Dataset) and not isinstance(source, IterableDataset):
        name = type(source).__name__
        drawn = draw(_length(source), samples, seed, name)
        raw = from_dataset(source, drawn)
    elif isinstance(source, str | Path):
        raw = _from_text(source, target, seed)
    else:
        raise DataError(
            f"a {type(source).__name__} is no source of data; give a name, a path, a pair (inputs, targets), "
            "or a map-style torch.utils.data.Dataset."
        )
    return prepare(raw, task=task, samples=None if drawn is not None else samples, seed=seed, standardise=standardise)


def _length(dataset: Any) -> int:
    try:
        return len(dataset)
    except TypeError:
        raise DataError(f"{type(dataset).__name__} has no length; give a map-style data set with __len__.") from None


def _from_pair(source: Any) -> Raw:
    if len(source) != 2:
        raise DataError(f"{len(source)} arrays were given where a pair (inputs, targets) is needed; give two.")
    inputs, targets = as_array(source[0], "the inputs"), as_array(source[1], "the targets")
    in_order = isinstance(source[0], torch.Tensor)
    return Raw("arrays", inputs, targets, "arrays in memory", channels_first=in_order)


def _from_data_set(data: DataSet, samples: int | None, seed: int, task: str | None, standardise: str | None) -> DataSet:
    """The same data, checked; drawn from or standardised only on request."""
    if task is not None and (task == "classification") != data.is_classification:
        raise DataError(
            f"data set {data.name} is for {'classification' if data.is_classification else 'regression'} and "
            f"task={task!r} was asked for; leave task out or load it anew."
        )
    inputs, targets = as_array(data.inputs, "the inputs"), as_array(data.targets, "the targets")
    test = None
    if data.test is not None:
        test = as_array(data.test.inputs, "the test inputs"), as_array(data.test.targets, "the test targets")
    kind = "tokens" if not data.inputs.is_floating_point() else ("table" if data.inputs.ndim == 2 else "sequence")
    raw = Raw(data.name, inputs, targets, data.source, data.classes, test, kind, standardise=None)
    checked = prepare(raw, task=task, samples=None, standardise=standardise)
    if standardise in ("auto", None):
        checked = data
    chosen = draw(len(data), samples, seed, data.name)
    if chosen is None:
        return checked
    part = checked.subset(torch.from_numpy(chosen))
    return replace(part, test=checked.test, source=f"{checked.source}; {samples} of {len(data)} drawn with seed {seed}")


def _from_text(source: str | Path, target: str | None, seed: int) -> Raw:
    text = str(source)
    if isinstance(source, str):
        if text.startswith("hf:"):
            return read_hugging_face(text, target)
        if text.partition(":")[0] in NAMES:
            return read_named(text, seed)
    path = Path(text).expanduser()
    if path.is_dir():
        return read_folder(path, text)
    if not path.is_file():
        if isinstance(source, str) and not path.suffix and "/" not in text and "\\" not in text:
            raise unknown_name(text)
        raise _missing(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(
            f"{path} ends in {suffix or 'nothing'!r}, which no reader knows; give {', '.join(SUFFIXES)} or a folder."
        )
    return read_npz(path, text, target) if suffix == ".npz" else read_table(path, text, target)


def _missing(path: Path) -> DataError:
    folder = path.parent
    if not folder.is_dir():
        return DataError(f"{path} does not exist, nor does its folder {folder}; give another path.")
    near = difflib.get_close_matches(path.name, [item.name for item in folder.iterdir()], n=3)
    hint = f" (did you mean {' or '.join(near)}?)" if near else ""
    return DataError(f"{path} does not exist in {folder.resolve()}{hint}; give another path.")
