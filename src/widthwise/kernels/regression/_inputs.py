"""What the user hands in as kernel and as inputs."""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from widthwise.core import DataError, all_finite, seeded
from widthwise.kernels._limit import Limit, Parametrization
from widthwise.kernels.regression._gram import ArrayGram, Gram, KernelGram, StoreGram, dense
from widthwise.kernels.store import GramStore, as_source
from widthwise.kernels.store._source import FunctionSource, KernelSource, LimitSource, limit_of
from widthwise.nn import MODELS, build_model

PRECOMPUTED = "precomputed"


def is_precomputed(kernel: Any) -> bool:
    """Whether inputs are kernel values themselves."""
    return isinstance(kernel, GramStore) or (isinstance(kernel, str) and kernel == PRECOMPUTED)


def source_of(kernel: Any, x: Any, kind: str, dtype: torch.dtype, parametrization: Parametrization) -> KernelSource:
    """The kernel as a source of blocks.

    Raises:
        DataError: it is none, or a name that is not known.
        UnsupportedOperation, TraceError: the module has no infinite-width kernel.
    """
    if isinstance(kernel, str):
        if kernel not in MODELS:
            raise DataError(
                f"kernel {kernel!r} is not known; give one of {', '.join(MODELS)}, 'precomputed', a torch.nn.Module, a "
                "Limit, a Gram store or a function (x1, x2)."
            )
        return LimitSource(_built_in(kernel, tuple(x.shape[1:]), parametrization), (kind,), dtype)
    if isinstance(kernel, nn.Module):
        return LimitSource(limit_of(kernel, x, parametrization), (kind,), dtype)
    if isinstance(kernel, Limit) and kernel.parametrization != parametrization and parametrization != "ntk":
        raise DataError(
            f"the limit has parametrization {kernel.parametrization!r} and {parametrization!r} was asked for; "
            "leave it out."
        )
    return as_source(kernel, x, (kind,), dtype)


@lru_cache(maxsize=16)
def _built_in(name: str, shape: tuple[int, ...], parametrization: Parametrization) -> Limit:
    """The limit of a built-in model; its width and number of outputs do not matter."""
    with seeded(0, "kernel", name):
        module = build_model(name, shape, 2, 16)
    return limit_of(module, torch.zeros(2, *shape), parametrization)


def training_gram(kernel: Any, x: Any, source: KernelSource | None, dtype: np.dtype, keep: bool, show: bool) -> Gram:
    """The Gram matrix of the training inputs; `keep`: in memory, where it is computed from a kernel."""
    if source is None:
        given = kernel if isinstance(kernel, GramStore) else x
        if isinstance(given, GramStore):
            if given.shape[0] != given.shape[1]:
                raise DataError(f"{given.path} has shape {list(given.shape)}; give a square Gram matrix to fit to.")
            return StoreGram(given)
        matrix = np.asarray(given)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise DataError(
                f"a precomputed kernel of shape {list(matrix.shape)} was given; give a square matrix to fit."
            )
        _check_symmetric(matrix)
        return ArrayGram(matrix if matrix.dtype == dtype else matrix.astype(dtype))
    computed = KernelGram(source, x, show_progress=show)
    return ArrayGram(dense(computed, computed.dtype)) if keep else computed


def _check_symmetric(matrix: np.ndarray) -> None:
    """Some entries against their mirror images (all of them, where there are few)."""
    n = len(matrix)
    picked = np.unique(np.linspace(0, n - 1, min(n, 500)).astype(int))
    part = np.asarray(matrix[np.ix_(picked, picked)], dtype=np.float64)
    rough = 1e-3 if matrix.dtype.itemsize < 8 else 1e-6
    if not np.allclose(part, part.T, rtol=rough, atol=rough * np.abs(part).max(initial=0.0)):
        raise DataError("the precomputed kernel is not symmetric; give k(x_i, x_j) for all pairs of training inputs.")


def check_finite(x: Any, what: str) -> None:
    """Refuse tensors with entries that are not finite."""
    if isinstance(x, Tensor) and not all_finite(x):
        raise DataError(f"{what} holds values that are not finite; remove or replace them.")


__all__ = ["FunctionSource", "check_finite", "is_precomputed", "source_of", "training_gram"]
