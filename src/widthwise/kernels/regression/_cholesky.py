"""Cholesky factors: in memory, or in panels on disk where n^2 numbers exceed the memory budget."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.linalg import LinAlgError, cholesky, solve_triangular
from scipy.linalg.blas import dtrsm, strsm
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

from widthwise.core import ResourceError, available_bytes, progress
from widthwise.kernels.regression._errors import NotPositiveDefinite, jitter_for
from widthwise.kernels.regression._gram import Gram, dense

_CHUNK = 4096


class Cholesky:
    """``K + ridge I = L L'`` with L in panels of columns; panel j holds the rows from its own first one down.

    Attributes:
        n: examples.
        side: columns of a panel.
        diagonal: ``[n]`` diagonal of L.
    """

    def __init__(
        self, panels: list[np.ndarray], side: int, folder: "tempfile.TemporaryDirectory | None" = None
    ) -> None:
        self.panels = panels
        self.side = side
        self.folder = folder
        self.n = panels[0].shape[0]
        self.diagonal = np.concatenate([np.diagonal(panel[: panel.shape[1]]).astype(float) for panel in panels])

    @property
    def on_disk(self) -> bool:
        """Whether the factor is on disk."""
        return self.folder is not None

    @property
    def condition(self) -> float:
        """A lower bound of the condition number: squared ratio of the extreme entries of L's diagonal."""
        return float((self.diagonal.max() / self.diagonal.min()) ** 2)

    @property
    def log_determinant(self) -> float:
        """Of ``K + ridge I``."""
        return float(2 * np.log(self.diagonal).sum())

    def solve_lower(self, targets: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
        """``L^-1 y``, in the precision of L."""
        y = np.array(targets, dtype=self.panels[0].dtype)
        for j, panel in enumerate(self.panels):
            start, width = j * self.side, panel.shape[1]
            own = slice(start, start + width)
            y[own] = solve_triangular(panel[:width], y[own], lower=True, check_finite=False)
            for at in range(width, len(panel), _CHUNK):
                part = panel[at : at + _CHUNK]
                y[start + at : start + at + len(part)] -= part @ y[own]
        return y

    def solve(self, targets: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
        """``(K + ridge I)^-1 y``, in the precision of L."""
        y = self.solve_lower(targets)
        for j in range(len(self.panels) - 1, -1, -1):
            panel = self.panels[j]
            start, width = j * self.side, panel.shape[1]
            own = slice(start, start + width)
            for at in range(width, len(panel), _CHUNK):
                part = panel[at : at + _CHUNK]
                y[own] -= part.T @ y[start + at : start + at + len(part)]
            y[own] = solve_triangular(panel[:width], y[own], lower=True, trans="T", check_finite=False)
        return y


def factorise(
    gram: Gram, ridge: float, *, memory: float | None = None, workdir: str | Path | None = None, show: bool = False
) -> Cholesky:
    """Cholesky factor of ``K + ridge I`` in the precision of K.

    Args:
        memory: bytes that may be used; by default half of what is available. Where the matrix takes more, the factor is
            computed in panels on disk (left-looking, so that each panel is written once).
        workdir: folder for the panels; by default the system's temporary folder.

    Raises:
        NotPositiveDefinite: with the smallest eigenvalue.
        ResourceError: the disk has no room for the factor.
    """
    budget = available_bytes() / 2 if memory is None else memory
    if gram.n**2 * gram.dtype.itemsize <= budget:
        whole = dense(gram, gram.dtype)
        whole[np.diag_indices(gram.n)] += ridge
        try:
            found = Cholesky([cholesky(whole, lower=True, overwrite_a=True, check_finite=False)], gram.n)
        except LinAlgError:
            raise indefinite(gram, ridge) from None
    else:
        found = _on_disk(gram, ridge, budget, workdir, show)
    if found.condition * np.finfo(gram.dtype).eps > 1.0:  # pivots of the size of rounding: singular in this precision
        raise indefinite(gram, ridge)
    return found


def _on_disk(gram: Gram, ridge: float, budget: float, workdir: str | Path | None, show: bool) -> Cholesky:
    side = max(16, min(4096, int(budget / (3 * gram.dtype.itemsize * gram.n))))
    needed = gram.n * (gram.n + side) / 2 * gram.dtype.itemsize
    folder = tempfile.TemporaryDirectory(prefix="widthwise-cholesky-", dir=workdir)
    free = shutil.disk_usage(folder.name).free
    if needed > free:
        folder.cleanup()
        raise ResourceError(
            f"the Cholesky factor of {gram.n} examples takes {needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are "
            f"free; give a workdir on another disk, or use solver='cg'."
        )
    panels: list[np.ndarray] = []
    starts = range(0, gram.n, side)
    work = sum((gram.n - start) * (start + side) for start in starts)
    with progress("Cholesky panels", work, show=show) as advance:
        for start in starts:
            panel = _panel(gram, ridge, panels, start, min(side, gram.n - start), side)
            file = Path(folder.name) / f"{start}.panel"
            kept = np.memmap(file, dtype=panel.dtype, mode="w+", shape=panel.shape)
            kept[:] = panel
            kept.flush()
            panels.append(np.memmap(file, dtype=panel.dtype, mode="r", shape=panel.shape))
            del kept
            advance((gram.n - start) * (start + side))
    return Cholesky(panels, side, folder)


def _panel(gram: Gram, ridge: float, panels: list[np.ndarray], start: int, width: int, side: int) -> np.ndarray:
    """Columns `start` to `start + width` of L, from the panels before."""
    panel = np.ascontiguousarray(gram.block(slice(start, gram.n), slice(start, start + width)))
    panel[np.arange(width), np.arange(width)] += ridge
    for k, before in enumerate(panels):
        below = before[start - k * side :]
        head = np.ascontiguousarray(below[:width].T)
        for at in range(0, len(panel), _CHUNK):
            panel[at : at + _CHUNK] -= below[at : at + _CHUNK] @ head
    try:
        top = cholesky(panel[:width], lower=True, check_finite=False)
    except LinAlgError:
        raise indefinite(gram, ridge) from None
    solve: Callable = strsm if panel.dtype == np.float32 else dtrsm
    panel[:width] = top
    for at in range(width, len(panel), _CHUNK):
        part = panel[at : at + _CHUNK]
        part[:] = solve(1.0, top, part.T, lower=1).T
    return panel


def indefinite(gram: Gram, ridge: float) -> NotPositiveDefinite:
    """The error that names the smallest eigenvalue of ``K + ridge I`` (by Lanczos iteration for many examples)."""
    eps = float(np.finfo(gram.dtype).eps)
    if gram.n <= 2000:
        values = np.linalg.eigvalsh(dense(gram, np.float64))
        smallest, largest = float(values[0]) + ridge, float(values[-1])
    else:
        smallest, largest = _extremes(gram)
        smallest += ridge
    return NotPositiveDefinite(smallest, largest, ridge, jitter_for(smallest, largest, ridge, eps, gram.n))


def _extremes(gram: Gram) -> tuple[float, float]:
    operator = LinearOperator(
        (gram.n, gram.n), matvec=lambda v: gram.matmat(v.reshape(-1, 1))[:, 0], dtype=np.dtype(np.float64)
    )
    largest = float(eigsh(operator, k=1, which="LA", tol=1e-2, return_eigenvectors=False)[0])
    try:
        smallest = float(eigsh(operator, k=1, which="SA", tol=1e-2, maxiter=50, return_eigenvectors=False)[0])
    except ArpackError:
        smallest = -float(np.finfo(gram.dtype).eps) * largest
    return smallest, largest
