"""Kernel regression at any size: estimators, solvers, feature maps."""

from widthwise.kernels.regression._errors import NotPositiveDefinite, PrecisionWarning
from widthwise.kernels.regression._estimators import KernelClassifier, KernelRegressor

__all__ = ["KernelClassifier", "KernelRegressor", "NotPositiveDefinite", "PrecisionWarning"]
