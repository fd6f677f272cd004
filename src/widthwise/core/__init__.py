"""What every room of the house stands on: errors, values, files, progress, seeds, memory."""

from widthwise.core._errors import (
    DataError,
    ModelError,
    OutputError,
    ResourceError,
    TraceError,
    UnsupportedOperation,
    WidthwiseError,
)
from widthwise.core._figure import Axis, Band, Bars, Figure, Guide, Heatmap, Line, Points, Series
from widthwise.core._files import atomic_path, check_writable, write_text
from widthwise.core._memory import available_bytes, require_memory
from widthwise.core._modes import evaluating
from widthwise.core._progress import Advance, progress
from widthwise.core._seeds import derived_seed, generator, seeded
from widthwise.core._tensors import all_finite
from widthwise.core._values import Value, to_plain

__all__ = [
    "Advance",
    "Axis",
    "Band",
    "Bars",
    "DataError",
    "Figure",
    "Guide",
    "Heatmap",
    "Line",
    "ModelError",
    "OutputError",
    "Points",
    "ResourceError",
    "Series",
    "TraceError",
    "UnsupportedOperation",
    "Value",
    "WidthwiseError",
    "all_finite",
    "atomic_path",
    "available_bytes",
    "check_writable",
    "derived_seed",
    "evaluating",
    "generator",
    "progress",
    "require_memory",
    "seeded",
    "to_plain",
    "write_text",
]
