"""From raw arrays to a `DataSet`: check, encode, draw, standardise, in pieces that fit in memory."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from widthwise.core import DataError, generator, require_memory
from widthwise.data._raw import Raw, canonical
from widthwise.data._targets import encode_targets
from widthwise.data._types import DataSet

_CHUNK_ELEMENTS = 1 << 21


def draw(available: int, samples: int | None, seed: int, name: str) -> Int64[np.ndarray, "samples"] | None:
    """Indices of a random sample without repetition; None: all of them, in their order.

    Smaller samples are the beginning of larger ones at the same seed.

    Raises:
        DataError: fewer examples are there than asked for, or fewer than one is asked for.
    """
    if samples is None:
        return None
    if samples < 1:
        raise DataError(f"{samples} samples of {name} were asked for; ask for at least 1.")
    if samples > available:
        raise DataError(
            f"{samples} samples of {name} were asked for and it has {available}; ask for at most {available}"
            + (f", or generate more with '{name.split(':')[0]}:{samples}'." if name.startswith("mnist1d") else ".")
        )
    return torch.randperm(available, generator=generator(seed, "samples", name))[:samples].numpy()


def prepare(
    raw: Raw, *, task: str | None = None, samples: int | None = None, seed: int = 0, standardise: str | None = "auto"
) -> DataSet:
    """Check `raw` and turn it into a `DataSet`.

    Standardisation takes its constants from the whole training part, also when `samples` are drawn from it, so
    that samples of every size share one scale.

    Raises:
        DataError: the data cannot be used as they are.
        ResourceError: they would not fit in memory.
    """
    if standardise not in ("auto", "global", "feature", None):
        raise DataError(f"standardise={standardise!r} is not known; give 'global', 'feature', None or 'auto'.")
    raw = canonical(raw)
    targets, test_targets, classes = encode_targets(raw, task)
    chosen = draw(len(raw.inputs), samples, seed, raw.name)
    picked = targets if chosen is None else targets[chosen]
    if classes is not None and samples is not None and len(np.unique(picked)) < 2:
        raise DataError(f"the {samples} samples drawn from {raw.name} are all of one class; ask for more samples.")
    _check_finite(raw, raw.inputs, f"data set {raw.name}")
    if raw.test is not None:
        _check_finite(raw, raw.test[0], f"the test part of {raw.name}")
    note = f"; {len(picked)} of {len(targets)} drawn with seed {seed}" if chosen is not None else ""
    if raw.kind == "tokens":
        return _token_set(raw, chosen, picked, test_targets, classes, note)
    mean, std, words = _constants(raw, raw.standardise if standardise == "auto" else standardise)
    source = raw.source + words + note
    inputs = _transformed(raw.inputs, chosen, raw.divisor, mean, std, raw.name)
    test = None
    if raw.test is not None and test_targets is not None:
        held_out = _transformed(raw.test[0], None, raw.divisor, mean, std, raw.name)
        test = _data_set(f"{raw.name} (test)", held_out, test_targets, classes, raw.source + words, None)
    return _data_set(raw.name, inputs, picked, classes, source, test, torch.as_tensor(mean), torch.as_tensor(std))


def _data_set(
    name: str,
    inputs: np.ndarray,
    targets: np.ndarray,
    classes: tuple[str, ...] | None,
    source: str,
    test: DataSet | None,
    mean: Tensor | None = None,
    std: Tensor | None = None,
) -> DataSet:
    return DataSet(
        name, torch.from_numpy(inputs), torch.from_numpy(targets), classes, source, test, input_mean=mean, input_std=std
    )


def _token_set(
    raw: Raw,
    chosen: np.ndarray | None,
    targets: np.ndarray,
    test_targets: np.ndarray | None,
    classes: tuple[str, ...] | None,
    note: str,
) -> DataSet:
    parts = [raw.inputs] + ([] if raw.test is None else [raw.test[0]])
    negative = np.argwhere(raw.inputs < 0)
    if len(negative):
        raise DataError(
            f"{raw.name} has token {int(raw.inputs[tuple(negative[0])])} at index {tuple(map(int, negative[0]))}; "
            "token numbers start at 0 (for a table of whole numbers, convert the inputs to float)."
        )
    if all((part == parts[0].flat[0]).all() for part in parts):
        raise DataError(f"all inputs of {raw.name} equal {int(parts[0].flat[0])}; give inputs that differ.")
    tokens = [np.array(part, dtype=np.int64) for part in parts]
    test = None
    if test_targets is not None:
        test = _data_set(f"{raw.name} (test)", tokens[1], test_targets, classes, raw.source, None)
    inputs = tokens[0] if chosen is None else tokens[0][chosen]
    return _data_set(raw.name, inputs, targets, classes, raw.source + note, test)


def _chunks(array: np.ndarray, rows: np.ndarray | None = None) -> Iterator[tuple[slice, np.ndarray]]:
    """Pieces of at most about two million numbers, with their place."""
    total = len(array) if rows is None else len(rows)
    step = max(1, _CHUNK_ELEMENTS // max(1, int(np.prod(array.shape[1:]))))
    for start in range(0, total, step):
        place = slice(start, min(start + step, total))
        yield place, array[place] if rows is None else array[rows[place]]


def _check_finite(raw: Raw, inputs: np.ndarray, where: str) -> None:
    if inputs.dtype.kind != "f":
        return
    count, first = 0, None
    for place, chunk in _chunks(inputs):
        with np.errstate(over="ignore"):
            finite = np.isfinite(chunk.astype(np.float32))
        if finite.all():
            continue
        count += int((~finite).sum())
        if first is None:
            index = np.argwhere(~finite)[0]
            first = (place.start + int(index[0]), *(int(i) for i in index[1:]))
    if first is None:
        return
    at = f"index {first}"
    if raw.columns is not None and len(first) == 2:
        at = f"row {first[0]} (counted from 0) of column {raw.columns[first[1]]!r}"
    raise DataError(
        f"{where} has {count} NaN or infinite inputs (missing cells count as NaN), the first at {at}; "
        "remove or fill those examples."
    )


def _constants(raw: Raw, how: str | None) -> tuple[np.ndarray, np.ndarray, str]:
    """Mean and standard deviation in the scaled units, and the words that record them."""
    inputs, count = raw.inputs, len(raw.inputs)
    low, high = inputs.min(0), inputs.max(0)
    if low.min() == high.max():
        raise DataError(
            f"all inputs of {raw.name} equal {float(low.min()):g} (zero variance), so there is nothing to learn from; "
            "give inputs that differ."
        )
    scaled = f"; divided by {raw.divisor:g}" if raw.divisor != 1.0 else ""
    if how == "auto":
        how = "feature" if raw.kind == "table" else "global"
    if how is None:
        return np.zeros(()), np.ones(()), scaled + "; not standardised"
    mean = sum(chunk.sum(0, dtype=np.float64) for _, chunk in _chunks(inputs)) / count
    mean = mean.mean() if how == "global" else mean
    square = sum(((chunk - mean) ** 2).sum(0) for _, chunk in _chunks(inputs)) / count
    if how == "global":
        mean, std = np.asarray(mean / raw.divisor), np.sqrt(square.mean()) / raw.divisor
        words = (
            f"; standardised by mean {float(mean):.6g} and standard deviation {std:.6g} of {count} training examples"
        )
        return mean, np.asarray(std), scaled + words
    constant = low == high
    std = np.where(constant, 1.0, np.sqrt(square) / raw.divisor)
    mean = np.where(constant, low, mean) / raw.divisor
    words = f"; each feature standardised by its mean and standard deviation over {count} training examples"
    if constant.any():
        words += f" ({int(constant.sum())} constant features set to zero)"
    return mean, std, scaled + words


def _transformed(
    inputs: np.ndarray, chosen: np.ndarray | None, divisor: float, mean: np.ndarray, std: np.ndarray, name: str
) -> np.ndarray:
    rows = len(inputs) if chosen is None else len(chosen)
    shape = (rows, *inputs.shape[1:])
    require_memory(4.0 * float(np.prod(shape)), f"data set {name}", "ask for fewer samples.")
    result = np.empty(shape, dtype=np.float32)
    for place, chunk in _chunks(inputs, chosen):
        result[place] = (chunk / divisor - mean) / std
    return result
