"""Scaling: parametrisations that hold at every width, and the checks that prove it."""

from widthwise.scaling._abc import AbcReport, AbcTable, abc, classify, named_abc
from widthwise.scaling._coordinate_check import CoordinateCheck, coordinate_check
from widthwise.scaling._diagnosis import LayerVerdict, Observation
from widthwise.scaling._families import FAMILIES, family_of
from widthwise.scaling._optimum import Drift, Optimum
from widthwise.scaling._parametrize import parametrize
from widthwise.scaling._plan import ParameterGroups, ScalingPlan, ScorePlan, WeightPlan
from widthwise.scaling._slopes import Slope, fit_slope
from widthwise.scaling._transfer_check import TransferCheck, transfer_check

__all__ = [
    "FAMILIES",
    "AbcReport",
    "AbcTable",
    "CoordinateCheck",
    "Drift",
    "LayerVerdict",
    "Observation",
    "Optimum",
    "ParameterGroups",
    "ScalingPlan",
    "ScorePlan",
    "Slope",
    "TransferCheck",
    "WeightPlan",
    "abc",
    "classify",
    "coordinate_check",
    "family_of",
    "fit_slope",
    "named_abc",
    "parametrize",
    "transfer_check",
]
