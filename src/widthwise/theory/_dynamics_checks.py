"""What the predictions of training are given, checked once."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from widthwise.core import DataError
from widthwise.theory._arrays import as_array
from widthwise.theory._dynamics_values import columns

Times = float | int | Sequence | np.ndarray


def precision_of(gram: Any) -> float:
    """Rounding unit of the type that a Gram matrix, or what multiplies like one, was given in."""
    dtype = getattr(gram, "dtype", None)
    if isinstance(dtype, torch.dtype):
        return torch.finfo(dtype).eps if dtype.is_floating_point else torch.finfo(torch.float64).eps
    given = np.dtype(np.float64 if dtype is None else dtype)
    return float(np.finfo(given if given.kind == "f" else np.float64).eps)


def checked_outputs(values: Any, shape: tuple[int, ...], name: str) -> np.ndarray:
    if values is None:
        return np.zeros(shape)
    array = columns(values)
    if array.shape != shape or not np.isfinite(array).all():
        raise DataError(f"{name} has shape {list(array.shape)}; give finite outputs of shape {list(shape)}.")
    return array


def checked_kernel(values: Any, shape: tuple[int, int], name: str) -> np.ndarray:
    if values is None:
        raise DataError(f"{name} is missing; the covariance over initialisations needs the NNGP kernel {list(shape)}.")
    array = as_array(values)
    if array.shape != shape or not np.isfinite(array).all():
        raise DataError(f"{name} has shape {list(array.shape)}; give a finite matrix of shape {list(shape)}.")
    return array


def checked_times(times: Times, *, whole: bool = False, finite: bool = False) -> Float[np.ndarray, "times"]:
    array = np.atleast_1d(np.asarray(times, dtype=float)).ravel()
    bad = ~(array >= 0) | (finite & ~np.isfinite(array))
    if whole:
        bad |= np.isfinite(array) & (array != np.round(array))
    if bad.any():
        kind = "whole numbers of steps" if whole else "times"
        limit = ", finite" if finite else ""
        raise DataError(f"{array[bad][0]:g} is no time to predict for; give {kind} of 0 or more{limit}.")
    return array
