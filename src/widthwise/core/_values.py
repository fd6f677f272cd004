"""Results are values: frozen dataclasses that turn into plain JSON types."""

import dataclasses
import enum
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch


def to_plain(value: Any) -> Any:
    """Turn a result into JSON types: dataclasses to dicts, arrays to lists, NaN and infinities to None.

    Dataclass fields whose metadata holds ``{"plain": False}`` are left out (live objects, large arrays).

    >>> to_plain({"a": np.float64("nan"), "b": torch.arange(2)})
    {'a': None, 'b': [0, 1]}
    """
    if value is None or (isinstance(value, (bool, int, str)) and not isinstance(value, enum.Enum)):
        return value
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, np.generic):
        return to_plain(value.item())
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return to_plain(value.tolist())
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_plain(item) for item in value]
    if dataclasses.is_dataclass(value):
        fields = (field for field in dataclasses.fields(value) if field.metadata.get("plain", True))
        return {field.name: to_plain(getattr(value, field.name)) for field in fields}
    raise TypeError(f"{type(value).__name__} has no plain form; give the dataclass a field of plain values instead.")


class Value:
    """Mixin for result dataclasses: ``to_dict()`` gives JSON types."""

    def to_dict(self) -> dict[str, Any]:
        """This value as nested dicts and lists of JSON types."""
        return to_plain(self)
