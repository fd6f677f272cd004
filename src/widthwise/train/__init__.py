"""Training: one loop, with checkpoints, resume, callbacks and evaluation."""

from widthwise.train._evaluate import evaluate, squared_error
from widthwise.train._fit import fit
from widthwise.train._optimizers import stable_learning_rate
from widthwise.train._types import (
    Callback,
    CheckpointError,
    Evaluation,
    TrainingHistory,
    TrainingRun,
    TrainingState,
)

__all__ = [
    "Callback",
    "CheckpointError",
    "Evaluation",
    "TrainingHistory",
    "TrainingRun",
    "TrainingState",
    "evaluate",
    "fit",
    "squared_error",
    "stable_learning_rate",
]
