"""What every input brings along: its data, and the variances of its fields in the form that the engine reads."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from widthwise.kernels._fields import Field, Normalised
from widthwise.kernels._structure import norm_scale
from widthwise.kernels.engines._plan import Feature, Plan

if TYPE_CHECKING:
    from widthwise.kernels._evaluator import Evaluator


def features(plan: Plan, run: "Evaluator") -> np.ndarray:
    """The features of the inputs of one side, ``[n, places]``, in the dtype of the evaluator.

    Args:
        run: an evaluator whose two sides are these inputs.
    """
    columns = [_feature(feature, run) for feature in plan.features]
    if not columns:
        return np.zeros((run.count(0), 1))
    return torch.cat(columns, 1).contiguous().numpy()


def _feature(feature: Feature, run: "Evaluator") -> Tensor:
    """One feature, ``[n, places]``."""
    if feature.kind == "raw":
        assert isinstance(feature.source, str)
        return run.data[0][feature.source].to(run.dtype).flatten(1)
    source = feature.source
    assert isinstance(source, Field)
    if isinstance(source, Normalised):
        scale = norm_scale(run, source, 0).reshape(run.count(0), -1)
        return scale.expand(run.count(0), feature.places)
    return transformed(feature, run.variance(source, 0).reshape(run.count(0), -1))


def transformed(feature: Feature, variance: Tensor) -> Tensor:
    """A variance in the form that a row function reads."""
    if feature.kind == "variance":
        return variance
    if feature.kind == "std":
        return variance.clamp(min=0).sqrt()
    if feature.kind == "inverse_std":
        return torch.where(variance > 0, variance.clamp(min=0).rsqrt(), 0.0)
    if feature.kind == "half":
        return 0.5 * feature.rate * variance
    return (1 + (2 if feature.kind == "erf" else 1) * variance).rsqrt()


def has_zero_variance(plan: Plan, found: np.ndarray) -> bool:
    """Whether some input has a field without variance in front of an activation with a kink."""
    cuts = [slice(feature.at, feature.at + feature.places) for feature in plan.features if feature.kind == "std"]
    return any(bool((found[:, cut] == 0).any()) for cut in cuts)
