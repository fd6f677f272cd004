"""Measurements on a real network."""

from widthwise.probe._curvature import largest_curvature
from widthwise.probe._features import features, last_layer
from widthwise.probe._gradients import per_example_gradients
from widthwise.probe._moments import ActivationMoments, activation_moments
from widthwise.probe._ntk import empirical_ntk
from widthwise.probe._random_features import RandomFeatureTable, random_feature_regression, ridge_predictions

__all__ = [
    "ActivationMoments",
    "RandomFeatureTable",
    "activation_moments",
    "empirical_ntk",
    "features",
    "largest_curvature",
    "last_layer",
    "per_example_gradients",
    "random_feature_regression",
    "ridge_predictions",
]
