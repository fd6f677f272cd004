"""`transfer_check`: does the best learning rate stay where it is when the network grows wider or deeper?"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from widthwise.core import Axis, DataError, Figure, Line, Points, Value, derived_seed, progress, seeded
from widthwise.scaling._coordinate_check import Build, rebound
from widthwise.scaling._ladder import Along, ladder
from widthwise.scaling._ledger import Ledger
from widthwise.scaling._optimum import Drift, Optimum, fit_drift, optimum
from widthwise.scaling._parametrize import parametrize_traced
from widthwise.scaling._runs import Batch, Data, Loss, at_least_three, batch_loss, batch_of, make_optimizers
from widthwise.scaling._schemes import AbcByRole

GroupsAtRate = Callable[[nn.Module, float], Iterable[dict[str, Any]]]
Schedule = Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]


@dataclass(frozen=True)
class TransferCheck(Value):
    """Learning-rate sweeps at several widths or depths and what they say.

    Attributes:
        sizes, lrs: the grid; sizes are widths or depths.
        losses: final training loss ``[sizes, seeds, lrs]``; infinite where a run diverged (kept, not dropped), NaN
            where none was run (see `around`).
        optima: the best learning rate at each size.
        drift: of the best learning rate.
        larger_is_better: whether the lowest loss never rises with the size by more than two standard errors.
        tolerance: octaves over the whole range of sizes that count as holding.
        along: ``"width"`` or ``"depth"``.
    """

    sizes: tuple[int, ...]
    lrs: tuple[float, ...]
    losses: Float[np.ndarray, "sizes seeds lrs"] = field(repr=False)
    optima: tuple[Optimum, ...]
    drift: Drift
    larger_is_better: bool
    tolerance: float
    along: Along = "width"

    @property
    def passed(self) -> bool:
        """Whether the optimum drifts by at most `tolerance` octaves and no optimum lies at the grid's edge."""
        return abs(self.drift.total) <= self.tolerance and not any(found.at_edge for found in self.optima)

    @property
    def diverged(self) -> int:
        """Number of runs that diverged."""
        return int(np.isinf(self.losses).sum())

    @property
    def runs(self) -> int:
        """Number of runs."""
        return int((~np.isnan(self.losses)).sum())

    def __str__(self) -> str:
        rows = [f"{self.along:>6}  {'best lr':>10}  {'± octaves':>9}  {'loss':>8}"]
        for size, found in zip(self.sizes, self.optima, strict=True):
            edge = "  at the edge of the grid" if found.at_edge else ""
            rows.append(f"{size:>6}  {2**found.octaves:>10.4g}  {found.stderr:>9.2f}  {found.loss:>8.4f}{edge}")
        drift = self.drift
        if self.diverged:
            rows.append(f"{self.diverged} of {self.runs} runs diverged; they count as infinite losses.")
        rows.append(
            f"the best learning rate drifts by {drift.per_doubling:+.2f} octaves per doubling "
            f"[{drift.low:+.2f}, {drift.high:+.2f}], {drift.total:+.2f} ± {drift.half_width:.2f} in all"
        )
        larger = "wider" if self.along == "width" else "deeper"
        rows.append(f"{larger} is better" if self.larger_is_better else f"{larger} is not better everywhere")
        return "\n".join(rows)

    def figure(self) -> Figure:
        """Loss against learning rate, one line per size."""
        series: list[Line | Points] = []
        for slot, (size, table) in enumerate(zip(self.sizes, self.losses, strict=True)):
            kept = np.isfinite(table).all(0)
            x = tuple(float(lr) for lr, keep in zip(self.lrs, kept, strict=True) if keep)
            mean = table[:, kept].mean(0)
            error = table[:, kept].std(0, ddof=1) / len(table) ** 0.5 if len(table) > 1 else np.zeros(int(kept.sum()))
            series.append(Line("", x, tuple(map(float, mean)), slot))
            series.append(Points(f"{self.along} {size}", x, tuple(map(float, mean)), tuple(map(float, error)), slot))
        return Figure(
            f"Learning-rate sweeps at several {self.along}s",
            Axis("learning rate", "log"),
            Axis("final training loss", "log"),
            tuple(series),
            "Settings transfer where the lowest points stand above one another; diverged runs are left out.",
        )


