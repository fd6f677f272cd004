"""Kernel regression at any size: estimators, solvers, feature maps."""

from widthwise.kernels.regression._errors import NotPositiveDefinite, PrecisionWarning
from widthwise.kernels.regression._estimators import KernelClassifier, KernelRegressor
from widthwise.kernels.regression._nystrom import NystromFeatures
from widthwise.kernels.regression._random_features import RandomFeatures

__all__ = [
    "KernelClassifier",
    "KernelRegressor",
    "NotPositiveDefinite",
    "NystromFeatures",
    "PrecisionWarning",
    "RandomFeatures",
]
