"""What a fit of a law gives: coefficients by route, intervals, held-out losses."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float

from widthwise.core import Value
from widthwise.scaling._laws_surface import CellSurface
from widthwise.scaling._laws_types import Advice, Bowl, Law

RouteName = Literal["joint", "surface", "near-optimal"]


NAMES = ("lr intercept", "lr params", "lr tokens", "batch intercept", "batch params", "batch tokens")


@dataclass(frozen=True)
class RouteFit(Value):
    """One route's law: ln lr = a0 + aN ln params + aD ln tokens, ln batch = b0 + bN ln params + bD ln tokens.

    Attributes:
        coefficients: a0, aN, aD, b0, bN, bD.
        low, high: of their 95 % intervals: the wider of resampled runs and resampled cells, at either end.
        by_run, by_cell: clouds of refits ``[resamples, 6]``, with runs (within cells) or whole cells reweighted.
        held_out: per cell, relative loss above the cell's optimum at what the law fitted without this cell says, by the
            cell's own surface (nan where it has none).
        held_out_nearest: the same at the run of the grid nearest to what the law says.
    """

    route: RouteName
    coefficients: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    by_run: Float[np.ndarray, "resamples 6"] = field(metadata={"plain": False}, repr=False)
    by_cell: Float[np.ndarray, "resamples 6"] = field(metadata={"plain": False}, repr=False)
    held_out: tuple[float, ...]
    held_out_nearest: tuple[float, ...]

    def interval(self, rows: Float[np.ndarray, "k 6"]) -> Float[np.ndarray, "k 2"]:
        """95 % interval of combinations of the coefficients."""
        return envelope([self.by_run @ rows.T, self.by_cell @ rows.T])

    @property
    def mean_held_out(self) -> float:
        """Mean of `held_out` over the cells that have a surface."""
        return float(np.nanmean(self.held_out)) if np.isfinite(self.held_out).any() else float("nan")


@dataclass(frozen=True)
class FittedLaw(Value):
    """A law from a sweep.

    Attributes:
        law: for predictions; also for `recommend`.
        route: which of `routes` it takes.
        routes: every route that succeeded.
        failed: why the others did not.
        bowl: common curvature of the joint route.
        cells: what each cell says.
        window: of log loss above a cell's best, within which surfaces are fitted.
        runs, diverged: counts.
        seed_noise: standard deviation of ln(loss) over seeds; None where no setting was repeated.
        warnings: what is wrong with the sweep.
    """

    law: Law
    route: RouteName
    routes: dict[RouteName, RouteFit]
    failed: dict[RouteName, str]
    bowl: Bowl | None
    cells: tuple[CellSurface, ...]
    window: float
    runs: int
    diverged: int
    seed_noise: float | None
    warnings: tuple[str, ...]

    @property
    def fit(self) -> RouteFit:
        """The chosen route's."""
        return self.routes[self.route]

    @property
    def exponents(self) -> dict[str, tuple[float, float, float]]:
        """Name to value, low and high end of the 95 % interval."""
        found = self.fit
        return dict(zip(NAMES, zip(found.coefficients, found.low, found.high, strict=True), strict=True))

    def predict(self, params: float, tokens: float, sequence_length: int = 2048, *, plateau: float = 0.0025) -> Advice:
        """As `Law.predict`."""
        return self.law.predict(params, tokens, sequence_length, plateau=plateau)

    def __str__(self) -> str:
        lines = [f"{self.runs} runs in {len(self.cells)} cells, {self.diverged} diverged; window {self.window:.1%}"]
        for name, fit in self.routes.items():
            mark = "*" if name == self.route else " "
            lines.append(f"{mark} {name}: {law_text(fit.coefficients)}; held-out loss +{fit.mean_held_out:.3%}")
        lines += [
            f"  {name}: {value:+.3f} [{low:+.3f}, {high:+.3f}]" for name, (value, low, high) in self.exponents.items()
        ]
        lines += [f"  {name} failed: {why}" for name, why in self.failed.items()]
        return "\n".join([*lines, *(f"  warning: {warning}" for warning in self.warnings)])


def law_text(a: Sequence[float]) -> str:
    """A law in words.

    >>> law_text((0.0, -0.7, 0.3, 0.0, 0.0, 0.5))
    'lr = 1 N^-0.700 D^0.300, batch = 1 D^0.500'
    """
    on_params = f" N^{a[4]:.3f}" if abs(a[4]) > 1e-9 else ""
    return f"lr = {np.exp(a[0]):.4g} N^{a[1]:.3f} D^{a[2]:.3f}, batch = {np.exp(a[3]):.4g}{on_params} D^{a[5]:.3f}"


def envelope(clouds: Sequence[Float[np.ndarray, "resamples k"]]) -> Float[np.ndarray, "k 2"]:
    ends = np.stack([np.nanpercentile(cloud, [2.5, 97.5], axis=0) for cloud in clouds])
    return np.stack([ends[:, 0].min(0), ends[:, 1].max(0)], axis=1)
