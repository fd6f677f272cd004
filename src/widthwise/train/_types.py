"""What training takes and gives: evaluations, history, the run, callbacks."""

from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.optim import Optimizer

from widthwise.core import Axis, Figure, Line, Value, WidthwiseError


class CheckpointError(WidthwiseError):
    """A checkpoint is damaged, or belongs to another run."""


@dataclass(frozen=True)
class Evaluation(Value):
    """How a network does on a data set, in evaluation mode.

    Attributes:
        mse: mean over examples of the squared error summed over outputs, against `DataSet.encoded` targets.
        accuracy: share of examples classified right; None for regression.
        loss: mean over examples of the loss that was asked for.
    """

    mse: float
    accuracy: float | None
    loss: float


@dataclass(frozen=True)
class TrainingHistory(Value):
    """Evaluations over training, in the order in which they were made.

    Attributes:
        step: number of optimiser steps done; 0 is before the first.
        train_loss, train_mse, train_accuracy: on the training set (NaN: no accuracy).
        test_loss, test_mse, test_accuracy: on the held-out set (NaN: there is none).
    """

    step: Int[Tensor, "evaluations"]
    train_loss: Float[Tensor, "evaluations"]
    train_mse: Float[Tensor, "evaluations"]
    train_accuracy: Float[Tensor, "evaluations"]
    test_loss: Float[Tensor, "evaluations"]
    test_mse: Float[Tensor, "evaluations"]
    test_accuracy: Float[Tensor, "evaluations"]


@dataclass(frozen=True)
class TrainingRun(Value):
    """The result of `fit`; the trained weights are in the module that was given.

    Attributes:
        history: evaluations at log-spaced steps, the last one included.
        train, test: the last evaluation (test: None without a held-out set).
        steps: optimiser steps done, over all sessions of a resumed run.
        lr: learning rate given to the optimiser, computed where ``lr="auto"``; None if every group has its own.
        stopped: why it ended: ``"steps"`` (all done), ``"train-loss"``, ``"callback"`` or ``"diverged"``.
        seconds: wall-clock time of training and evaluation, over all sessions.
        resumed_from: step of the checkpoint from which this session started; 0 if it started afresh.
    """

    history: TrainingHistory
    train: Evaluation
    test: Evaluation | None
    steps: int
    lr: float | None
    stopped: str
    seconds: float
    resumed_from: int = 0

    @property
    def diverged(self) -> bool:
        """Whether a loss that is not finite ended the run."""
        return self.stopped == "diverged"

    def to_dict(self) -> dict[str, Any]:
        """Plain form, with `diverged`."""
        return {**super().to_dict(), "diverged": self.diverged}

    def plot(self) -> Figure:
        """Training and held-out error against steps, with logarithmic axes."""
        history = self.history
        steps = tuple(float(step) for step in history.step.clamp_min(1))
        columns = (("training set", history.train_mse), ("held-out set", history.test_mse))
        lines = tuple(
            Line(name, steps, tuple(values.tolist()), slot=slot)
            for slot, (name, values) in enumerate(columns)
            if not bool(values.isnan().all())
        )
        return Figure("Training", Axis("steps", "log"), Axis("MSE, summed over outputs", "log"), lines)


@dataclass
class TrainingState:
    """What a callback sees; it may change the module's and the optimiser's tensors in place, and set `stop`.

    Attributes:
        module, optimizer: the live objects.
        step: optimiser steps done.
        loss: loss of the last batch, before its step; NaN before the first.
        train, test: the latest evaluation, if any.
        stop: set to True to end the run after this call.
    """

    module: nn.Module
    optimizer: Optimizer
    step: int = 0
    loss: float = float("nan")
    train: Evaluation | None = None
    test: Evaluation | None = None
    stop: bool = False
    reason: str = field(default="", repr=False)


class Callback:
    """Base of callbacks: override what is wanted.

    A callback with memory of its own gives it as JSON types in `state_dict` and takes it back in `load_state_dict`,
    so that a resumed run equals an uninterrupted one.

    >>> class StopAt(Callback):
    ...     def on_step_end(self, state: TrainingState) -> None:
    ...         state.stop = state.step >= 10
    """

    def on_step_end(self, state: TrainingState) -> None:
        """Called after each optimiser step."""

    def on_evaluate(self, state: TrainingState) -> None:
        """Called after each evaluation, with ``state.train`` and ``state.test`` fresh."""

    def state_dict(self) -> dict[str, Any]:
        """Own memory as JSON types, written to each checkpoint."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
