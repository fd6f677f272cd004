"""Computing the tiles of a store: what is missing, one after another or on a Ray cluster."""

import errno
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from widthwise.core import DataError, OutputError, ResourceError, Value, progress
from widthwise.kernels.store._format import Chunks
from widthwise.kernels.store._layout import Layout, Tile
from widthwise.kernels.store._ledger import checksum
from widthwise.kernels.store._ray import ray_tiles
from widthwise.kernels.store._source import Blocks, Inputs, KernelSource

if TYPE_CHECKING:
    from widthwise.kernels.store._store import GramStore

TILE_SECONDS = 4.0
SIDES = (32, 64, 128, 256, 512, 1024, 2048)
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Work:
    """What the tiles of a store are computed from."""

    source: KernelSource
    x1: Inputs
    x2: Inputs | None

    def tile(self, layout: Layout, tile: Tile) -> Blocks:
        """The kernels on one tile."""
        rows, columns = layout.span(*tile)
        if self.x2 is None and tile[0] == tile[1]:
            return self.source(self.x1[rows], None)
        return self.source(self.x1[rows], (self.x1 if self.x2 is None else self.x2)[columns])


@dataclass(frozen=True)
class FillReport(Value):
    """What `GramStore.fill` did.

    Attributes:
        computed: tiles that were computed now.
        kept: finished tiles that were there before.
        repaired: tiles among those computed that were there but did not match their checksum.
        seconds: wall time.
    """

    computed: int
    kept: int
    repaired: int
    seconds: float


Tiles = Callable[[Work, Layout, Sequence[Tile], int], Iterator[tuple[Tile, Blocks]]]


def local_tiles(work: Work, layout: Layout, todo: Sequence[Tile], threads: int) -> Iterator[tuple[Tile, Blocks]]:
    """Tiles one after another, each with the number of threads that the store was begun with."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for tile in todo:
            yield tile, work.tile(layout, tile)
    finally:
        torch.set_num_threads(before)


ENGINES: dict[str, Tiles] = {"local": local_tiles, "ray": ray_tiles}


def fill(store: "GramStore", work: Work, arrays: dict[str, Chunks], engine: str, show: bool) -> FillReport:
    """Compute what is missing or damaged; the ledger is held by the caller.

    Raises:
        DataError: the engine is not known.
        OutputError, ResourceError: the disk is full, during or before the work.
    """
    if engine not in ENGINES:
        raise DataError(f"engine {engine!r} is not known; give one of {', '.join(ENGINES)}.")
    start = time.perf_counter()
    for chunks in arrays.values():
        chunks.sweep()
    done = store.ledger.done
    sound = {tile for tile in done if _sound(tile, arrays, done[tile])}
    repaired = len(done) - len(sound)
    todo = [tile for tile in store.layout.tiles() if tile not in sound]
    _require_disk(store, arrays, len(todo))
    threads = int(store.header.get("threads", 1))
    with progress("Gram tiles", store.layout.count, show=show) as advance:
        advance(len(sound))
        for tile, blocks in ENGINES[engine](work, store.layout, todo, threads):
            _keep(store, arrays, tile, blocks)
            advance(1)
    return FillReport(len(todo), len(sound), repaired, time.perf_counter() - start)


def _sound(tile: Tile, arrays: dict[str, Chunks], sums: dict[str, int]) -> bool:
    for name, chunks in arrays.items():
        values = chunks.read(tile)
        if values is None or checksum(values) != sums.get(name):
            return False
    return True


def _keep(store: "GramStore", arrays: dict[str, Chunks], tile: Tile, blocks: Blocks) -> None:
    """Write a tile, then note it."""
    for name, values in blocks.items():
        if not np.isfinite(values).all():
            raise DataError(
                f"kernel {name} has entries that are not finite in tile {tile} of {store.path}; "
                "scale the inputs down, or use float64."
            )
    try:
        for name, chunks in arrays.items():
            chunks.write(tile, blocks[name])
        sums = {name: checksum(np.asarray(blocks[name], chunks.dtype)) for name, chunks in arrays.items()}
        store.ledger.add(tile, sums)
    except OSError as error:
        if error.errno not in _FULL:
            raise OutputError(
                f"cannot write {store.path}: {error.strerror or error}; finished tiles are kept."
            ) from error
        raise OutputError(
            f"the disk is full after {store.finished} of {store.layout.count} tiles of {store.path}, which are kept; "
            f"free {_left(store, arrays) / 2**30:.2f} GiB and run the same again to go on."
        ) from error


def _left(store: "GramStore", arrays: dict[str, Chunks], tiles: int | None = None) -> float:
    """Bytes that the missing tiles take."""
    missing = store.layout.count - store.finished if tiles is None else tiles
    return float(missing) * store.layout.tile**2 * sum(chunks.dtype.itemsize for chunks in arrays.values())


def _require_disk(store: "GramStore", arrays: dict[str, Chunks], tiles: int) -> None:
    needed, free = _left(store, arrays, tiles), shutil.disk_usage(store.path).free
    if needed > free:
        raise ResourceError(
            f"the {tiles} missing tiles of {store.path} take {needed / 2**30:.2f} GiB and {free / 2**30:.2f} GiB are "
            "free on that disk; free some, or write elsewhere."
        )


def default_tile(source: KernelSource, x1: Inputs, x2: Inputs | None) -> int:
    """The largest side of a tile that takes some seconds, from timing a small one."""
    second = x1 if x2 is None else x2
    side, largest = 8, max(len(x1), len(second))
    source(x1[:2], second[:2])
    while True:
        start = time.perf_counter()
        source(x1[:side], second[:side])
        seconds = time.perf_counter() - start
        if seconds > 0.05 or side >= min(512, largest):
            break
        side *= 4
    reachable = side * (TILE_SECONDS / max(seconds, 1e-9)) ** 0.5
    return max([s for s in SIDES if s <= reachable and s < 2 * largest], default=SIDES[0])