def transfer_check(
    build: Build,
    sizes: Sequence[int],
    data: Data,
    lrs: Sequence[float],
    *,
    along: Along = "width",
    scheme: str | AbcByRole = "spectral",
    optimizer: str = "adamw",
    base_width: int | None = None,
    natural_units: bool = False,
    groups: GroupsAtRate | None = None,
    steps: int = 200,
    seeds: int = 2,
    batch_size: int = 64,
    loss: Loss | None = None,
    schedule: Schedule | None = None,
    tolerance: float = 0.5,
    around: int | None = None,
    seed: int = 0,
    ledger: Ledger | None = None,
    show_progress: bool = False,
    **settings: Any,
) -> TransferCheck:
    """Sweep the learning rate at several widths or depths on a short budget and fit how the best one moves.

    Args:
        build: width (or depth) to module; seeded here.
        sizes: widths or depths, at least three.
        data: a data set, ``(inputs, targets)``, or keyword arguments of a module that returns its loss.
        lrs: learning rates at the base size, at least three, evenly spaced on a logarithmic scale.
        along: what grows: ``"width"``, or ``"depth"``, the number of residual blocks at one width, under the depth
            rule ``"sqrt"`` unless `settings` name another.
        scheme, optimizer, settings: for `parametrize`, relative to `base_width` (the smallest width), or to
            ``base_depth`` residual branches (those of the smallest depth).
        natural_units: no base: every weight starts and steps as the rule says, with constants of one, and a learning
            rate is a relative change of the features per step (arXiv:2310.17813, section 5).
        groups: a user's own parametrisation instead: ``groups(module, lr)``; seeded like `build`.
        steps: of each run; batches of `batch_size` are drawn alike in all runs of a seed.
        schedule: makes a learning-rate scheduler from an optimiser; it has to keep the groups' ratios.
        tolerance: octaves of drift over the whole range that still count as transfer.
        around: run at each size only what it takes to have this many learning rates on either side of the lowest
            loss, beginning with the best one of the size before; None: the whole grid.
        ledger: where finished runs are kept, so that they are not run again.

    Raises:
        DataError: fewer than three sizes or learning rates, a schedule that sets absolute rates, or a
            size at which every run diverged.
        ModelError: the widths change no weight, or the depth too; the depths add no residual branch, or change the
            width too.

    Source: arXiv:2203.03466, figures 1 and 4 (width); arXiv:2310.02244 (depth).

    >>> import torch
    >>> from torch import nn
    >>> def build(n):
    ...     return nn.Sequential(nn.Linear(4, n), nn.ReLU(), nn.Linear(n, n), nn.ReLU(), nn.Linear(n, 2))
    >>> x = torch.randn(256, 4, generator=torch.Generator().manual_seed(0))
    >>> check = transfer_check(build, [16, 32, 64], (x, (x[:, 0] > 0).long()), [1e-3, 4e-3, 1.6e-2, 6.4e-2], steps=10)
    >>> len(check.optima)
    3
    """
    sizes, lrs = tuple(sorted(set(sizes))), tuple(sorted(set(lrs)))
    at_least_three(along, len(sizes), "to see a drift")
    at_least_three("learning rate", len(lrs), "to see where the loss is lowest")
    rungs = ladder(build, sizes, along, base_width, batch_of(data, 2, seed), settings)

    def run(size: int, number: int, lr: float) -> float:
        known = ledger.get(size, number, lr) if ledger is not None else None
        if known is not None:
            return known
        with seeded(seed, "transfer check", size, number):
            module = build(size)
            if groups is not None:
                own: Iterable[dict[str, Any]] = groups(module, lr)
            else:
                program, base = rebound(rungs.programs[size], module), None if natural_units else rungs.bases[size]
                own = parametrize_traced(
                    module, program, base, scheme=scheme, lr=lr, optimizer=optimizer, **rungs.settings
                )
        batches = _batches(data, batch_size, derived_seed(seed, "transfer batches", number))
        found = _final_loss(module, list(own), optimizer, batches, steps, loss, schedule)
        if ledger is not None:
            ledger.put(size, number, lr, found)
        return found

    columns = len(lrs) if around is None else min(len(lrs), 2 * around + 1)
    losses = np.full((len(sizes), seeds, len(lrs)), np.nan)
    start = len(lrs) // 2
    with progress("transfer check", len(sizes) * seeds * columns, show=show_progress) as advance:
        for size, table in zip(sizes, losses, strict=True):
            while wanted := missing(table.mean(0), start, around):
                for column, number in product(wanted, range(seeds)):
                    table[number, column] = run(size, number, lrs[column])
                    advance(1)
            _check_alive(f"{along} {size}", lrs, table)
            start = int(np.nanargmin(table.mean(0)))
    octaves = np.log2(np.array(lrs))
    optima = [optimum(octaves, table, seed) for table in losses]
    drift = fit_drift(np.array(sizes, dtype=float), optima)
    return TransferCheck(sizes, lrs, losses, tuple(optima), drift, _larger_is_better(losses), tolerance, along)


