"""Scaling: parametrisations that hold at every width, and the checks that prove it."""

from widthwise.scaling._abc import AbcReport, AbcTable, abc, classify, named_abc
from widthwise.scaling._coordinate_check import coordinate_check
from widthwise.scaling._coordinate_result import CoordinateCheck
from widthwise.scaling._diagnosis import LayerVerdict, Observation
from widthwise.scaling._doubling import TIED, Doubling, doubling
from widthwise.scaling._families import FAMILIES, family_of
from widthwise.scaling._laws import LAWS, compare_laws, law
from widthwise.scaling._laws_fit import FittedLaw, RouteFit, fit_law
from widthwise.scaling._laws_loss import LossLaw, fit_loss_law
from widthwise.scaling._laws_recommend import ExtrapolationRisk, Recommendation, recommend
from widthwise.scaling._laws_surface import CellSurface
from widthwise.scaling._laws_types import Advice, Bowl, Domain, Law, Run
from widthwise.scaling._ledger import Ledger, setting_key
from widthwise.scaling._optimum import Drift, Optimum
from widthwise.scaling._parametrize import parametrize, parametrize_traced
from widthwise.scaling._plan import ParameterGroups, ScalingPlan, ScorePlan, WeightPlan
from widthwise.scaling._richness import richness_sweep
from widthwise.scaling._richness_advice import RichnessAdvice, richness_advice
from widthwise.scaling._richness_diagnosis import diagnose_regime
from widthwise.scaling._richness_fit import Exponent, RateBound, fit_exponent
from widthwise.scaling._richness_plane import RichnessSweep, richness_law
from widthwise.scaling._richness_toy import mode_time, toy_critical_rate, toy_descent, toy_flow_time
from widthwise.scaling._richness_unbalance import unbalance
from widthwise.scaling._scale import ScaleResult, scale
from widthwise.scaling._slopes import Slope, fit_slope
from widthwise.scaling._transfer_check import TransferCheck, transfer_check

__all__ = [
    "FAMILIES",
    "LAWS",
    "TIED",
    "AbcReport",
    "AbcTable",
    "Advice",
    "Bowl",
    "CellSurface",
    "CoordinateCheck",
    "Domain",
    "Doubling",
    "Drift",
    "Exponent",
    "ExtrapolationRisk",
    "FittedLaw",
    "Law",
    "LayerVerdict",
    "Ledger",
    "LossLaw",
    "Observation",
    "Optimum",
    "ParameterGroups",
    "RateBound",
    "Recommendation",
    "RichnessAdvice",
    "RichnessSweep",
    "RouteFit",
    "Run",
    "ScaleResult",
    "ScalingPlan",
    "ScorePlan",
    "Slope",
    "TransferCheck",
    "WeightPlan",
    "abc",
    "classify",
    "compare_laws",
    "coordinate_check",
    "diagnose_regime",
    "doubling",
    "family_of",
    "fit_exponent",
    "fit_law",
    "fit_loss_law",
    "fit_slope",
    "law",
    "mode_time",
    "named_abc",
    "parametrize",
    "parametrize_traced",
    "recommend",
    "richness_advice",
    "richness_law",
    "richness_sweep",
    "scale",
    "setting_key",
    "toy_critical_rate",
    "toy_descent",
    "toy_flow_time",
    "transfer_check",
    "unbalance",
]
