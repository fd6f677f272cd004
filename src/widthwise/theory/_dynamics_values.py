"""Results of training-time theory."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from widthwise.core import Axis, DataError, Figure, Line, Value
from widthwise.theory._arrays import as_array


@dataclass(frozen=True, eq=False)
class Trajectory(Value):
    """Outputs of a linearised network while it trains.

    Attributes:
        clock: ``"time"`` of gradient flow or ``"step"`` of gradient descent.
        times: ``[times]``, in that unit; may hold infinity.
        train: ``[times, n, outputs]`` outputs on the training inputs.
        test: ``[times, m, outputs]`` outputs on the test inputs, None without them.
        targets: ``[n, outputs]``.
    """

    clock: str
    times: Float[np.ndarray, "times"]
    train: Float[np.ndarray, "times n outputs"] = field(repr=False, metadata={"plain": False})
    test: Float[np.ndarray, "times m outputs"] | None = field(repr=False, metadata={"plain": False})
    targets: Float[np.ndarray, "n outputs"] = field(repr=False, metadata={"plain": False})

    @property
    def train_error(self) -> Float[np.ndarray, "times"]:
        """Mean over the training set of the squared error summed over outputs."""
        return _error(self.train, self.targets)

    def test_error(self, targets: Any) -> Float[np.ndarray, "times"]:
        """Mean over the test set of the squared error summed over outputs.

        Raises:
            DataError: there are no test outputs, or the targets do not fit them.
        """
        outputs, targets = self._tested(), columns(targets)
        if targets.shape != outputs.shape[1:]:
            raise DataError(
                f"test targets of shape {list(targets.shape)} do not fit outputs {list(outputs.shape[1:])}."
            )
        return _error(outputs, targets)

    def train_accuracy(self, labels: Any) -> Float[np.ndarray, "times"]:
        """Share of training examples whose largest output is their class (one output: whose sign is; labels 0, 1)."""
        return _accuracy(self.train, as_array(labels))

    def test_accuracy(self, labels: Any) -> Float[np.ndarray, "times"]:
        """The same on the test inputs."""
        return _accuracy(self._tested(), as_array(labels))

    def plot(self, test_targets: Any = None) -> Figure:
        """Errors against time."""
        shown = np.isfinite(self.times) & (self.times > 0)
        at = tuple(self.times[shown].tolist())
        lines = [Line("training set", at, tuple(self.train_error[shown].tolist()))]
        if test_targets is not None:
            lines.append(Line("test set", at, tuple(self.test_error(test_targets)[shown].tolist()), 1))
        caption = "Predicted squared error of the linearised network, summed over outputs, while it trains."
        return Figure("Training curve", Axis(self.clock, "log"), Axis("squared error", "log"), tuple(lines), caption)

    def _tested(self) -> Float[np.ndarray, "times m outputs"]:
        if self.test is None:
            raise DataError("there are no test outputs; give the test-train kernel when the dynamics are made.")
        return self.test


@dataclass(frozen=True, eq=False)
class Ensemble(Value):
    """Mean and covariance of trained networks over random initialisations (arXiv:1902.06720, equations 14 and 15).

    Attributes:
        clock, times: as in `Trajectory`.
        mean: ``[times, m, outputs]``.
        covariance: ``[times, m, m]`` of each output; outputs are independent. It is no posterior covariance, and can
            exceed the prior's in places.
    """

    clock: str
    times: Float[np.ndarray, "times"]
    mean: Float[np.ndarray, "times m outputs"]
    covariance: Float[np.ndarray, "times m m"]

    @property
    def variance(self) -> Float[np.ndarray, "times m"]:
        """Diagonal of the covariance."""
        return np.diagonal(self.covariance, axis1=1, axis2=2).copy()

    def expected_error(self, targets: Any) -> Float[np.ndarray, "times"]:
        """Mean over inputs of the expected squared error of one network, summed over outputs: bias and variance."""
        targets = columns(targets)
        return _error(self.mean, targets) + targets.shape[1] * self.variance.mean(1)


def columns(values: Any) -> Float[np.ndarray, "n outputs"]:
    """Targets or outputs as columns."""
    array = as_array(values)
    return array[:, None] if array.ndim == 1 else array


def _error(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # training that diverges
        return np.square(outputs - targets).sum(2).mean(1)


def _accuracy(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    if labels.shape != outputs.shape[1:2]:
        raise DataError(f"labels of shape {list(labels.shape)} do not fit {outputs.shape[1]} outputs; give one each.")
    guesses = outputs.argmax(2) if outputs.shape[2] > 1 else outputs[:, :, 0] > 0
    return np.asarray((guesses == labels).mean(1), dtype=float)
