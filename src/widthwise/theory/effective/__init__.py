"""Effective theory of multilayer perceptrons at large but finite width (arXiv 2106.10165)."""

from widthwise.theory.effective._critical import Criticality, critical
from widthwise.theory.effective._figures import Fluctuations, fluctuations
from widthwise.theory.effective._flow import Flow, flow
from widthwise.theory.effective._gauss import EffectiveTheoryError
from widthwise.theory.effective._inputs import InputsFlow, flow_inputs
from widthwise.theory.effective._ratio import optimal_ratio, residual_nu, width_for_depth
from widthwise.theory.effective._report import FiniteWidthReport, finite_width_report
from widthwise.theory.effective._torch import LayerRates, balanced_rates, rate_groups, to_torch_init
from widthwise.theory.effective._verify import Extrapolated, Verification, verify_flow

__all__ = [
    "Criticality",
    "EffectiveTheoryError",
    "Extrapolated",
    "FiniteWidthReport",
    "Flow",
    "Fluctuations",
    "InputsFlow",
    "LayerRates",
    "Verification",
    "balanced_rates",
    "critical",
    "finite_width_report",
    "flow",
    "flow_inputs",
    "fluctuations",
    "optimal_ratio",
    "rate_groups",
    "residual_nu",
    "to_torch_init",
    "verify_flow",
    "width_for_depth",
]
