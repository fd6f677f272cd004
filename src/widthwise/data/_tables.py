"""Arrays and tables in files: .npz, .csv, .tsv, .parquet."""

import csv
import difflib
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from widthwise.core import DataError
from widthwise.data._raw import Raw, as_array

INPUT_KEYS = ("x", "inputs", "images", "data", "x_train", "train_images")
TARGET_KEYS = ("y", "targets", "labels", "target", "label", "y_train", "train_labels")
TEST_INPUT_KEYS = ("x_test", "test_images", "inputs_test", "test_inputs")
TEST_TARGET_KEYS = ("y_test", "test_labels", "targets_test", "test_targets")
TARGET_COLUMNS = ("target", "label", "y", "class")
_SHOWN = 20


def read_npz(path: Path, name: str, target: str | None = None) -> Raw:
    """Inputs under x, inputs, images or data; targets under y, targets, labels or target; optional x_test, y_test.

    Raises:
        DataError: the file is torn, holds objects (pickle), or lacks a key.
    """
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is torn or not an .npz file; write it again with numpy.savez.")
    try:
        with np.load(path, allow_pickle=False) as stored:
            keys = {key.lower(): key for key in stored.files}
            wanted = (INPUT_KEYS, (target.lower(),) if target else TARGET_KEYS, TEST_INPUT_KEYS, TEST_TARGET_KEYS)
            found = [next((keys[key] for key in names if key in keys), None) for names in wanted]
            _require_keys(path, found, wanted, stored.files)
            arrays = [None if key is None else stored[key] for key in found]
    except (OSError, EOFError, ValueError, KeyError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        if "allow_pickle" in str(error):
            raise DataError(
                f"{path} holds Python objects (pickle), which is refused because reading them can run code; "
                "save plain numeric arrays."
            ) from error
        raise DataError(f"{path} is torn ({type(error).__name__}); write it again with numpy.savez.") from error
    inputs, targets = as_array(arrays[0], f"the inputs in {path}"), as_array(arrays[1], f"the targets in {path}")
    test = None
    if arrays[2] is not None and arrays[3] is not None:
        test = as_array(arrays[2], f"the test inputs in {path}"), as_array(arrays[3], f"the test targets in {path}")
    kind = "image" if "images" in str(found[0]).lower() and inputs.ndim > 2 else None
    return Raw(name, inputs, targets, f"file {path}", test=test, kind=kind)


def _require_keys(path: Path, found: list[str | None], wanted: tuple, stored: list[str]) -> None:
    for key, names, what in zip(found[:2], wanted[:2], ("inputs", "targets"), strict=True):
        if key is None:
            raise DataError(
                f"{path} has no {what} under {_listed(names[:6])}; its arrays are {_listed(stored) or 'none'}, "
                "so save it again under one of those names."
            )
    if (found[2] is None) != (found[3] is None):
        lone = found[2] or found[3]
        raise DataError(f"{path} has {lone} without its partner; save both x_test and y_test, or neither.")


def read_table(path: Path, name: str, target: str | None = None) -> Raw:
    """Numeric columns as features and one column as target (``target``, ``label``, ``y``, ``class``, or the last).

    Raises:
        DataError: the file is torn, has no such column, has text among its features, or missing targets.
    """
    separator = {".csv": ",", ".tsv": "\t"}.get(path.suffix.lower())
    note = ""
    try:
        if separator is None:
            table = pyarrow.parquet.read_table(path)
        else:
            headed = _has_header(path, separator)
            note = "" if headed else " (without a header line)"
            table = pyarrow.csv.read_csv(
                path,
                read_options=pyarrow.csv.ReadOptions(autogenerate_column_names=not headed),
                parse_options=pyarrow.csv.ParseOptions(delimiter=separator),
            )
    except (pa.ArrowException, OSError, UnicodeDecodeError, csv.Error) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} is torn, empty or not a readable table ({first_line}); write it again.") from error
    return from_arrow(table, name, target, f"file {path}{note}")


def _has_header(path: Path, separator: str) -> bool:
    """A first line of numbers alone is data, not a header."""
    with path.open(newline="", encoding="utf-8-sig") as lines:
        first = next(csv.reader(lines, delimiter=separator), [])
    return not first or not all(_is_number(cell) for cell in first)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def from_arrow(table: pa.Table, name: str, target: str | None, source: str) -> Raw:
    """An Arrow table as raw data.

    Raises:
        DataError: see `read_table`.
    """
    kept = [i for i, column in enumerate(table.column_names) if not column.startswith("__index_level_")]
    table = table.select(kept)
    place = target_column(table.column_names, target, name)
    target_name = table.column_names[place]
    features = table.remove_column(place)
    if table.num_rows == 0:
        raise DataError(f"table {name} is empty (no rows below its header); give at least two examples.")
    if features.num_columns == 0:
        raise DataError(
            f"table {name} has the column {target_name!r} alone; give at least one feature column beside it."
        )
    inputs = np.empty((features.num_rows, features.num_columns))
    for i, column in enumerate(features.columns):
        inputs[:, i] = _numbers(column, features.column_names[i], name)
    targets = _target_values(table.column(place), target_name, name)
    columns = tuple(features.column_names)
    return Raw(name, inputs, targets, f"{source}, target column {target_name!r}", kind="table", columns=columns)


def target_column(columns: list[str], target: str | None, name: str) -> int:
    """Which column holds the target.

    Raises:
        DataError: `target` is not among the columns.
    """
    if target is not None:
        if target in columns:
            return columns.index(target)
        near = difflib.get_close_matches(target, columns, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise DataError(f"{name} has no column {target!r}{hint}; its columns are {_listed(columns)}.")
    lowered = [column.lower() for column in columns]
    return next((lowered.index(word) for word in TARGET_COLUMNS if word in lowered), len(columns) - 1)


def _numbers(column: pa.ChunkedArray, column_name: str, name: str) -> np.ndarray:
    kind = column.type
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan)
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        if pa.types.is_decimal(kind):
            return column.cast(pa.float64()).to_numpy()
        raise DataError(
            f"feature column {column_name!r} of {name} holds {kind} values, not numbers "
            f"(the first is {column[0].as_py()!r}); encode it as numbers, drop it, or name it as the target."
        )
    return column.cast(pa.float64(), safe=False).to_numpy()


def _target_values(column: pa.ChunkedArray, column_name: str, name: str) -> np.ndarray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    values = column.to_pylist() if text or column.null_count else None
    missing = [i for i, value in enumerate(values) if value is None or value == ""] if values is not None else []
    if missing:
        raise DataError(
            f"target column {column_name!r} of {name} has {len(missing)} missing values, the first in row {missing[0]} "
            "(counted from 0); remove or fill those rows."
        )
    if text:
        return np.array(values, dtype=str)
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    return as_array(column.to_numpy(), f"the targets of {name} (column {column_name!r})")


def _listed(names: "list[str] | tuple[str, ...]") -> str:
    shown = ", ".join(str(name) for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
