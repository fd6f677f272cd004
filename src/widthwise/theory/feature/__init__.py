"""Feature-learning limits of infinitely wide networks, trained exactly or by sampling (arXiv:2011.14522)."""

from widthwise.theory.feature._abc_network import AbcNetwork
from widthwise.theory.feature._errors import FeatureLimitError
from widthwise.theory.feature._limit import Estimate, FeatureLimit, feature_limit
from widthwise.theory.feature._linear import LinearLimit, LinearNetwork
from widthwise.theory.feature._training import Descent, descend

__all__ = [
    "AbcNetwork",
    "Descent",
    "Estimate",
    "FeatureLimit",
    "FeatureLimitError",
    "LinearLimit",
    "LinearNetwork",
    "descend",
    "feature_limit",
]
