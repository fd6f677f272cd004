"""Program + inputs -> Gram matrices: the infinite-width limit and its finite stand-ins."""

from widthwise.kernels._criticality import Susceptibility, susceptibility
from widthwise.kernels._limit import CertificateRow, KernelPair, Limit, Parametrization, infinite
from widthwise.kernels._lowering import RULES, rule
from widthwise.kernels._monte_carlo import MonteCarloKernel, monte_carlo_kernel
from widthwise.kernels.store import GramStore

__all__ = [
    "RULES",
    "CertificateRow",
    "GramStore",
    "KernelPair",
    "Limit",
    "MonteCarloKernel",
    "Parametrization",
    "Susceptibility",
    "infinite",
    "monte_carlo_kernel",
    "rule",
    "susceptibility",
]
