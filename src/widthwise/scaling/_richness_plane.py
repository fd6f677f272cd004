"""The plane of feature-learning strength and learning rate: what it holds, and how it is read."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from widthwise.core import Axis, Figure, Line, Points, Value
from widthwise.scaling._optimum import vertex
from widthwise.scaling._richness_fit import Exponent, RateBound, fit_exponent

TRAINED = 0.9  # of the initial loss: what a run has to get below to count as trained, unless told otherwise
_INF = float("inf")


def richness_law(gamma: float, depth: int, regime_at: float = 1.0) -> float:
    """Factor of the learning rate for outputs divided by gamma: ``gamma^2`` below one, ``gamma^(2/depth)`` above.

    Args:
        gamma: feature-learning strength.
        depth: homogeneous degree: the number of matrices that train one after another.
        regime_at: gamma where the two meet.

    Source: arXiv:2410.04642, section 3.

    >>> richness_law(0.5, 3), richness_law(9.0, 4)
    (0.25, 3.0)
    """
    ratio = gamma / regime_at
    return ratio**2 if ratio < 1 else ratio ** (2 / depth)


@dataclass(frozen=True)
class RichnessSweep(Value):
    """What training does over the plane of gamma and learning rate.

    Attributes:
        depth: number of matrices on the longest path, L in the law.
        gammas, rates: the grid.
        steps: of each run.
        losses: mean training loss over the last tenth of the steps ``[gammas, seeds, rates]``; infinite where a run
            diverged, NaN where it was not asked for.
        initial: loss of zero outputs, that of every run before its first step.
        optima: best learning rate per gamma, to half a grid step; censored where it lies at an end of the tried ones.
        edges: largest rate up to which every seed trains, between the last that does and the first that does not.
        floors: smallest rate that trains within the steps, likewise.
        exponents: of the three in gamma, keys such as ``"optimum, lazy"`` and ``"edge, rich"``; None where too few
            are known.
        lazy_below, rich_above: the gammas that the exponents are fitted over.
        trained: share of the initial loss that a run has to get below to count as trained.
    """

    depth: int
    gammas: tuple[float, ...]
    rates: tuple[float, ...]
    steps: int
    losses: Float[np.ndarray, "gammas seeds rates"] = field(repr=False)
    initial: float
    optima: tuple[RateBound, ...]
    edges: tuple[RateBound, ...]
    floors: tuple[RateBound, ...]
    exponents: dict[str, Exponent | None]
    lazy_below: float
    rich_above: float
    trained: float = TRAINED

    @property
    def lazy(self) -> Exponent | None:
        """Exponent of the best rate at small gamma; the law says 2."""
        return self.exponents["optimum, lazy"]

    @property
    def rich(self) -> Exponent | None:
        """Exponent of the best rate at large gamma; the law says 2 / depth."""
        return self.exponents["optimum, rich"]

    @property
    def states(self) -> np.ndarray:
        """``[gammas, rates]``: ``"trained"``, ``"untrained"`` (the mean loss stayed above `trained` of the
        initial one), ``"diverged"`` (a seed did), or ``""`` where nothing was run."""
        return _states(self.losses, self.initial, self.trained)

    def best(self) -> tuple[float, float, float]:
        """Gamma, learning rate and mean loss of the lowest cell."""
        mean = np.where(np.isnan(self.losses), np.inf, self.losses).mean(1)
        row, column = np.unravel_index(int(mean.argmin()), mean.shape)
        return self.gammas[row], self.rates[column], float(mean[row, column])

    def __str__(self) -> str:
        rows = [f"{'gamma':>9}  {'best rate':>9}  {'largest':>9}  {'smallest':>9}  {'loss':>8}"]
        mean = np.where(np.isnan(self.losses), np.inf, self.losses).mean(1)
        for k, gamma in enumerate(self.gammas):
            found = [self.optima[k], self.edges[k], self.floors[k]]
            cells = [f"{one.value:>9.3g}{'*' if one.censored else ' '}" for one in found]
            rows.append(f"{gamma:>9.4g}  {' '.join(cells)} {mean[k].min():>8.4f}")
        rows.append("* the tried rates end there")
        laws = {"lazy": 2.0, "rich": 2 / self.depth}
        for key in ("lazy", "rich"):
            value = self.exponents[f"optimum, {key}"]
            rows.append(f"exponent of the best rate, {key}: {value or 'too few gammas'} (law: {laws[key]:.3g})")
        return "\n".join(rows)

    def plot(self) -> Figure:
        """The plane: what trained, the best and largest rates, and the law through the best ones."""
        series: list[Line | Points] = []
        for slot, state in ((2, "diverged"), (4, "untrained"), (0, "trained")):
            rows, columns = np.nonzero(self.states == state)
            x, y = [self.gammas[row] for row in rows], [self.rates[column] for column in columns]
            if x:
                series.append(Points(state, tuple(x), tuple(y), slot=slot))
        for name, bounds, slot in (("largest rate", self.edges, 3), ("best rate", self.optima, 1)):
            shown = [(g, one) for g, one in zip(self.gammas, bounds, strict=True) if one.value > 0]
            known = [(g, one.value) for g, one in shown if name == "best rate" or not one.censored]
            if known:
                series.append(Line(name, *_columns(known), slot, markers=name == "best rate"))
        for key, law in (("lazy", 2.0), ("rich", 2 / self.depth)):
            fit = self.exponents[f"optimum, {key}"]
            chosen = [g for g in self.gammas if (g <= self.lazy_below if key == "lazy" else g >= self.rich_above)]
            if fit is None or len(chosen) < 2:
                continue
            middle = float(np.exp(np.mean(np.log(chosen))))
            anchor = 2**fit.intercept * middle**fit.value
            words = f"law: gamma^{law:.3g}"
            series.append(Line(words, *_columns([(g, anchor * (g / middle) ** law) for g in chosen]), 5, dashed=True))
        return Figure(
            f"Learning rate against feature-learning strength, {self.depth} matrices",
            Axis("gamma (outputs are divided by it)", "log"),
            Axis("learning rate", "log"),
            tuple(series),
            f"One network per point, {self.steps} steps of SGD. Untrained: the loss stayed above "
            f"{self.trained:g} of its start. No "
            "largest rate is drawn where every tried one trains. The "
            "dashed lines have the slope that the theory predicts and go through the middle of the best rates.",
        )


def read_plane(
    depth: int, gammas: Sequence[float], rates: Sequence[float], steps: int,
    losses: Float[np.ndarray, "gammas seeds rates"], initial: float, lazy_below: float = 0.1, rich_above: float = 10.0,
    trained: float = TRAINED,
) -> RichnessSweep:  # fmt: skip
    """Optima, edges and exponents of measured losses."""
    states = _states(losses, initial, trained)
    octaves = np.log2(np.array(rates))
    rows = [_read_row(octaves, losses[k], states[k]) for k in range(len(gammas))]
    optima, edges, floors = ([row[part] for row in rows] for part in range(3))
    exponents = {}
    for regime, inside in (
        ("lazy", [k for k, gamma in enumerate(gammas) if gamma <= lazy_below]),
        ("rich", [k for k, gamma in enumerate(gammas) if gamma >= rich_above]),
    ):
        chosen = [gammas[k] for k in inside]
        for name, bounds in (("optimum", optima), ("edge", edges), ("floor", floors)):
            exponents[f"{name}, {regime}"] = fit_exponent(chosen, [bounds[k] for k in inside])
    return RichnessSweep(
        depth, tuple(gammas), tuple(rates), steps, losses, initial, tuple(optima), tuple(edges), tuple(floors),
        exponents, lazy_below, rich_above, trained,
    )  # fmt: skip


def _states(losses: np.ndarray, initial: float, trained: float) -> np.ndarray:
    mean = losses.mean(1)
    states = np.where(mean < trained * initial, "trained", "untrained").astype("<U9")
    states[np.isinf(losses).any(1)] = "diverged"
    states[np.isnan(mean)] = ""
    return states


def _read_row(octaves: np.ndarray, losses: np.ndarray, states: np.ndarray) -> tuple[RateBound, RateBound, RateBound]:
    """Best, largest and smallest rate that trains at one gamma."""
    run = np.flatnonzero(states != "")
    nothing = RateBound(float("nan"), 0.0, float("inf"))
    if not (states == "trained").any():
        return nothing, nothing, nothing
    x, mean = octaves[run], losses[:, run].mean(0)
    trained = states[run] == "trained"
    best = int(np.argmin(mean))
    half = float(np.diff(x).mean()) / 2 if len(x) > 1 else 0.5
    middle = vertex(x, mean)
    low = 0.0 if best == 0 else 2 ** (middle - half)
    high = float("inf") if best == len(x) - 1 else 2 ** (middle + half)
    top, bottom = best, best
    while top + 1 < len(x) and trained[top + 1]:
        top += 1
    while bottom > 0 and trained[bottom - 1]:
        bottom -= 1
    edge = _between(x[top], x[top + 1]) if top + 1 < len(x) else RateBound(2 ** float(x[top]), 2 ** float(x[top]), _INF)
    base = _between(x[bottom - 1], x[bottom]) if bottom > 0 else RateBound(2 ** float(x[0]), 0.0, 2 ** float(x[0]))
    return RateBound(2**middle, low, high), edge, base


def _between(low: float, high: float) -> RateBound:
    return RateBound(2 ** float((low + high) / 2), 2 ** float(low), 2 ** float(high))


def _columns(pairs: Sequence[tuple[float, float]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return tuple(float(x) for x, _ in pairs), tuple(float(y) for _, y in pairs)
