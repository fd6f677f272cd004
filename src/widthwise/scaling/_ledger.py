"""Finished runs on disk: what an interrupted sweep has is not run again."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from widthwise.core import DataError, write_text
from widthwise.data import DataSet


def setting_key(*parts: Any) -> str:
    """A digest of everything that a run depends on; data sets and tensors by their bytes, functions by their names.

    >>> setting_key("adamw", 100) == setting_key("adamw", 200)
    False
    """
    digest = hashlib.sha256()
    for part in parts:
        _feed(digest, part)
    return digest.hexdigest()


def _feed(digest: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        digest.update(str(tuple(value.shape)).encode() + np.ascontiguousarray(value.detach().cpu().numpy()).tobytes())
    elif isinstance(value, DataSet):
        _feed(digest, (value.inputs, value.targets))
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            digest.update(str(key).encode())
            _feed(digest, value[key])
    elif isinstance(value, (list, tuple)):
        for item in value:
            _feed(digest, item)
    elif callable(value):
        digest.update(getattr(value, "__qualname__", type(value).__name__).encode())
    else:
        digest.update(repr(value).encode() + b";")


class Ledger:
    """Losses of finished runs by width, seed and learning rate, in one JSON file.

    A file of other settings is set aside, not mixed in: it is replaced at the first run that ends.

    Args:
        path: of the file; None: kept in memory only.
        key: digest of the settings.

    Raises:
        DataError: the file is no ledger.

    >>> ledger = Ledger(None, setting_key("adamw", 100))
    >>> ledger.put(width=64, seed=0, lr=0.01, loss=0.5)
    >>> ledger.get(64, 0, 0.01), ledger.get(64, 0, 0.02)
    (0.5, None)
    """

    def __init__(self, path: Path | None, key: str) -> None:
        self.path, self.key = path, key
        self._losses: dict[str, float | None] = {}
        if path is not None and path.exists():
            try:
                held = json.loads(path.read_text(encoding="utf-8"))
                self._losses = dict(held["losses"]) if held["key"] == key else {}
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{path} is no ledger of finished runs; remove it or choose another folder.") from error

    def __len__(self) -> int:
        return len(self._losses)

    def get(self, width: int, seed: int, lr: float) -> float | None:
        """The loss of a finished run, infinite where it diverged; None where it has not been run."""
        name = f"{width}/{seed}/{lr!r}"
        if name not in self._losses:
            return None
        value = self._losses[name]
        return float("inf") if value is None else float(value)

    def put(self, width: int, seed: int, lr: float, loss: float) -> None:
        """Keep the loss of a run that has ended."""
        self._losses[f"{width}/{seed}/{lr!r}"] = loss if np.isfinite(loss) else None
        if self.path is not None:
            write_text(self.path, json.dumps({"key": self.key, "losses": self._losses}, indent=1) + "\n")
