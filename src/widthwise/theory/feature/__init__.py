"""Feature-learning limits of infinitely wide networks, trained exactly or by sampling (arXiv:2011.14522)."""

from widthwise.theory.feature._abc_network import AbcNetwork
from widthwise.theory.feature._episodes import Episodes, draw_episodes
from widthwise.theory.feature._errors import FeatureLimitError
from widthwise.theory.feature._kernel_learner import KernelLearner, linear_kernel, relu_kernels
from widthwise.theory.feature._limit import Estimate, FeatureLimit, feature_limit
from widthwise.theory.feature._linear import LinearLimit, LinearNetwork
from widthwise.theory.feature._meta import (
    GradientLearner,
    MetaAccuracy,
    MetaLearner,
    MetaTraining,
    meta_test,
    meta_train,
)
from widthwise.theory.feature._training import Descent, descend
from widthwise.theory.feature._word_vectors import WordVectors, vocabulary, word2vec

__all__ = [
    "AbcNetwork",
    "Descent",
    "Episodes",
    "Estimate",
    "FeatureLimit",
    "FeatureLimitError",
    "GradientLearner",
    "KernelLearner",
    "LinearLimit",
    "LinearNetwork",
    "MetaAccuracy",
    "MetaLearner",
    "MetaTraining",
    "WordVectors",
    "descend",
    "draw_episodes",
    "feature_limit",
    "linear_kernel",
    "meta_test",
    "meta_train",
    "relu_kernels",
    "vocabulary",
    "word2vec",
]
