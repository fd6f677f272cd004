"""Reading a matrix that is kept in tiles: entries, rows, products, all without loading it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from widthwise.core import DataError, require_memory
from widthwise.kernels.store._format import Chunks
from widthwise.kernels.store._layout import Layout, Tile
from widthwise.kernels.store._ledger import Ledger, checksum


class StoredMatrix:
    """A matrix in tiles on disk whose finished tiles are in a ledger with their checksums."""

    def __init__(self, path: Path, name: str, layout: Layout, chunks: Chunks, ledger: Ledger) -> None:
        self.path = path
        self.name = name
        self.layout = layout
        self.ledger = ledger
        self._chunks = chunks
        self._checked: set[Tile] = set()

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.layout.rows, self.layout.columns

    @property
    def dtype(self) -> np.dtype:
        """Of what is kept."""
        return self._chunks.dtype

    @property
    def ndim(self) -> int:
        """2."""
        return 2

    def __len__(self) -> int:
        return self.layout.rows

    @property
    def finished(self) -> int:
        """Number of tiles in the ledger, of `layout.count`."""
        return len(self.ledger.done)

    def _sound(self, tile: Tile) -> bool:
        values, sums = self._chunks.read(tile), self.ledger.done.get(tile)
        return values is not None and sums is not None and checksum(values) == sums.get(self.name)

    def tile(self, i: int, j: int) -> np.ndarray:
        """A tile that is kept, memory-mapped; its checksum is compared the first time.

        Raises:
            DataError: it is not computed yet, or damaged.
        """
        if (i, j) not in self._checked:
            if (i, j) not in self.ledger.done:
                raise DataError(
                    f"{self.path} has {self.finished} of {self.layout.count} tiles; run the command that made it again "
                    "(or fill()) to finish it."
                )
            if not self._sound((i, j)):
                raise DataError(
                    f"tile ({i}, {j}) of {self.path} does not match its checksum; run the command that made it again "
                    "(or fill()) to compute it anew."
                )
            self._checked.add((i, j))
        values = self._chunks.read((i, j))
        if values is None:
            raise DataError(f"tile ({i}, {j}) of {self.path} has vanished; run the command that made it again.")
        return values

    def blocks(self) -> Iterator[tuple[slice, slice, np.ndarray]]:
        """Every tile that is kept with its rows and columns (of a symmetric store: the upper half)."""
        for i, j in self.layout.tiles():
            yield *self.layout.span(i, j), self.tile(i, j)

    def __getitem__(self, key: Any) -> Any:
        """Rows and columns by whole number, slice or list of whole numbers (the two lists span a grid)."""
        rows, columns = key if isinstance(key, tuple) else (key, slice(None))
        r, c = _numbers(rows, self.layout.rows, "row"), _numbers(columns, self.layout.columns, "column")
        found = self._gather(np.atleast_1d(r), np.atleast_1d(c))
        return found[(0 if np.ndim(r) == 0 else slice(None), 0 if np.ndim(c) == 0 else slice(None))]

    def _gather(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        side, out = self.layout.tile, np.empty((len(rows), len(columns)), self.dtype)
        down, across = rows // side, columns // side
        for i in np.unique(down):
            at = np.flatnonzero(down == i)
            for j in np.unique(across):
                to = np.flatnonzero(across == j)
                flip = self.layout.symmetric and i > j
                block = self.tile(int(j), int(i)).T if flip else self.tile(int(i), int(j))
                out[np.ix_(at, to)] = block[np.ix_(rows[at] - i * side, columns[to] - j * side)]
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The whole matrix in memory.

        Raises:
            ResourceError: it does not fit.
        """
        if copy is False:
            raise ValueError("a Gram store is on disk and cannot become an array without a copy")
        needed = self.layout.rows * self.layout.columns * self.dtype.itemsize
        require_memory(needed, f"the whole matrix of {self.path}", "read parts of it, or use it as it is.")
        out = np.empty(self.shape, self.dtype)
        for rows, columns, block in self.blocks():
            out[rows, columns] = block
            if self.layout.symmetric:
                out[columns, rows] = block.T
        return out if dtype is None else out.astype(dtype, copy=False)

    def matvec(self, vectors: np.ndarray) -> np.ndarray:
        """The matrix times ``[columns]`` or ``[columns, k]``, float64; every tile is read once.

        Tiles are multiplied in their own precision and summed in float64.
        """
        v = np.asarray(vectors)
        if v.ndim not in (1, 2) or len(v) != self.layout.columns:
            raise DataError(f"a matrix with {self.layout.columns} columns cannot multiply shape {list(v.shape)}.")
        v = np.ascontiguousarray(v, dtype=self.dtype)
        out = np.zeros((self.layout.rows, *v.shape[1:]))
        for rows, columns, block in self.blocks():
            out[rows] += block @ v[columns]
            if self.layout.symmetric and rows != columns:
                out[columns] += block.T @ v[rows]
        return out

    __matmul__ = matvec

    def diagonal(self) -> np.ndarray:
        """The entries on the diagonal, ``[min(rows, columns)]``."""
        count = min(self.layout.down, self.layout.across)
        return np.concatenate([np.array(self.tile(i, i).diagonal()) for i in range(count)])


def _numbers(key: Any, size: int, what: str) -> np.ndarray:
    """Indices that a key picks: a whole number stays without an axis."""
    if isinstance(key, slice):
        return np.arange(size)[key]
    index = np.asarray(key)
    if index.dtype == bool and index.shape == (size,):
        return np.flatnonzero(index)
    if index.dtype.kind not in "iu" or index.ndim > 1:
        raise IndexError(f"{what} {key!r} is no index; give a whole number, a slice or a list of whole numbers.")
    if index.size and (index.min() < -size or index.max() >= size):
        raise IndexError(f"{what} {key!r} is outside of {size} {what}s.")
    return np.where(index < 0, index + size, index)
