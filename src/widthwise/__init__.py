"""Widthwise: know how a neural network will learn before you spend the compute."""

from widthwise import data, kernels, nn, numerics, probe, program, report, scaling, studies, theory, train
from widthwise._api import forecast  # the function; the package of the same name is imported by its parts
from widthwise.core import (
    DataError,
    ModelError,
    OutputError,
    ResourceError,
    TraceError,
    UnsupportedOperation,
    WidthwiseError,
)
from widthwise.kernels import KernelClassifier, KernelRegressor, Limit, infinite, monte_carlo_kernel, susceptibility
from widthwise.probe import empirical_ntk
from widthwise.program import Program, trace
from widthwise.scaling import coordinate_check, parametrize, scale, transfer_check
from widthwise.theory import TaskSpectrum

__version__ = "0.1.0"

__all__ = [
    "DataError",
    "KernelClassifier",
    "KernelRegressor",
    "Limit",
    "ModelError",
    "OutputError",
    "Program",
    "ResourceError",
    "TaskSpectrum",
    "TraceError",
    "UnsupportedOperation",
    "WidthwiseError",
    "coordinate_check",
    "data",
    "empirical_ntk",
    "forecast",
    "infinite",
    "kernels",
    "monte_carlo_kernel",
    "nn",
    "numerics",
    "parametrize",
    "probe",
    "program",
    "report",
    "scale",
    "scaling",
    "studies",
    "susceptibility",
    "theory",
    "trace",
    "train",
    "transfer_check",
]
