"""Gram matrix and targets in, learning curves out."""

from widthwise.theory._risk import Risk, risk, solve_gamma, solve_kappa
from widthwise.theory._spectrum import EigenSpectrum, Moments, PowerTail, Spectrum
from widthwise.theory._task import TaskSpectrum

__all__ = [
    "EigenSpectrum",
    "Moments",
    "PowerTail",
    "Risk",
    "Spectrum",
    "TaskSpectrum",
    "risk",
    "solve_gamma",
    "solve_kappa",
]
