"""Conjugate gradients on several targets at once, with a preconditioner, interrupted and resumed."""

import hashlib
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from widthwise.core import Value, atomic_path, progress
from widthwise.kernels.regression._cholesky import indefinite
from widthwise.kernels.regression._gram import Gram, exact_product

_RESTARTS = 5
Vectors = Float[np.ndarray, "n k"]


@dataclass(frozen=True, eq=False)
class Iterated(Value):
    """What the iteration came to.

    Attributes:
        solution: ``[n, k]``.
        residual: ``|y - (K + ridge I) a| / |y|``, computed anew from the solution, the worst column.
        iterations: products with K, those of earlier, interrupted calls included.
        converged: whether the residual is at most the tolerance.
    """

    solution: Vectors
    residual: float
    iterations: int
    converged: bool


@dataclass
class _State:
    """What an interrupted iteration needs to go on."""

    x: np.ndarray
    r: np.ndarray
    p: np.ndarray
    rz: np.ndarray
    iterations: int


class Checkpoint:
    """The state of the iteration in a file (NumPy's .npz), under a hash of the problem that it belongs to."""

    def __init__(self, path: str | Path | None, key: str, every: float = 20.0) -> None:
        self.path = None if path is None else Path(path)
        self.key = key
        self.every = every
        self.saved = time.monotonic()

    def load(self) -> _State | None:
        """The state, if the file is there, whole, and of the same problem."""
        if self.path is None or not self.path.is_file():
            return None
        try:
            with np.load(self.path, allow_pickle=False) as file:
                if str(file["key"]) != self.key:
                    return None
                return _State(file["x"], file["r"], file["p"], file["rz"], int(file["iterations"]))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            return None

    def save(self, state: _State, *, now: bool = False) -> None:
        """Write the state if it is time to."""
        if self.path is None or not (now or time.monotonic() - self.saved > self.every):
            return
        with atomic_path(self.path) as temporary, temporary.open("wb") as file:
            np.savez(file, key=self.key, **vars(state))
        self.saved = time.monotonic()

    def discard(self) -> None:
        """Remove the file: the work is done."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def problem_key(*parts: object) -> str:
    """A hash of arrays and plain values."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(np.ascontiguousarray(part).tobytes() if isinstance(part, np.ndarray) else repr(part).encode())
    return digest.hexdigest()


def conjugate_gradients(
    gram: Gram,
    targets: Vectors,
    ridge: float,
    precondition: Callable[[np.ndarray], np.ndarray],
    *,
    tol: float,
    max_iter: int,
    checkpoint: Checkpoint | None = None,
    show: bool = False,
) -> Iterated:
    """Solve ``(K + ridge I) a = y`` for each column of y; columns share the products with K.

    The recursion's residual drifts from the true one, more so where K is float32: the true one is computed at the
    end, in float64, and the iteration starts again from it until it meets the tolerance or no longer falls. An
    interrupted call keeps its state in `checkpoint` and goes on from there.
    """
    checkpoint = checkpoint or Checkpoint(None, "")
    size = np.maximum(np.linalg.norm(targets, axis=0), np.finfo(float).tiny)
    state = checkpoint.load() or _begin(np.zeros_like(targets), targets.copy(), precondition, 0)
    worst = float("inf")
    with progress("conjugate gradients", max_iter, show=show) as advance:
        advance(state.iterations)
        for _ in range(_RESTARTS):
            _iterate(gram, state, ridge, precondition, tol * size, max_iter, checkpoint, advance)
            residual = targets - exact_product(gram, state.x) - ridge * state.x
            before, worst = worst, float((np.linalg.norm(residual, axis=0) / size).max())
            if worst <= tol or worst > 0.5 * before or state.iterations >= max_iter:
                break
            state = _begin(state.x, residual, precondition, state.iterations)
    if worst <= tol:
        checkpoint.discard()
    else:
        checkpoint.save(state, now=True)
    return Iterated(state.x, worst, state.iterations, worst <= tol)


def _begin(x: np.ndarray, r: np.ndarray, precondition: Callable, iterations: int) -> _State:
    z = precondition(r)
    return _State(x, r, z, (r * z).sum(0), iterations)


def _iterate(
    gram: Gram,
    state: _State,
    ridge: float,
    precondition: Callable[[np.ndarray], np.ndarray],
    goal: np.ndarray,
    max_iter: int,
    checkpoint: Checkpoint,
    advance: Callable[[float], None],
) -> None:
    """Steps until every column's recursive residual is at its goal; the state is whole between steps.

    Raises:
        NotPositiveDefinite: a direction of negative curvature was met, beyond rounding.
    """
    noise = float(np.finfo(gram.dtype).eps) * float(np.abs(gram.diagonal()).sum())
    try:
        while state.iterations < max_iter:
            open_columns = np.linalg.norm(state.r, axis=0) > 0.5 * goal
            if not open_columns.any():
                return
            p = state.p[:, open_columns]
            product = gram.matmat(p) + ridge * p
            curvature = (p * product).sum(0)
            if (curvature < -noise * (p * p).sum(0)).any():
                raise indefinite(gram, ridge)
            step = np.where(curvature > 0, state.rz[open_columns] / np.where(curvature > 0, curvature, 1.0), 0.0)
            if not step.any():
                return
            x, r = state.x.copy(), state.r.copy()
            x[:, open_columns] += step * p
            r[:, open_columns] -= step * product
            z = precondition(r[:, open_columns])
            rz = (r[:, open_columns] * z).sum(0)
            directions, products = state.p.copy(), state.rz.copy()
            directions[:, open_columns] = z + (rz / np.maximum(state.rz[open_columns], np.finfo(float).tiny)) * p
            products[open_columns] = rz
            state.x, state.r, state.p, state.rz = x, r, directions, products
            state.iterations += 1
            advance(1)
            checkpoint.save(state)
    except KeyboardInterrupt:
        checkpoint.save(state, now=True)
        raise