def missing(mean: Float[np.ndarray, "lrs"], start: int, around: int | None) -> list[int]:
    """Which learning rates have to be run next; none above one that diverged, where a lower one trains.

    >>> import numpy as np
    >>> missing(np.array([np.nan, np.nan, 0.2, 0.1, np.nan, np.nan]), start=2, around=1)
    [4]
    """
    unknown = np.isnan(mean)
    if around is None:
        return np.flatnonzero(unknown).tolist()
    best = start if unknown.all() else int(np.nanargmin(mean))
    trains, diverged = bool(np.isfinite(mean).any()), np.flatnonzero(np.isinf(mean))
    end = int(diverged.max()) if trains and len(diverged) else len(mean)
    return [i for i in range(best - around, best + around + 1) if 0 <= i < end and unknown[i]]


def _check_alive(place: str, lrs: tuple[float, ...], table: np.ndarray) -> None:
    if not np.isfinite(table.mean(0)).any():
        raise DataError(
            f"at {place} every learning rate from {lrs[0]:.3g} to {lrs[-1]:.3g} diverged; give smaller ones, "
            "and check that inputs and targets are finite."
        )


def _batches(data: Data, size: int, seed: int) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(seed)
    inputs, targets = batch_of(data)
    while True:
        if targets is None or not isinstance(inputs, (Tensor, dict)):
            yield inputs, targets
            continue
        chosen = torch.randint(targets.shape[0], (size,), generator=generator)
        picked = inputs[chosen] if isinstance(inputs, Tensor) else {key: value[chosen] for key, value in inputs.items()}
        yield picked, targets[chosen]


def _final_loss(
    module: nn.Module, groups: list[dict[str, Any]], optimizer: str, batches: Iterator[Batch], steps: int,
    loss: Loss | None, schedule: Schedule | None,
) -> float:  # fmt: skip
    """Mean training loss over the last tenth of the steps; infinite where the run diverged."""
    module.train()
    optimizers = make_optimizers(groups, optimizer)
    wanted = [[group["lr"] for group in one.param_groups] for one in optimizers]
    schedulers = [schedule(one) for one in optimizers] if schedule is not None else []
    _check_schedule(optimizers, wanted)
    first, tail = float("inf"), []
    for step in range(steps):
        for one in optimizers:
            one.zero_grad()
        value = batch_loss(module, next(batches), loss)
        value.backward()
        for one in optimizers:
            one.step()
        for scheduler in schedulers:
            scheduler.step()
            _check_schedule(optimizers, wanted)
        current = float(value.detach())
        first = current if step == 0 else first
        if not np.isfinite(current) or current > 100 * max(first, 1.0):
            return float("inf")
        if step >= steps - max(1, steps // 10):
            tail.append(current)
    return float(np.mean(tail))


def _check_schedule(optimizers: list[torch.optim.Optimizer], wanted: list[list[float]]) -> None:
    """A schedule may multiply the groups' learning rates by one number; it may not set them."""
    for one, start in zip(optimizers, wanted, strict=True):
        ratios = [group["lr"] / lr for group, lr in zip(one.param_groups, start, strict=True)]
        if max(ratios) > 1e-9 and max(ratios) - min(ratios) > 1e-6 * max(ratios):
            raise DataError(
                "the schedule sets absolute learning rates, which undoes the parametrisation; give one that multiplies "
                "each group's own, such as LambdaLR or CosineAnnealingLR with eta_min=0."
            )


def _larger_is_better(losses: np.ndarray) -> bool:
    """The lowest mean loss of each size against the size before it."""
    mean = losses.mean(1)
    best = np.nanargmin(mean, axis=1)
    low = np.array([row[i] for row, i in zip(mean, best, strict=True)])
    count = losses.shape[1]
    spread = [table[:, i].std(ddof=1) / count**0.5 if count > 1 else 0.0 for table, i in zip(losses, best, strict=True)]
    rises = np.diff(low) > 2 * np.hypot(spread[1:], spread[:-1])
    return not bool(rises.any())
