"""`richness_sweep`: the plane of feature-learning strength gamma and learning rate, and its exponents."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import log2
from pathlib import Path

import numpy as np
from jaxtyping import Float, Num
from torch import Tensor, nn

from widthwise.core import Axis, DataError, Figure, Line, ModelError, Points, Value, derived_seed, progress, seeded
from widthwise.program import trace
from widthwise.scaling._optimum import vertex
from widthwise.scaling._parametrize import parametrize_traced
from widthwise.scaling._richness_batch import Cell, SampleLoss, Starts, train_cells
from widthwise.scaling._richness_fit import Exponent, RateBound, fit_exponent
from widthwise.scaling._richness_store import SweepStore
from widthwise.scaling._schemes import AbcByRole
from widthwise.scaling._structure import matrix_depth

Build = Callable[[], nn.Module]
TRAINED = 0.9  # of the initial loss: what a run has to get below to count as trained
TILE = 256  # networks trained at once
PILOT_STEPS = 100
PILOT = range(-24, 13, 2)
WINDOW = (-5, 4)
_INF = float("inf")


def richness_law(gamma: float, depth: int, regime_at: float = 1.0) -> float:
    """Factor of the learning rate for outputs divided by gamma: ``gamma^2`` below one, ``gamma^(2/depth)`` above.

    Args:
        gamma: feature-learning strength.
        depth: homogeneous degree: the number of matrices that train one after another.
        regime_at: gamma where the two meet.

    Source: arXiv:2410.04642, section 3.

    >>> richness_law(0.1, 3), richness_law(8.0, 3)
    (0.010000000000000002, 4.0)
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
        """``[gammas, rates]``: ``"trained"``, ``"untrained"`` (the mean loss stayed above 0.9 of the initial one),
        ``"diverged"`` (a seed did), or ``""`` where nothing was run."""
        return _states(self.losses, self.initial)

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
            known = [(gamma, one.value) for gamma, one in zip(self.gammas, bounds, strict=True) if one.value > 0]
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
            f"One network per point, {self.steps} steps of SGD. Untrained: the loss stayed above 0.9 of its start. The "
            "dashed lines have the slope that the theory predicts and go through the middle of the best rates.",
        )


def richness_sweep(
    module: nn.Module | Build,
    inputs: Num[Tensor, "n *shape"],
    targets: Num[Tensor, "targets *outputs"],
    *,
    gammas: Sequence[float],
    rates: Sequence[float] | None = None,
    octaves: tuple[float, float] = WINDOW,
    per_octave: int = 1,
    steps: int = 500,
    seeds: int = 1,
    batch_size: int | None = 64,
    loss: SampleLoss | None = None,
    scheme: str | AbcByRole | None = "spectral",
    lazy_below: float = 0.1,
    rich_above: float = 10.0,
    seed: int = 0,
    keep: str | Path | None = None,
    show_progress: bool = False,
) -> RichnessSweep:
    """Train a network at many strengths and learning rates, all at once, and fit how the best rate follows gamma.

    Trained are the centred and scaled outputs ``f = (h - h_0) / gamma`` by plain SGD, in evaluation mode. The theory
    (arXiv:2410.04642) has the best rate grow like ``gamma^2`` for gamma well below one (lazy) and like
    ``gamma^(2/L)`` well above (rich); rich networks also need about ``gamma^(1 - 2/L)`` times more steps, and what the
    steps do not reach is reported as untrained.

    Args:
        module: a network, or a factory without arguments that draws one (needed for several seeds).
        inputs, targets: the task. Class numbers mean cross-entropy, floats half the mean squared error.
        gammas: strengths to try, on a logarithmic scale.
        rates: learning rates to try at every gamma. None: from ``octaves[0]`` to ``octaves[1]`` about the law through
            a short pilot at gamma = 1, `per_octave` to a factor of two; a best rate at the end of such a window counts
            as censored.
        steps: of each run; batches of `batch_size` examples (None: all) are drawn alike in all runs.
        seeds: initialisations.
        loss: ``(outputs [b, k], targets) -> scalar`` instead.
        scheme: parametrisation that sets initial scales and each tensor's rate (`parametrize`); None: as the module
            is, one rate for all.
        lazy_below, rich_above: gammas of the two fits.
        keep: file of finished runs; the same call goes on from there.

    Raises:
        DataError: fewer than two gammas or rates, values not above zero, data that are not finite or do not fit.
        ModelError: the module cannot be trained in a batch of networks, or several seeds of one module are asked for.

    >>> x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    >>> def build():
    ...     return nn.Sequential(nn.Linear(4, 16, bias=False), nn.ReLU(), nn.Linear(16, 1, bias=False))
    >>> sweep = richness_sweep(build, x, x[:, :1].relu(), gammas=[0.01, 0.1, 1.0], rates=[1e-3, 1e-1, 10.0], steps=20)
    >>> sweep.depth, sweep.losses.shape
    (2, (3, 1, 3))
    """
    gammas, rates = _grid("gammas", gammas), None if rates is None else _grid("rates", rates)
    check_counts(steps=steps, seeds=seeds, per_octave=per_octave)
    starts, depth = prepare(module, inputs, targets, seeds, scheme, loss, seed, min(gammas))
    store = SweepStore(
        keep, starts.weights, starts.inputs, starts.targets, steps, batch_size, seed, str(scheme), starts.loss
    )
    batches = derived_seed(seed, "richness batches")
    if rates is None:
        rates, wanted = _windows(
            starts, gammas, depth, octaves, per_octave, min(steps, PILOT_STEPS), batch_size, batches
        )
    else:
        wanted = np.ones((len(gammas), len(rates)), dtype=bool)
    losses = np.full((len(gammas), seeds, len(rates)), np.nan)
    todo: list[tuple[tuple[int, int, int], Cell]] = []
    for row, column in zip(*np.nonzero(wanted), strict=True):
        for number in range(seeds):
            cell = Cell(gammas[row], rates[column], number)
            known = store.get(cell)
            if known is None:
                todo.append(((int(row), number, int(column)), cell))
            else:
                losses[row, number, column] = known
    with progress("richness sweep", float(wanted.sum() * seeds), show=show_progress) as advance:
        advance(float(wanted.sum() * seeds - len(todo)))
        for at in range(0, len(todo), TILE):
            tile = todo[at : at + TILE]
            cells = [cell for _, cell in tile]
            found = train_cells(starts, cells, steps, batch_size, batches, advance=advance).losses
            for (index, cell), value in zip(tile, found, strict=True):
                losses[index] = value
                store.put(cell, float(value))
            store.save()
    return read_plane(depth, gammas, rates, steps, losses, starts.initial, lazy_below, rich_above)


