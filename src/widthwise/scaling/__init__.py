"""Scaling: parametrisations that hold at every width, and the checks that prove it."""

from widthwise.scaling._abc import AbcReport, AbcTable, abc, classify, named_abc
from widthwise.scaling._families import FAMILIES, family_of
from widthwise.scaling._parametrize import parametrize
from widthwise.scaling._plan import ParameterGroups, ScalingPlan, ScorePlan, WeightPlan

__all__ = [
    "FAMILIES",
    "AbcReport",
    "AbcTable",
    "ParameterGroups",
    "ScalingPlan",
    "ScorePlan",
    "WeightPlan",
    "abc",
    "classify",
    "family_of",
    "named_abc",
    "parametrize",
]
