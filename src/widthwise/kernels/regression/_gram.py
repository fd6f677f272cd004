"""A symmetric Gram matrix as solvers see it: products, rows, blocks; in memory, on disk or computed on the fly."""

import hashlib
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Integer

from widthwise.core import progress, require_memory
from widthwise.kernels.store import GramStore
from widthwise.kernels.store._source import KernelSource, numpy_type

_SIDE = 1024


@runtime_checkable
class Gram(Protocol):
    """What solvers need of a Gram matrix of n examples, in float32 or float64."""

    n: int
    dtype: np.dtype

    def matmat(self, vectors: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
        """The matrix times vectors, summed in float64."""

    def tiles(self) -> Iterator[tuple[slice, slice, np.ndarray]]:
        """Rows, columns and entries of parts that together are the upper half, and what else they hold."""

    def rows(self, indices: Integer[np.ndarray, "m"]) -> Float[np.ndarray, "m n"]:
        """Rows by number."""

    def block(self, rows: slice, columns: slice) -> Float[np.ndarray, "r c"]:
        """A part of the matrix."""

    def diagonal(self) -> Float[np.ndarray, "n"]:
        """The diagonal."""


class ArrayGram:
    """A matrix in memory, or memory-mapped."""

    def __init__(self, array: Float[np.ndarray, "n n"]) -> None:
        self.array = array
        self.n = len(array)
        self.dtype = array.dtype

    def matmat(self, vectors: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
        """The matrix times vectors, in bands of rows."""
        v, out = np.ascontiguousarray(vectors, self.dtype), np.empty(vectors.shape)
        for start in range(0, self.n, 4 * _SIDE):
            out[start : start + 4 * _SIDE] = self.array[start : start + 4 * _SIDE] @ v
        return out

    def tiles(self) -> Iterator[tuple[slice, slice, np.ndarray]]:
        """The tiles of the upper half."""
        for rows, columns in _upper(self.n, _SIDE):
            yield rows, columns, self.array[rows, columns]

    def rows(self, indices: Integer[np.ndarray, "m"]) -> Float[np.ndarray, "m n"]:
        """Rows by number."""
        return np.array(self.array[indices])

    def block(self, rows: slice, columns: slice) -> Float[np.ndarray, "r c"]:
        """A part, copied."""
        return np.array(self.array[rows, columns])

    def diagonal(self) -> Float[np.ndarray, "n"]:
        """The diagonal, copied."""
        return np.array(self.array.diagonal())


class StoreGram:
    """A matrix in a `GramStore`, streamed tile by tile."""

    def __init__(self, store: GramStore) -> None:
        self.store = store
        self.n = len(store)
        self.dtype = store.dtype

    def matmat(self, vectors: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
        """One pass over the tiles."""
        return self.store.matvec(vectors)

    def tiles(self) -> Iterator[tuple[slice, slice, np.ndarray]]:
        """The tiles of the upper half."""
        return self.store.blocks()

    def rows(self, indices: Integer[np.ndarray, "m"]) -> Float[np.ndarray, "m n"]:
        """Rows by number; computed anew where the store knows its kernel, as half of a row lies in columns of tiles."""
        work = self.store._work
        if work is None:
            return self.store[indices]
        some, spans = work.x1[indices], (slice(i, i + 8 * _SIDE) for i in range(0, self.n, 8 * _SIDE))
        return np.concatenate([work.source(some, work.x1[span])[self.store.name] for span in spans], axis=1)

    def block(self, rows: slice, columns: slice) -> Float[np.ndarray, "r c"]:
        """A part."""
        return self.store[rows, columns]

    def diagonal(self) -> Float[np.ndarray, "n"]:
        """The diagonal."""
        return self.store.diagonal()


class KernelGram:
    """A matrix that is never kept: tiles are computed again for each product."""

    def __init__(self, source: KernelSource, x: Any, *, side: int = _SIDE, show_progress: bool = False) -> None:
        self.source, self.x, self.side = source, x, side
        self.name = source.names[0]
        self.n = len(x)
        self.dtype = numpy_type(source.dtype)
        source.pairs = max(source.pairs, self.n**2)
        self.show_progress = show_progress

    def matmat(self, vectors: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
        """One pass over the upper half, every tile used twice."""
        v, out = np.ascontiguousarray(vectors, self.dtype), np.zeros(vectors.shape)
        for rows, columns, tile in self.tiles():
            out[rows] += tile @ v[columns]
            if rows != columns:
                out[columns] += tile.T @ v[rows]
        return out

    def tiles(self) -> Iterator[tuple[slice, slice, np.ndarray]]:
        """The tiles of the upper half."""
        pairs = _upper(self.n, self.side)
        with progress("kernel tiles", len(pairs), show=self.show_progress) as advance:
            for rows, columns in pairs:
                yield rows, columns, self.block(rows, columns)
                advance(1)

    def rows(self, indices: Integer[np.ndarray, "m"]) -> Float[np.ndarray, "m n"]:
        """Rows by number."""
        some = self.x[indices]
        spans = (slice(i, i + self.side) for i in range(0, self.n, self.side))
        return np.concatenate([self.source(some, self.x[span])[self.name] for span in spans], axis=1)

    def block(self, rows: slice, columns: slice) -> Float[np.ndarray, "r c"]:
        """A part, computed."""
        same = rows == columns
        return self.source(self.x[rows], None if same else self.x[columns])[self.name]

    def diagonal(self) -> Float[np.ndarray, "n"]:
        """The diagonal."""
        return self.source.diagonal(self.x)[self.name]


def _upper(n: int, side: int) -> list[tuple[slice, slice]]:
    """Rows and columns of the tiles on and above the diagonal."""
    spans = [slice(i, min(i + side, n)) for i in range(0, n, side)]
    return [(a, b) for k, a in enumerate(spans) for b in spans[k:]]


def exact_product(gram: Gram, vectors: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
    """The matrix, as its entries are, times vectors in float64: what `matmat` rounds where entries are float32.

    A solution's residual is a small difference of large numbers: in float32 it is lost where the ridge is small.
    """
    if gram.dtype == np.float64:
        return gram.matmat(vectors)
    v, out = np.ascontiguousarray(vectors, np.float64), np.zeros(vectors.shape)
    for rows, columns, tile in gram.tiles():
        wide = tile.astype(np.float64)
        out[rows] += wide @ v[columns]
        if rows != columns:
            out[columns] += wide.T @ v[rows]
    return out


def dense(gram: Gram, dtype: Any) -> np.ndarray:
    """The whole matrix in memory, in a precision, fit to be overwritten.

    Raises:
        ResourceError: it does not fit.
    """
    kind = np.dtype(dtype)
    require_memory(float(gram.n) ** 2 * kind.itemsize, f"a Gram matrix of {gram.n} examples", "use solver='cg'.")
    if isinstance(gram, ArrayGram):
        return np.array(gram.array, dtype=kind, order="F")
    out = np.empty((gram.n, gram.n), kind, order="F")
    if isinstance(gram, KernelGram):
        for rows, columns, tile in gram.tiles():
            out[rows, columns], out[columns, rows] = tile, tile.T
        return out
    for start in range(0, gram.n, _SIDE):
        span = slice(start, min(start + _SIDE, gram.n))
        out[:, span] = gram.block(span, slice(None)).T
    return out


def gram_identity(gram: Gram) -> str:
    """A hash that tells matrices apart: diagonal and three rows."""
    digest = hashlib.blake2b(np.ascontiguousarray(gram.diagonal(), np.float32).tobytes(), digest_size=16)
    picked = np.unique(np.array([0, gram.n // 2, gram.n - 1]))
    digest.update(np.ascontiguousarray(gram.rows(picked), np.float32).tobytes())
    return digest.hexdigest()