def read_plane(
    depth: int, gammas: Sequence[float], rates: Sequence[float], steps: int,
    losses: Float[np.ndarray, "gammas seeds rates"], initial: float, lazy_below: float = 0.1, rich_above: float = 10.0,
) -> RichnessSweep:  # fmt: skip
    """Optima, edges and exponents of measured losses."""
    states = _states(losses, initial)
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
        exponents, lazy_below, rich_above,
    )  # fmt: skip


def prepare(
    module: nn.Module | Build, inputs: Tensor, targets: Tensor, seeds: int, scheme: str | AbcByRole | None,
    loss: SampleLoss | None, seed: int, smallest: float,
) -> tuple[Starts, int]:  # fmt: skip
    """Initialisations with each tensor's rate, and the depth; double precision where ``h - h_0`` would lose digits."""
    if isinstance(module, nn.Module):
        if seeds > 1:
            raise ModelError(
                f"{seeds} seeds need a factory; give a function without arguments that builds the module, or seeds=1."
            )
        drawn = [copy.deepcopy(module)]
    else:
        drawn = []
        for number in range(seeds):
            with seeded(seed, "richness", number):
                drawn.append(module())
    exact = smallest < 1e-3
    drawn = [one.double() if exact else one for one in drawn]
    first = next(iter(drawn[0].parameters()), None)
    if first is None:
        raise ModelError("the module has no parameters; give one that can be trained.")
    inputs, targets = (_like(tensor, first) for tensor in (inputs, targets))
    program = trace(drawn[0], inputs[:2])
    factors: dict[str, float] = {}
    if scheme is not None:
        for one in drawn:
            own = program if one is drawn[0] else trace(one, inputs[:2])
            groups = parametrize_traced(one, own, None, scheme=scheme, lr=1.0, optimizer="sgd")
            factors = {name: group["lr"] for group in groups for name in group["weights"]}
    return Starts.of(drawn, factors, inputs, targets, loss), max(1, matrix_depth(program))


def _like(tensor: Tensor, first: Tensor) -> Tensor:
    return tensor.to(first.device, first.dtype) if tensor.is_floating_point() else tensor.to(first.device)


def check_counts(**counts: int) -> None:
    """Refuse counts below one.

    Raises:
        DataError: one is.
    """
    for name, value in counts.items():
        if value < 1:
            raise DataError(f"{name}={value} is too few; give at least 1.")


def _grid(name: str, values: Sequence[float]) -> tuple[float, ...]:
    found = tuple(sorted({float(value) for value in values}))
    wrong = [value for value in found if not 0 < value < float("inf")]
    if wrong:
        raise DataError(f"{name} holds {wrong[0]}; give finite numbers above zero.")
    if len(found) < 2:
        raise DataError(f"{len(found)} different {name} are too few; give at least two, better eight or more.")
    return found


def _windows(
    starts: Starts, gammas: tuple[float, ...], depth: int, octaves: tuple[float, float], per_octave: int, steps: int,
    batch_size: int | None, seed: int,
) -> tuple[tuple[float, ...], np.ndarray]:  # fmt: skip
    """A grid about the law through the best rate of a short run at gamma = 1, and which of it belongs to each gamma."""
    if octaves[1] - octaves[0] < 3:
        raise DataError(f"octaves={octaves} leave too few rates; give a window of at least three octaves.")
    found = train_cells(starts, [Cell(1.0, 2.0**k, 0) for k in PILOT], steps, batch_size, seed).losses
    if not np.isfinite(found).any():
        raise DataError("every rate of the pilot diverged at gamma = 1; give rates= or scale the inputs.")
    anchor = PILOT[int(np.argmin(found))]
    centres = [round(per_octave * (anchor + log2(richness_law(gamma, depth)))) for gamma in gammas]
    low, high = (round(per_octave * end) for end in octaves)
    grid = range(min(centres) + low, max(centres) + high + 1)
    wanted = np.array([[c + low <= k <= c + high for k in grid] for c in centres])
    return tuple(2.0 ** (k / per_octave) for k in grid), wanted


def _states(losses: np.ndarray, initial: float) -> np.ndarray:
    mean = losses.mean(1)
    states = np.where(mean < TRAINED * initial, "trained", "untrained").astype("<U9")
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
