"""Effective theory of multilayer perceptrons at large but finite width (arXiv 2106.10165)."""

from widthwise.theory.effective._critical import Criticality, critical
from widthwise.theory.effective._draws import Layer, first_layer, next_layer
from widthwise.theory.effective._ensemble import Perceptrons, mean_and_error, perceptrons
from widthwise.theory.effective._figures import Fluctuations, fluctuations
from widthwise.theory.effective._flow import Flow, flow
from widthwise.theory.effective._gauss import EffectiveTheoryError, gaussian_moments
from widthwise.theory.effective._inputs import InputsFlow, flow_inputs
from widthwise.theory.effective._ratio import optimal_ratio, residual_nu, residual_vertex, width_for_depth
from widthwise.theory.effective._report import FiniteWidthReport, finite_width_report
from widthwise.theory.effective._torch import LayerRates, balanced_rates, rate_groups, to_torch_init
from widthwise.theory.effective._training import TrainedEnsemble, train_predict
from widthwise.theory.effective._verify import Extrapolated, Verification, extrapolate, verify_flow

__all__ = [
    "Criticality",
    "EffectiveTheoryError",
    "Extrapolated",
    "FiniteWidthReport",
    "Flow",
    "Fluctuations",
    "InputsFlow",
    "Layer",
    "LayerRates",
    "Perceptrons",
    "TrainedEnsemble",
    "Verification",
    "balanced_rates",
    "critical",
    "extrapolate",
    "finite_width_report",
    "first_layer",
    "flow",
    "flow_inputs",
    "fluctuations",
    "gaussian_moments",
    "mean_and_error",
    "next_layer",
    "optimal_ratio",
    "perceptrons",
    "rate_groups",
    "residual_nu",
    "residual_vertex",
    "to_torch_init",
    "train_predict",
    "verify_flow",
    "width_for_depth",
]
