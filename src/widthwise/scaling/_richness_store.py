"""Finished runs of a richness sweep on disk."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from widthwise.core import DataError, write_text
from widthwise.scaling._ledger import setting_key
from widthwise.scaling._richness_batch import Cell


class SweepStore:
    """Losses by gamma, rate and seed in one JSON file; a file of other settings is replaced at the first saving.

    Args:
        path: of the file; None: kept in memory only.
        settings: everything that a run depends on.

    Raises:
        DataError: the file is no such store.
    """

    def __init__(self, path: str | Path | None, *settings: Any) -> None:
        self.path, self.key = None if path is None else Path(path), setting_key(*settings)
        self._losses: dict[str, float | None] = {}
        if self.path is not None and self.path.exists():
            try:
                held = json.loads(self.path.read_text(encoding="utf-8"))
                self._losses = dict(held["losses"]) if held["key"] == self.key else {}
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{self.path} is no file of finished runs; remove it or choose another.") from error

    def get(self, cell: Cell) -> float | None:
        """The loss of a finished run, infinite where it diverged; None where it has not been run."""
        if _name(cell) not in self._losses:
            return None
        value = self._losses[_name(cell)]
        return float("inf") if value is None else float(value)

    def put(self, cell: Cell, loss: float) -> None:
        """Note the loss of a run that has ended."""
        self._losses[_name(cell)] = loss if np.isfinite(loss) else None

    def save(self) -> None:
        """Write what has been noted."""
        if self.path is not None:
            write_text(self.path, json.dumps({"key": self.key, "losses": self._losses}, indent=1) + "\n")


def _name(cell: Cell) -> str:
    return f"{cell.gamma!r}/{cell.rate!r}/{cell.seed}"
