"""The main job: puts the parts together into one forecast."""

from widthwise.forecast._forecast import run_forecast
from widthwise.forecast._model import ModelSource, resolve_model
from widthwise.forecast._stages import discard_stages
from widthwise.forecast._types import (
    Criticality,
    DepthScales,
    Forecast,
    LearningPoint,
    NetworkSection,
    OverfittingSection,
    RuleRow,
    TaskSection,
    TrainingRow,
    WeightRow,
    WidthPoint,
    WidthSurface,
)
from widthwise.forecast._types_theory import AdviceRow, DynamicsSection, FluctuationsSection, ScalingRow

__all__ = [
    "AdviceRow",
    "Criticality",
    "DepthScales",
    "DynamicsSection",
    "FluctuationsSection",
    "Forecast",
    "LearningPoint",
    "ModelSource",
    "NetworkSection",
    "OverfittingSection",
    "RuleRow",
    "ScalingRow",
    "TaskSection",
    "TrainingRow",
    "WeightRow",
    "WidthPoint",
    "WidthSurface",
    "discard_stages",
    "resolve_model",
    "run_forecast",
]
