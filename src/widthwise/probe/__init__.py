"""Measurements on a real network."""

from widthwise.probe._balance import BalanceDrift, LayerBalance, PairBalance, balance_drift, layer_balance
from widthwise.probe._balance_pairs import rescale_neurons
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
from widthwise.probe._regime import Regime, RegimeRecorder, RegimeTrace, kernel_distance, regime
from widthwise.probe._regime_staircase import LossStep, Staircase, loss_staircase

__all__ = [
    "ActivationMoments",
    "BalanceDrift",
    "CatapultScan",
    "KernelDrift",
    "LayerBalance",
    "Linearized",
    "LossStep",
    "PairBalance",
    "RandomFeatureTable",
    "Regime",
    "RegimeRecorder",
    "RegimeTrace",
    "Staircase",
    "activation_moments",
    "balance_drift",
    "catapult_scan",
    "empirical_ntk",
    "features",
    "kernel_distance",
    "kernel_drift",
    "largest_curvature",
    "last_layer",
    "layer_balance",
    "linearize",
    "loss_staircase",
    "ntk_largest_eigenvalue",
    "ntk_trace",
    "ntk_vector_product",
    "per_example_gradients",
    "random_feature_regression",
    "regime",
    "rescale_neurons",
    "ridge_predictions",
    "two_layer_linear_map",
]
