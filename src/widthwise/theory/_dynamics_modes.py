"""Functions of the tangent kernel applied to vectors: by eigenvectors, or by Lanczos iteration where it is large."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from widthwise.core import DataError

Multiply = Callable[[np.ndarray], np.ndarray]
Factors = Callable[[np.ndarray], np.ndarray]
"""From eigenvalues ``[modes]`` to factors ``[times, modes]``."""


_DOUBLE = float(np.finfo(np.float64).eps)


def refuse_negative(values: Float[np.ndarray, "modes"], n: int, eps: float) -> None:
    """Refuse eigenvalues, in ascending order, that no kernel matrix of `n` samples has.

    Raises:
        DataError: one is below zero by more than ``100 sqrt(n) eps`` of the largest magnitude.
    """
    smallest, largest = float(values[0]), float(np.abs(values).max())
    if smallest < -100 * n**0.5 * eps * largest:
        raise DataError(
            f"the Gram matrix has eigenvalue {smallest:.3g} (the largest is {values[-1]:.3g}), so it is no kernel of "
            f"samples and training on it would diverge; give jitter={-1.1 * smallest:.2g} or more, or mend the kernel."
        )


@dataclass(frozen=True, eq=False)
class EigenModes:
    """One eigendecomposition, used for every time.

    Attributes:
        values: ``[n]`` in ascending order; those below the cut-off are zero.
        vectors: ``[n, n]``, columns.
        columns: ``[n, k]`` what functions of the matrix are applied to.
    """

    values: Float[np.ndarray, "n"]
    vectors: Float[np.ndarray, "n n"]
    columns: Float[np.ndarray, "n k"]

    @classmethod
    def of(
        cls,
        gram: Float[np.ndarray, "n n"],
        columns: Float[np.ndarray, "n k"],
        cutoff: float,
        eps: float = _DOUBLE,
    ) -> "EigenModes":
        """Decompose; eigenvalues below `cutoff` times the largest count as zero; `eps` is the matrix's rounding unit.

        Raises:
            DataError: an eigenvalue is negative beyond rounding.
        """
        values, vectors = np.linalg.eigh(gram)
        refuse_negative(values, len(gram), eps)
        values = np.where(values > cutoff * max(float(values[-1]), 0.0), values, 0.0)
        return cls(values, vectors, columns)

    @property
    def largest(self) -> float:
        """Largest eigenvalue."""
        return float(self.values[-1])

    @property
    def smallest(self) -> float:
        """Smallest eigenvalue that counts as positive."""
        return float(self.values[self.values > 0].min(initial=np.inf))

    def apply(self, factors: Factors) -> Float[np.ndarray, "times n columns"]:
        """``factors(T) columns``."""
        part = self.vectors.T @ self.columns
        return self.vectors @ (factors(self.values)[:, :, None] * part)

    def matrices(self, factors: Factors) -> Float[np.ndarray, "times n n"]:
        """``factors(T)`` itself."""
        return (self.vectors * factors(self.values)[:, None, :]) @ self.vectors.T


@dataclass(frozen=True, eq=False)
class LanczosModes:
    """A Krylov space per column, in which functions of the matrix are taken.

    Attributes:
        values: per column, Ritz values.
        parts: per column, ``[n, steps]`` Ritz vectors, and the column's coefficients in them ``[steps]``.
    """

    values: tuple[np.ndarray, ...]
    parts: tuple[tuple[np.ndarray, np.ndarray], ...]

    @classmethod
    def of(
        cls,
        multiply: Multiply,
        columns: Float[np.ndarray, "n k"],
        iterations: int,
        cutoff: float,
        eps: float = _DOUBLE,
    ) -> "LanczosModes":
        """Build the spaces with `iterations` products per column, each orthogonalised against all before it.

        Raises:
            DataError: a Ritz value, and so an eigenvalue, is negative beyond rounding.
        """
        values, parts = [], []
        for column in columns.T:
            basis, diagonal, beside = lanczos(multiply, column, iterations)
            small = np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
            found, vectors = np.linalg.eigh(small)
            refuse_negative(found, len(column), eps)
            values.append(np.where(found > cutoff * max(float(found[-1]), 0.0), found, 0.0))
            parts.append((basis @ vectors, vectors[0] * np.linalg.norm(column)))
        return cls(tuple(values), tuple(parts))

    @property
    def largest(self) -> float:
        """Largest Ritz value."""
        return float(max(part[-1] for part in self.values))

    @property
    def smallest(self) -> float:
        """Smallest Ritz value that counts as positive."""
        return float(min(part[part > 0].min(initial=np.inf) for part in self.values))

    def apply(self, factors: Factors) -> Float[np.ndarray, "times n columns"]:
        """``factors(T) columns``, as good as the Krylov spaces are."""
        rows = [
            (factors(values) * weights) @ vectors.T
            for values, (vectors, weights) in zip(self.values, self.parts, strict=True)
        ]
        return np.stack(rows, 2)


Modes = EigenModes | LanczosModes


def lanczos(multiply: Multiply, start: Float[np.ndarray, "n"], iterations: int) -> tuple[np.ndarray, ...]:
    """Orthonormal basis ``[n, k]`` of the Krylov space, and the tridiagonal matrix in it (diagonal, beside it).

    Ends early where the space is closed.

    Raises:
        DataError: the start is zero or a product is not finite.
    """
    size = float(np.linalg.norm(start))
    if not 0 < size < np.inf:
        raise DataError(
            f"the start of the Lanczos iteration has norm {size}; give targets that differ from the outputs."
        )
    basis, diagonal, beside = [start / size], [], []
    scale = 0.0
    for _ in range(min(iterations, len(start))):
        product = np.asarray(multiply(basis[-1]), dtype=float).reshape(-1)
        diagonal.append(float(basis[-1] @ product))
        matrix = np.array(basis)
        for _ in range(2):  # once is not enough in floating point
            product = product - matrix.T @ (matrix @ product)
        beside.append(float(np.linalg.norm(product)))
        scale = max(scale, abs(diagonal[-1]), beside[-1])
        if not np.isfinite(beside[-1]):
            raise DataError("a product with the Gram matrix is not finite; remove samples that are not.")
        if beside[-1] <= 1e-13 * scale:
            break
        basis.append(product / beside[-1])
    steps = len(diagonal)
    return np.array(basis[:steps]).T, np.array(diagonal), np.array(beside[: steps - 1])


def largest_eigenvalue(multiply: Multiply, size: int, *, iterations: int = 60, seed: int = 0) -> float:
    """Largest eigenvalue of a symmetric matrix that is given by its products with vectors, by Lanczos iteration.

    >>> diagonal = np.linspace(1, 3, 500)
    >>> round(largest_eigenvalue(lambda v: diagonal * v, 500), 6)
    3.0
    """
    start = np.random.default_rng(seed).standard_normal(size)
    _, diagonal, beside = lanczos(multiply, start, iterations)
    return float(np.linalg.eigvalsh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))[-1])
