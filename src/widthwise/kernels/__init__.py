"""Program + inputs -> Gram matrices: the infinite-width limit and its finite stand-ins."""

from widthwise.kernels._coordinates import SampledKernels
from widthwise.kernels._criticality import Susceptibility, susceptibility
from widthwise.kernels._deep_kernels import DeepKernels, deep_kernels
from widthwise.kernels._init_report import InitReport, init_report
from widthwise.kernels._limit import CertificateRow, KernelPair, Limit, Parametrization, infinite
from widthwise.kernels._monte_carlo import MonteCarloKernel, monte_carlo_kernel
from widthwise.kernels._phase_diagram import CriticalLine, PhaseDiagram, critical_line, phase_diagram
from widthwise.kernels._registry import RULES, rule
from widthwise.kernels.regression import (
    FeatureError,
    GradientFeatures,
    KernelClassifier,
    KernelRegressor,
    NotPositiveDefinite,
    NystromFeatures,
    PrecisionWarning,
    RandomFeatures,
)
from widthwise.kernels.store import GramStore

__all__ = [
    "RULES",
    "CertificateRow",
    "CriticalLine",
    "DeepKernels",
    "FeatureError",
    "GradientFeatures",
    "GramStore",
    "InitReport",
    "KernelClassifier",
    "KernelPair",
    "KernelRegressor",
    "Limit",
    "MonteCarloKernel",
    "NotPositiveDefinite",
    "NystromFeatures",
    "Parametrization",
    "PhaseDiagram",
    "PrecisionWarning",
    "RandomFeatures",
    "SampledKernels",
    "Susceptibility",
    "critical_line",
    "deep_kernels",
    "infinite",
    "init_report",
    "monte_carlo_kernel",
    "phase_diagram",
    "rule",
    "susceptibility",
]
