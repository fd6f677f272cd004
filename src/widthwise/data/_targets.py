"""Targets: labels become class indices, numbers become rows of regression targets."""

import numpy as np

from widthwise.core import DataError
from widthwise.data._raw import Raw

MOST_CLASSES = 100
"""Whole-number targets with more distinct values than this are regression unless the task is given."""

Encoded = tuple[np.ndarray, np.ndarray | None, tuple[str, ...] | None]


def encode_targets(raw: Raw, task: str | None) -> Encoded:
    """Targets of both parts, and the class names (None for regression).

    Whole numbers with at most 100 distinct values, each twice on average, booleans, text and one-hot rows of
    whole numbers are classes; floats are regression. `task` overrides this.

    Raises:
        DataError: wrong length, not finite, one class only, constant, or not fit for `task`.
    """
    if task not in (None, "classification", "regression"):
        raise DataError(f"task {task!r} is not known; give 'classification' or 'regression', or leave it out.")
    train = _checked(raw.targets, len(raw.inputs), f"data set {raw.name}")
    test = None if raw.test is None else _checked(raw.test[1], len(raw.test[0]), f"the test part of {raw.name}")
    if task == "classification" or (task is None and (raw.classes is not None or _look_like_classes(train))):
        return _classes(raw, train, test)
    return _regression(raw, train), None if test is None else _regression(raw, test, constant_allowed=True), None


def _checked(targets: np.ndarray, samples: int, where: str) -> np.ndarray:
    if targets.ndim == 0 or len(targets) != samples:
        count = len(targets) if targets.ndim else 1
        raise DataError(f"{where} has {samples} inputs and {count} targets; give one target for each input.")
    if targets.ndim == 2 and targets.shape[1] == 1:
        targets = targets[:, 0]
    if targets.ndim > 2 or targets.size == 0:
        raise DataError(f"{where} has targets of shape {targets.shape}; give [samples] or [samples, outputs].")
    if targets.dtype.kind == "f":
        with np.errstate(over="ignore"):
            bad = np.argwhere(~np.isfinite(targets.astype(np.float32)))
        if len(bad):
            raise DataError(
                f"{where} has {len(bad)} NaN or infinite targets, the first at index {_place(bad[0])}; "
                "remove or fill those examples."
            )
    return targets


def _place(index: np.ndarray) -> str:
    return str(int(index[0])) if len(index) == 1 else str(tuple(int(i) for i in index))


def _is_one_hot(targets: np.ndarray) -> bool:
    whole = targets.dtype.kind in "biu" and targets.ndim == 2
    return whole and bool(((targets == 0) | (targets == 1)).all() and (targets.sum(1) == 1).all())


def _look_like_classes(targets: np.ndarray) -> bool:
    if targets.ndim == 2:
        return _is_one_hot(targets)
    if targets.dtype.kind in "bU":
        return True
    distinct = len(np.unique(targets)) if targets.dtype.kind in "iu" else len(targets)
    return targets.dtype.kind in "iu" and distinct <= MOST_CLASSES and 2 * distinct <= len(targets)


def _labels(targets: np.ndarray, where: str) -> np.ndarray:
    if _is_one_hot(targets):
        return targets.argmax(1)
    if targets.ndim == 2:
        raise DataError(
            f"{where} has targets of shape {targets.shape}, which are not one-hot whole numbers; "
            "give one label for each example, or task='regression'."
        )
    if targets.dtype.kind != "f":
        return targets
    fractional = np.flatnonzero(targets != np.round(targets))
    if len(fractional):
        first = int(fractional[0])
        raise DataError(
            f"{where} has target {float(targets[first])!r} at index {first}, which is no class label; "
            "give whole numbers or text, or task='regression'."
        )
    return targets.astype(np.int64)


def _classes(raw: Raw, train: np.ndarray, test: np.ndarray | None) -> Encoded:
    where = f"data set {raw.name}"
    train = _labels(train, where)
    test = None if test is None else _labels(test, f"the test part of {raw.name}")
    found = np.unique(train)
    if len(found) < 2:
        raise DataError(
            f"{where} has one class only ({str(found[0])!r}, {len(train)} examples); "
            "give at least two classes, or task='regression' with numbers that differ."
        )
    if raw.classes is not None:
        for part in (train, test):
            _check_range(part, raw.classes, where)
        return train.astype(np.int64), None if test is None else test.astype(np.int64), raw.classes
    if test is not None and len(strange := np.setdiff1d(test, found)):
        raise DataError(
            f"the test part of {raw.name} has label {str(strange[0])!r}, which no training example has; "
            "remove those examples or add some to the training part."
        )
    names = tuple(str(label) for label in found)
    encoded_test = None if test is None else np.searchsorted(found, test).astype(np.int64)
    return np.searchsorted(found, train).astype(np.int64), encoded_test, names


def _check_range(labels: np.ndarray | None, classes: tuple[str, ...], where: str) -> None:
    if labels is None:
        return
    outside = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if len(outside):
        first = int(outside[0])
        raise DataError(
            f"{where} has label {int(labels[first])} at index {first} but {len(classes)} classes; "
            f"labels run from 0 to {len(classes) - 1}, so mend the label or the list of classes."
        )


def _regression(raw: Raw, targets: np.ndarray, constant_allowed: bool = False) -> np.ndarray:
    if targets.dtype.kind == "U":
        raise DataError(
            f"the targets of {raw.name} are text (the first is {str(targets.flat[0])!r}), not numbers to regress on; "
            "give numbers, or task='classification'."
        )
    if not constant_allowed and (targets == targets[:1]).all():
        raise DataError(
            f"all {len(targets)} targets of {raw.name} equal {targets[0].tolist()}, so there is nothing to learn; "
            "give targets that differ."
        )
    rows = targets.astype(np.float32)
    return rows[:, None] if rows.ndim == 1 else rows
