"""The folder on disk: a Zarr group with one array per kernel, and a ledger beside them.

Chunks are tiles and are not compressed, so that their files can be memory-mapped; Zarr writes each under a temporary
name and renames it. Of a symmetric matrix the chunks below the diagonal are absent (they read as NaN in plain Zarr).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from widthwise.core import DataError, OutputError, check_writable
from widthwise.kernels.store._layout import Layout, Tile

FORMAT = 1
LEDGER = "ledger.jsonl"
_KEY = "widthwise"


def make(path: Path, names: Sequence[str], layout: Layout, dtype: str, header: dict[str, Any]) -> None:
    """Make the group and its arrays.

    Raises:
        OutputError: the folder holds something else, or cannot be written.
    """
    if path.exists() and (not path.is_dir() or any(item.name != "test" for item in path.iterdir())):
        raise OutputError(f"{path} exists and is no Gram store; give another path.")
    check_writable(path)
    try:
        group = zarr.create_group(path, attributes={_KEY: header | {"layout": layout.to_dict()}})
        for name in names:
            group.create_array(
                name,
                shape=(layout.rows, layout.columns),
                chunks=(layout.tile, layout.tile),
                dtype=dtype,
                compressors=None,
                fill_value=float("nan"),
                dimension_names=("row", "column"),
            )
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; choose another folder.") from error


def is_store(path: Path) -> bool:
    """Whether the folder is a Gram store."""
    return (path / "zarr.json").is_file() and _header_or_none(path) is not None


def read_header(path: Path) -> tuple[dict[str, Any], Layout]:
    """What `make` wrote.

    Raises:
        DataError: there is no Gram store, or one of a later format.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist; give the path of a Gram store.")
    header = _header_or_none(path)
    if header is None:
        raise DataError(f"{path} is no Gram store of widthwise; give one that `widthwise kernel` wrote.")
    if header.get("format") != FORMAT:
        raise DataError(f"{path} has format {header.get('format')} and this version reads {FORMAT}; compute it anew.")
    return header, Layout(**header["layout"])


def _header_or_none(path: Path) -> dict[str, Any] | None:
    try:
        return dict(zarr.open_group(path, mode="r").attrs)[_KEY]  # type: ignore[return-value]
    except (OSError, ValueError, KeyError, TypeError):
        return None


class Chunks:
    """The tiles of one kernel on disk."""

    def __init__(self, path: Path, name: str, layout: Layout) -> None:
        self.folder = path / name
        self.layout = layout
        try:
            self.array: Any = zarr.open_array(self.folder, mode="r+")
        except (OSError, ValueError) as error:
            raise DataError(f"{path} has no kernel {name!r} that can be read; compute it anew.") from error
        self.dtype = np.dtype(self.array.dtype)
        if self.array.shape != (layout.rows, layout.columns) or self.array.chunks != (layout.tile, layout.tile):
            raise DataError(f"kernel {name!r} of {path} has another shape than its header says; compute it anew.")

    def write(self, tile: Tile, values: np.ndarray) -> None:
        """Write a tile in one step."""
        self.array[self.layout.span(*tile)] = values

    def read(self, tile: Tile) -> np.ndarray | None:
        """A tile, memory-mapped read-only; None where its file is absent or of the wrong length."""
        file = self.folder / "c" / str(tile[0]) / str(tile[1])
        side = self.layout.tile
        try:
            if file.stat().st_size != side * side * self.dtype.itemsize:
                return None
            whole = np.memmap(file, dtype=self.dtype.newbyteorder("<"), mode="r", shape=(side, side))
        except OSError:
            return None
        rows, columns = self.layout.span(*tile)
        return whole[: rows.stop - rows.start, : columns.stop - columns.start]

    def sweep(self) -> None:
        """Remove temporary files of a process that was killed."""
        for leftover in self.folder.rglob("*.partial"):
            leftover.unlink(missing_ok=True)
