"""Gram matrices larger than memory: tiles on disk, resumed, checked, spread over machines."""

from widthwise.kernels.store._fill import FillReport
from widthwise.kernels.store._layout import Layout
from widthwise.kernels.store._source import as_source
from widthwise.kernels.store._store import GramStore

__all__ = ["FillReport", "GramStore", "Layout", "as_source"]
