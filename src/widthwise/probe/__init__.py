"""Measurements on a real network."""

from widthwise.probe._catapult import CatapultScan, catapult_scan, two_layer_linear_map
from widthwise.probe._curvature import largest_curvature
from widthwise.probe._features import features, last_layer
from widthwise.probe._gradients import per_example_gradients
from widthwise.probe._kernel_drift import KernelDrift, kernel_drift
from widthwise.probe._linearize import Linearized, linearize
from widthwise.probe._moments import ActivationMoments, activation_moments
from widthwise.probe._ntk import empirical_ntk
from widthwise.probe._ntk_products import ntk_largest_eigenvalue, ntk_trace, ntk_vector_product
from widthwise.probe._random_features import RandomFeatureTable, random_feature_regression, ridge_predictions

__all__ = [
    "ActivationMoments",
    "CatapultScan",
    "KernelDrift",
    "Linearized",
    "RandomFeatureTable",
    "activation_moments",
    "catapult_scan",
    "empirical_ntk",
    "features",
    "kernel_drift",
    "largest_curvature",
    "last_layer",
    "linearize",
    "ntk_largest_eigenvalue",
    "ntk_trace",
    "ntk_vector_product",
    "per_example_gradients",
    "random_feature_regression",
    "ridge_predictions",
    "two_layer_linear_map",
]
