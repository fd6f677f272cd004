"""The ledger of finished tiles: one line each, appended after the tile itself is in place."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import google_crc32c
import numpy as np

from widthwise.core import OutputError
from widthwise.kernels.store._layout import Tile

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

Checksums = dict[str, int]
"""By kernel name, the CRC32C of a tile's bytes."""


def checksum(tile: np.ndarray) -> int:
    """CRC32C of the entries of a tile as little-endian bytes, row by row."""
    return int(google_crc32c.value(np.ascontiguousarray(tile).tobytes()))


class Ledger:
    """Finished tiles with their checksums, in a file of JSON lines.

    A line that was being written when the process died is cut off when the file is next opened for writing; its tile
    counts as unfinished.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done: dict[Tile, Checksums] = {}
        self.read()

    def read(self) -> None:
        """Read the file anew (another process may have added to it)."""
        self.done = {}
        if not self.path.is_file():
            return
        for line in self._whole().splitlines():
            try:
                entry = json.loads(line)
                self.done[int(entry["i"]), int(entry["j"])] = {str(k): int(v) for k, v in entry["crc32c"].items()}
            except (ValueError, KeyError, TypeError, AttributeError):
                continue

    def _whole(self) -> bytes:
        """The file up to its last complete line."""
        text = self.path.read_bytes()
        return text[: text.rfind(b"\n") + 1]

    def add(self, tile: Tile, sums: Checksums) -> None:
        """Note a finished tile, in one write."""
        line = json.dumps({"i": tile[0], "j": tile[1], "crc32c": sums}) + "\n"
        with self.path.open("ab", buffering=0) as file:
            start = file.seek(0, os.SEEK_END)
            try:
                if file.write(line.encode()) != len(line):
                    raise OSError(28, "No space left on device")
            except OSError:
                os.truncate(self.path, start)
                raise
        self.done[tile] = sums

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the ledger alone; the lock goes with the process, however that ends.

        Raises:
            OutputError: another process is writing to the same store.
        """
        try:
            file = self.path.open("ab")
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror or error}; choose another folder.") from error
        with file:
            if fcntl is not None:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    raise OutputError(
                        f"another process is writing to {self.path.parent}; wait for it, or stop it first."
                    ) from None
            os.truncate(self.path, len(self._whole()))
            self.read()
            yield
