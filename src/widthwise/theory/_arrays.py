"""Arrays as they come in: checked once, at the door."""

from typing import Any

import numpy as np
import torch

from widthwise.core import DataError


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
