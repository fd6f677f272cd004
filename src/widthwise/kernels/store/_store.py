"""Gram matrices on disk, computed tile by tile and read without loading them."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from widthwise.core import DataError, OutputError
from widthwise.kernels._limit import Parametrization
from widthwise.kernels.store import _format
from widthwise.kernels.store._fill import FillReport, Work, default_tile, fill
from widthwise.kernels.store._layout import Layout, Tile
from widthwise.kernels.store._ledger import Ledger
from widthwise.kernels.store._matrix import StoredMatrix
from widthwise.kernels.store._source import Inputs, KernelSource, as_array, as_source, data_identity, torch_type

_PROBES = 4
_WHAT = {
    "model": "model",
    "data": "data set",
    "kernels": "choice of kernels",
    "dtype": "dtype",
    "version": "version of widthwise",
}


class GramStore(StoredMatrix):
    """A kernel matrix in tiles on disk, read as an array that is not loaded: ``store[i:j, k:l]``, ``store @ v``.

    Made by `GramStore.create` (which also resumes) or `GramStore.open`. On disk it is a Zarr (version 3) group with one
    array per kernel, tiles as uncompressed chunks, of a symmetric matrix only those on and above the diagonal, and a
    ledger of finished tiles with their checksums.

    Attributes:
        path: folder of the store.
        name: the kernel that is read: ``"ntk"`` or ``"nngp"``.
        layout: shape, side of a tile, symmetry.

    >>> import tempfile, torch, widthwise as ww
    >>> net = torch.nn.Sequential(torch.nn.Linear(3, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))
    >>> x, folder = torch.eye(3), tempfile.mkdtemp()
    >>> store = ww.kernels.GramStore.create(f"{folder}/gram.zarr", net, x, dtype="float64", tile=2)
    >>> store.fill().computed
    3
    >>> bool(np.allclose(store @ np.ones(3), np.asarray(store).sum(1)))
    True
    """

    def __init__(self, path: str | Path, name: str | None = None, *, work: Work | None = None) -> None:
        path = Path(path)
        self.header, layout = _format.read_header(path)
        name = self.header["names"][0] if name is None else name
        if name not in self.header["names"]:
            raise DataError(f"{path} holds {', '.join(self.header['names'])} and not {name!r}; name another.")
        super().__init__(path, name, layout, _format.Chunks(path, name, layout), Ledger(path / _format.LEDGER))
        self._work = work

    # -- making ---------------------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        path: str | Path,
        kernel: Any,
        x1: Inputs,
        x2: Inputs | None = None,
        *,
        kernels: Sequence[str] = ("ntk",),
        parametrization: Parametrization = "ntk",
        dtype: Any = "float32",
        tile: int | None = None,
    ) -> "GramStore":
        """A store for these kernels on these inputs: new, or the one that is there, if it is of the same.

        Nothing is computed before `fill`.

        Args:
            path: folder of the store.
            kernel: a module (its infinite-width kernels), a `Limit`, or a function ``kernel(x1, x2)``.
            x1: ``[n1, *input_shape]``.
            x2: ``[n2, *input_shape]``; None means x1 again, and only half of the matrix is computed and kept.
            kernels: ``"ntk"``, ``"nngp"`` or both, from one pass.
            dtype: float32 or float64, of the computation and of what is kept.
            tile: side of a tile; by default one that takes some seconds.

        Raises:
            OutputError: the folder holds a store of another model, data set, dtype or version, or cannot be written.
            UnsupportedOperation, TraceError, DataError: there is no such kernel.
        """
        path, precision = Path(path), torch_type(dtype)
        source = as_source(kernel, x1, kernels, precision, parametrization)
        source.pairs = len(x1) * (len(x1) if x2 is None else len(x2))
        if x2 is not None and tuple(x2.shape[1:]) != tuple(x1.shape[1:]):
            raise DataError(
                f"x1 has inputs of shape {list(x1.shape[1:])} and x2 {list(x2.shape[1:])}; give equal ones."
            )
        wanted = {
            "model": source.identity,
            "data": data_identity(x1) + ("" if x2 is None else data_identity(x2)),
            "kernels": ",".join(source.names),
            "dtype": str(precision).removeprefix("torch."),
            "version": version("widthwise"),
        }
        if not _format.is_store(path):
            tile = default_tile(source, x1, x2) if tile is None else tile
            layout = Layout(len(x1), len(x1 if x2 is None else x2), tile, symmetric=x2 is None)
            header = {
                "format": _format.FORMAT,
                "names": list(source.names),
                "fingerprint": wanted,
                "probe": _probe(source, x1, x2),
                "threads": torch.get_num_threads(),
            }
            _format.make(path, source.names, layout, wanted["dtype"], header)
        store = cls(path, work=Work(source, x1, x2))
        store._refuse_others(wanted, source, tile)
        return store

    @classmethod
    def open(cls, path: str | Path, name: str | None = None) -> "GramStore":
        """A store to read; `name` picks the kernel where it holds both (by default the first, the NTK).

        Raises:
            DataError: there is no store, or it lacks this kernel.
        """
        return cls(path, name)

    def kernel(self, name: str) -> "GramStore":
        """The same store, read for another of its kernels."""
        return GramStore(self.path, name, work=self._work)

    def _refuse_others(self, wanted: dict[str, str], source: KernelSource, tile: int | None) -> None:
        found = self.header["fingerprint"]
        for part, what in _WHAT.items():
            if found.get(part) != wanted[part]:
                raise OutputError(
                    f"{self.path} was written for another {what} ({found.get(part)} there, {wanted[part]} now); "
                    "give another --out, or remove it first."
                )
        assert self._work is not None
        if not source.exact_identity:
            now = _probe(source, self._work.x1, self._work.x2)
            rough = 1e-4 if self.dtype == np.float32 else 1e-8
            if not np.allclose(now, self.header["probe"], rtol=rough, atol=0.0):
                raise OutputError(
                    f"{self.path} was written for another kernel function (same name, other values); "
                    "give another path, or remove it first."
                )
        if tile is not None and tile != self.layout.tile:
            raise OutputError(
                f"{self.path} has tiles of side {self.layout.tile} and {tile} were asked for; leave the tile out."
            )

    def fill(self, engine: str = "local", *, show_progress: bool = False) -> FillReport:
        """Compute the tiles that are missing or damaged; interrupt it at any time and call it again.

        Args:
            engine: ``"local"``, or ``"ray"`` to spread tiles over a Ray cluster (extra ``widthwise[ray]``); both
                give the same numbers.

        Raises:
            DataError: the store was opened without a kernel to compute, or the engine is not known.
            OutputError, ResourceError: the disk is full; finished tiles are kept.
        """
        if self._work is None:
            raise DataError(f"{self.path} was opened to be read; call GramStore.create with the kernel and its inputs.")
        with self.ledger.writing():
            arrays = {name: _format.Chunks(self.path, name, self.layout) for name in self.header["names"]}
            report = fill(self, self._work, arrays, engine, show_progress)
        self._checked.clear()
        return report

    # -- state ----------------------------------------------------------------------------------------------------

    @property
    def complete(self) -> bool:
        """Whether every tile is in the ledger."""
        return self.finished == self.layout.count

    @property
    def fingerprint(self) -> dict[str, str]:
        """What the store was written for: hashes of model and data, kernels, dtype, version."""
        return dict(self.header["fingerprint"])

    def damaged(self) -> list[Tile]:
        """Finished tiles of this kernel whose bytes do not match their checksum (reads all of them)."""
        return [tile for tile in self.ledger.done if not self._sound(tile)]

    def __deepcopy__(self, memo: dict) -> "GramStore":
        return self  # a handle on files: scikit-learn's clone shares it

    def __repr__(self) -> str:
        half = ", upper half" if self.layout.symmetric else ""
        return (
            f"GramStore({str(self.path)!r}, {self.name}, shape {list(self.shape)}, {self.dtype}{half}, "
            f"{self.finished}/{self.layout.count} tiles)"
        )


def _probe(source: KernelSource, x1: Inputs, x2: Inputs | None) -> list[float]:
    """Some entries of the first kernel, to tell functions of one name apart."""
    if source.exact_identity:
        return []
    second = x1 if x2 is None else x2
    a = np.unique(np.linspace(0, len(x1) - 1, _PROBES).astype(int))
    b = np.unique(np.linspace(0, len(second) - 1, _PROBES).astype(int))
    block = source(x1[a], second[b])[source.names[0]]
    return [float(value) for value in as_array(block).ravel()]
