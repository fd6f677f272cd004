"""Gram matrix and targets in, learning curves out."""

from widthwise.theory._curve import LearningCurve
from widthwise.theory._domains import (
    circle_eigensystem,
    hypercube_eigensystem,
    learned_coefficients,
    sphere_eigensystem,
    total_learnability,
)
from widthwise.theory._dynamics import KernelDynamics
from widthwise.theory._dynamics_modes import largest_eigenvalue
from widthwise.theory._dynamics_values import Ensemble, Trajectory
from widthwise.theory._exponents import Exponents
from widthwise.theory._measure import (
    Measured,
    Simulated,
    gaussian_simulation,
    measure_kernel_regression,
)
from widthwise.theory._overfitting import (
    Overfitting,
    Verdict,
    classify_spectrum,
    coefficient_bound,
    effective_ranks,
    overfitting,
)
from widthwise.theory._power_laws import (
    optimal_fitting_ratio,
    power_law_kappa,
    power_law_risk,
    power_law_risk_ratio,
)
from widthwise.theory._risk import Risk, risk, solve_gamma, solve_kappa
from widthwise.theory._sample import SampleSpectrum
from widthwise.theory._spectrum import EigenSpectrum, Moments, PowerTail, Spectrum
from widthwise.theory._task import TaskSpectrum

__all__ = [
    "EigenSpectrum",
    "Ensemble",
    "Exponents",
    "KernelDynamics",
    "LearningCurve",
    "Measured",
    "Moments",
    "Overfitting",
    "PowerTail",
    "Risk",
    "SampleSpectrum",
    "Simulated",
    "Spectrum",
    "TaskSpectrum",
    "Trajectory",
    "Verdict",
    "circle_eigensystem",
    "classify_spectrum",
    "coefficient_bound",
    "effective_ranks",
    "gaussian_simulation",
    "hypercube_eigensystem",
    "largest_eigenvalue",
    "learned_coefficients",
    "measure_kernel_regression",
    "optimal_fitting_ratio",
    "overfitting",
    "power_law_kappa",
    "power_law_risk",
    "power_law_risk_ratio",
    "risk",
    "solve_gamma",
    "solve_kappa",
    "sphere_eigensystem",
    "total_learnability",
]
