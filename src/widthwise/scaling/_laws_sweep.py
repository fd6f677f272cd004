"""A user's own table of runs: read, checked, grouped into cells of equal params and tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from jaxtyping import Bool, Float, Int

from widthwise.core import DataError

COLUMNS = ("params", "tokens", "lr", "batch", "loss")
ALIASES = {"N": "params", "D": "tokens", "bs": "batch", "seq_len": "sequence_length"}
BatchUnit = Literal["tokens", "sequences"]
MIN_CELLS = 4


@dataclass(frozen=True, eq=False)
class Sweep:
    """Runs in arrays, sorted by cell.

    Attributes:
        params, tokens, lr, batch, loss: one entry per run; batch in tokens; loss is infinite where the run diverged.
        cell: index of the run's cell.
        cells: params and tokens of each cell.
        diverged: runs without a usable loss: they are kept as "at least so bad", never averaged in.
        seed_noise: pooled standard deviation of ln(loss) over seeds; None where no setting was repeated.
    """

    params: Float[np.ndarray, "runs"]
    tokens: Float[np.ndarray, "runs"]
    lr: Float[np.ndarray, "runs"]
    batch: Float[np.ndarray, "runs"]
    loss: Float[np.ndarray, "runs"]
    cell: Int[np.ndarray, "runs"]
    cells: Float[np.ndarray, "cells 2"]
    diverged: Bool[np.ndarray, "runs"]
    seed_noise: float | None

    def __len__(self) -> int:
        return len(self.loss)

    def log_excess(self) -> Float[np.ndarray, "runs"]:
        """ln(loss) over the least loss of the cell; infinite where the run diverged."""
        least = np.array([self.loss[self.cell == c].min() for c in range(len(self.cells))])
        return np.log(self.loss) - np.log(least)[self.cell]


def read_sweep(
    sweep: Any, *, batch_unit: BatchUnit = "tokens", sequence_length: int | None = None, diverged: float = 1.5
) -> Sweep:
    """A table of runs as arrays.

    Args:
        sweep: list of dicts, dict of columns, pandas data frame, Arrow table, or path of a .csv, .tsv or .parquet
            file, with columns params (or N), tokens (or D), lr, batch (or bs), loss; other columns are ignored, except
            sequence_length (or seq_len) where `batch_unit` is ``"sequences"``.
        batch_unit: unit of the column batch.
        sequence_length: tokens per sequence, where batches are in sequences and the table has no such column.
        diverged: a loss above this multiple of the cell's least counts as diverged.

    Raises:
        DataError: a column is missing, has text, or holds what cannot be (negative rates, batches beyond the tokens).
    """
    table = {ALIASES.get(name, name): column for name, column in _columns(sweep).items()}
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise DataError(
            f"the sweep has no column {', '.join(missing)}; give {', '.join(COLUMNS)} (it has {_few(table)})."
        )
    arrays = {name: _numbers(name, table[name]) for name in COLUMNS}
    if len({len(array) for array in arrays.values()}) > 1 or not len(arrays["loss"]):
        raise DataError("the columns of the sweep are empty or of unequal length; give one entry per run in each.")
    if batch_unit == "sequences":
        arrays["batch"] = arrays["batch"] * _lengths(table, sequence_length)
    elif batch_unit != "tokens":
        raise DataError(f"batch_unit={batch_unit!r} is not known; give 'tokens' or 'sequences'.")
    _check(arrays)
    return _grouped(arrays, diverged)


def _columns(sweep: Any) -> dict[str, Any]:
    if isinstance(sweep, (str, Path)):
        sweep = _file(Path(sweep))
    if isinstance(sweep, pa.Table):
        return {name: sweep.column(name).to_pylist() for name in sweep.column_names}
    if isinstance(sweep, Mapping) or (hasattr(sweep, "columns") and hasattr(sweep, "__getitem__")):
        names = sweep.keys() if isinstance(sweep, Mapping) else sweep.columns
        return {str(name): sweep[name] for name in names}
    if isinstance(sweep, Sequence) and all(isinstance(row, Mapping) for row in sweep):
        names = dict.fromkeys(name for row in sweep for name in row)
        return {str(name): [row.get(name) for row in sweep] for name in names}
    raise DataError(
        f"a sweep cannot be read from {type(sweep).__name__}; give a list of dicts, columns, or a file's path."
    )


def _file(path: Path) -> pa.Table:
    readers = {".parquet": pyarrow.parquet.read_table, ".csv": pyarrow.csv.read_csv}
    if path.suffix.lower() == ".tsv":
        readers[".tsv"] = lambda p: pyarrow.csv.read_csv(p, parse_options=pyarrow.csv.ParseOptions(delimiter="\t"))
    if path.suffix.lower() not in readers:
        raise DataError(f"{path} is no table that can be read; give a .csv, .tsv or .parquet file.")
    try:
        return readers[path.suffix.lower()](path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is missing, torn or not a table ({str(error).splitlines()[0]}).") from error


def _numbers(name: str, column: Any) -> Float[np.ndarray, "runs"]:
    values = column if isinstance(column, np.ndarray) else [np.nan if value is None else value for value in column]
    try:
        return np.asarray(values, dtype=float).ravel()
    except (TypeError, ValueError) as error:
        raise DataError(f"column {name} of the sweep holds text or objects; it must hold numbers ({error}).") from error


def _lengths(table: Mapping[str, Any], sequence_length: int | None) -> float | Float[np.ndarray, "runs"]:
    if sequence_length is not None:
        return float(sequence_length)
    if "sequence_length" in table:
        return _numbers("sequence_length", table["sequence_length"])
    raise DataError("batches in sequences need their length; give sequence_length= or a column of that name.")


def _check(arrays: Mapping[str, Float[np.ndarray, "runs"]]) -> None:
    for name in COLUMNS[:-1]:
        bad = np.flatnonzero(~(np.isfinite(arrays[name]) & (arrays[name] > 0)))
        if len(bad):
            raise DataError(f"{name} of run {bad[0]} is {arrays[name][bad[0]]}; it must be a positive number.")
    if arrays["params"].min() < 100:
        raise DataError(f"params={arrays['params'].min():g} is no raw count; give it without millions or billions.")
    beyond = np.flatnonzero(arrays["batch"] > arrays["tokens"])
    if len(beyond):
        raise DataError(
            f"run {beyond[0]} has a batch of {arrays['batch'][beyond[0]]:g} and {arrays['tokens'][beyond[0]]:g} tokens "
            "in all; give both in tokens, or batch_unit='sequences'."
        )
    finite = arrays["loss"][np.isfinite(arrays["loss"])]
    if (finite <= 0).any():
        raise DataError(f"loss={finite.min():g} has no logarithm; give losses above zero.")


def _grouped(arrays: dict[str, Float[np.ndarray, "runs"]], diverged: float) -> Sweep:
    cells, cell = np.unique(np.stack([arrays["params"], arrays["tokens"]], axis=1), axis=0, return_inverse=True)
    order = np.argsort(cell.ravel(), kind="stable")
    sorted_ = {name: array[order] for name, array in arrays.items()}
    cell = cell.ravel()[order].astype(np.int64)
    loss = np.where(np.isfinite(sorted_["loss"]), sorted_["loss"], np.inf)
    least = np.array([loss[cell == c].min() for c in range(len(cells))])
    if np.isinf(least).any():
        lost = cells[np.isinf(least)][0]
        raise DataError(
            f"every run of {lost[0]:g} params and {lost[1]:g} tokens diverged; leave out the cell or lower lr."
        )
    out = loss > diverged * least[cell]
    sorted_["loss"] = np.where(out, np.inf, loss)
    noise = _seed_noise(cell, sorted_)
    return Sweep(**sorted_, cell=cell, cells=cells, diverged=out, seed_noise=noise)


def _seed_noise(cell: Int[np.ndarray, "runs"], arrays: Mapping[str, Float[np.ndarray, "runs"]]) -> float | None:
    settings = np.stack([cell.astype(float), arrays["lr"], arrays["batch"]], axis=1)
    _, which = np.unique(settings, axis=0, return_inverse=True)
    which, logs = which.ravel(), np.log(arrays["loss"])
    kept = np.isfinite(logs)
    count = np.bincount(which[kept], minlength=which.max() + 1)
    means = np.bincount(which[kept], weights=logs[kept], minlength=which.max() + 1) / np.maximum(count, 1)
    free = int(np.maximum(count - 1, 0).sum())
    return None if not free else float((np.square(logs[kept] - means[which[kept]]).sum() / free) ** 0.5)


def check_cells(sweep: Sweep) -> None:
    """A law in params and tokens needs cells that tell the two apart, and one to spare.

    Raises:
        DataError: fewer than four cells, or params and tokens that do not vary independently.
    """
    if len(sweep.cells) < MIN_CELLS:
        raise DataError(
            f"the sweep has {len(sweep.cells)} cells of params and tokens; a law needs at least {MIN_CELLS} "
            "(three coefficients and one to check them), as 2 sizes by 2 budgets."
        )
    logs = np.log(sweep.cells)
    spread = np.linalg.svd(logs - logs.mean(0), compute_uv=False)
    if spread[1] < 0.05 * spread[0]:
        raise DataError(
            "params and tokens of the sweep lie on one line, so that their exponents cannot be told apart; "
            "add cells with more tokens at the same params."
        )


def edge_warnings(sweep: Sweep) -> tuple[str, ...]:
    """Cells whose best run lies at the edge of its own grid."""
    found = []
    for c, (params, tokens) in enumerate(sweep.cells):
        rows = np.flatnonzero((sweep.cell == c) & ~sweep.diverged)
        best = rows[np.argmin(sweep.loss[rows])]
        for name, values in (("learning rate", sweep.lr), ("batch", sweep.batch)):
            grid = values[rows]  # a rate at which everything diverges bounds the grid as an edge would not
            low, high = grid.min(), grid.max()
            bounded = name == "learning rate" and values[sweep.cell == c].max() > high
            if values[best] in ((low,) if bounded else (low, high)):
                side = "lowest" if values[best] == low else "highest"
                found.append(
                    f"{params:.4g} params, {tokens:.4g} tokens: the best run has the {side} {name} of its grid"
                )
    return tuple(found)


def _few(table: Mapping[str, Any]) -> str:
    return ", ".join(list(table)[:8]) or "none"
