"""Kernel regression at any size: estimators, solvers, feature maps."""

from widthwise.kernels.regression._errors import NotPositiveDefinite, PrecisionWarning
from widthwise.kernels.regression._estimators import KernelClassifier, KernelRegressor
from widthwise.kernels.regression._gradient_features import FeatureError, GradientFeatures
from widthwise.kernels.regression._nystrom import NystromFeatures
from widthwise.kernels.regression._random_features import RandomFeatures

__all__ = [
    "FeatureError",
    "GradientFeatures",
    "KernelClassifier",
    "KernelRegressor",
    "NotPositiveDefinite",
    "NystromFeatures",
    "PrecisionWarning",
    "RandomFeatures",
]
