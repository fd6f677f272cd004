"""`richness_sweep`: the plane of feature-learning strength gamma and learning rate, and its exponents."""

import copy
from collections.abc import Callable, Sequence
from math import log2
from pathlib import Path

import numpy as np
from jaxtyping import Num
from torch import Tensor, nn

from widthwise.core import DataError, ModelError, derived_seed, progress, seeded
from widthwise.program import trace
from widthwise.scaling._parametrize import parametrize_traced
from widthwise.scaling._richness_batch import Cell, SampleLoss, Starts, train_cells
from widthwise.scaling._richness_plane import TRAINED, RichnessSweep, read_plane, richness_law
from widthwise.scaling._richness_store import SweepStore
from widthwise.scaling._schemes import AbcByRole
from widthwise.scaling._structure import matrix_depth

Build = Callable[[], nn.Module]
TILE = 256  # networks trained at once
PILOT_STEPS = 100
PILOT = range(-24, 13, 2)
WINDOW = (-5, 4)


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
    trained: float = TRAINED,
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
        trained: share of the initial loss that a run has to get below to count; nearer one for few steps.
        keep: file of finished runs; the same call goes on from there.

    Raises:
        DataError: fewer than two gammas or rates, values not above zero, data that are not finite or do not fit.
        ModelError: the module cannot be trained in a batch of networks, or several seeds of one module are asked for.

    >>> import torch
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
    if not 0 < trained <= 1:
        raise DataError(f"trained is {trained}; give a share of the initial loss, above 0 and at most 1.")
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
    return read_plane(depth, gammas, rates, steps, losses, starts.initial, lazy_below, rich_above, trained)


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
    exact = smallest < 5e-4
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
