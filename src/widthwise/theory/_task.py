"""A task measured on a sample: the user's door to learning curves."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from widthwise.core import DataError
from widthwise.theory._risk import Risk, risk
from widthwise.theory._sample import SampleSpectrum, measure_knots
from widthwise.theory._spectrum import Numbers


@dataclass(frozen=True, eq=False)
class TaskSpectrum:
    """A kernel and a set of targets as the eigenframework sees them, measured on P samples. Make it with `fit`.

    Attributes:
        samples, outputs: P and the number of outputs.
        spectrum: the four sums as functions of the effective ridge.
        eigenvalues: ``[samples]`` of ``K / P``, largest first; empirical, so only the first half is resolved.
        coefficients: ``[samples]`` power of the targets in each empirical mode, summed over outputs.
        labels: class of each sample, or None.
        frequencies: class frequencies that were subtracted from the one-hot targets, or zeros.
        jitter: ridge that was added to the Gram matrix for stability.
    """

    samples: int
    outputs: int
    spectrum: SampleSpectrum = field(repr=False)
    eigenvalues: Float[np.ndarray, "samples"] = field(repr=False)
    labels: np.ndarray | None = field(repr=False)
    frequencies: Float[np.ndarray, "outputs"] = field(repr=False)
    jitter: float = 0.0

    @classmethod
    def fit(cls, gram: Any, targets: Any, *, labels: Any = None, frequencies: Any = None) -> "TaskSpectrum":
        """Measure a task on its Gram matrix.

        Args:
            gram: ``[P, P]`` kernel matrix of the samples (array or tensor).
            targets: ``[P]`` or ``[P, outputs]``; for classification, one-hot rows minus the class frequencies.
            labels: ``[P]`` class indices, to predict accuracy as well.
            frequencies: ``[outputs]`` what was subtracted from the one-hot rows; they are added back before arg max.

        Raises:
            DataError: shapes do not match, a value is not finite, or the matrix is not symmetric.
        """
        gram, targets, labels, frequencies = check_inputs(gram, targets, labels, frequencies)
        knots, values = measure_knots(gram, targets)
        spectrum = SampleSpectrum(knots, 0.7, 0.2)
        return cls(len(gram), targets.shape[1], spectrum, values / len(gram), labels, frequencies, knots.jitter)

    def risk(
        self,
        n: Numbers,
        ridge: Numbers | str = 0.0,
        width: Numbers | None = None,
        noise: Numbers = 0.0,
    ) -> Risk:
        """Predicted errors at `n` samples, any ridge (number, ``"zero"`` or ``"optimal"``), width and added noise."""
        return risk(self.spectrum, n, ridge, width, noise)


def check_inputs(gram: Any, targets: Any, labels: Any, frequencies: Any) -> tuple[Any, Any, Any, Any]:
    """Float64 arrays of matching shapes, the Gram matrix exactly symmetric.

    Raises:
        DataError: see `TaskSpectrum.fit`.
    """
    gram, targets = as_array(gram), as_array(targets)
    targets = targets[:, None] if targets.ndim == 1 else targets
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or len(gram) < 2:
        raise DataError(f"the Gram matrix has shape {list(gram.shape)}; give a square one of at least two samples.")
    if targets.ndim != 2 or len(targets) != len(gram):
        raise DataError(
            f"targets of shape {list(targets.shape)} do not fit a Gram matrix of {len(gram)} samples; "
            "give one row per sample."
        )
    for name, array in (("Gram matrix", gram), ("targets", targets)):
        if not np.isfinite(array).all():
            place = [int(axis[0]) for axis in np.nonzero(~np.isfinite(array))]
            raise DataError(f"the {name} is {array[tuple(place)]} at {place}; remove or mend that sample.")
    skew = np.abs(gram - gram.T).max()
    if skew > 1e-4 * np.abs(gram).max():
        raise DataError(
            f"the Gram matrix is not symmetric: entries differ by up to {skew:.3g} from their mirror images; "
            "give the kernel of the samples with themselves."
        )
    if labels is not None:
        labels = as_array(labels).astype(int)
        if labels.shape != (len(gram),) or labels.min() < 0 or labels.max() >= targets.shape[1]:
            raise DataError(
                f"labels of shape {list(labels.shape)} do not index {targets.shape[1]} outputs of {len(gram)} samples; "
                "give one class index per sample."
            )
    frequencies = np.zeros(targets.shape[1]) if frequencies is None else as_array(frequencies)
    if frequencies.shape != (targets.shape[1],):
        raise DataError(f"{frequencies.size} frequencies do not fit {targets.shape[1]} outputs; give one per output.")
    return (gram + gram.T) / 2, targets, labels, frequencies


def as_array(values: Any) -> np.ndarray:
    """A float64 NumPy array of a tensor or array."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)
