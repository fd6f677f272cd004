"""`scale`: the table, the two checks on a short budget, and what to set at the target width."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from widthwise.core import DataError, Figure, ModelError, Value, check_writable, to_plain, write_text
from widthwise.scaling._coordinate_check import (
    Build,
    check_factory,
    coordinate_check,
    traced,
)
from widthwise.scaling._coordinate_result import CoordinateCheck
from widthwise.scaling._families import family_of
from widthwise.scaling._ledger import Ledger, setting_key
from widthwise.scaling._parametrize import parametrize_traced
from widthwise.scaling._plan import ScalingPlan
from widthwise.scaling._runs import Data, Loss, at_least_three, batch_of
from widthwise.scaling._schemes import AbcByRole, rule_of
from widthwise.scaling._transfer_check import TransferCheck, transfer_check

WIDENINGS = 3


@dataclass(frozen=True)
class ScaleResult(Value):
    """How to scale a model, and the evidence.

    Attributes:
        scheme, optimizer: as asked for.
        widths: of the checks; `base_width` is the one that learning rates are relative to.
        base_width, target_width: where hyperparameters are tuned, and where they are wanted.
        base_lr: recommended learning rate at the base width: the mean of the sweeps' optima, weighted by their
            precision. It is also the one for any other width, once the factors of `plan` are applied.
        lr_stderr_octaves: standard error of its base-2 logarithm, the spread over widths included.
        plan: what to set for every weight at the target width, with `base_lr`.
        coordinates, transfer: the checks.
        warnings: what to know before relying on it, one sentence each.
    """

    scheme: str
    optimizer: str
    widths: tuple[int, ...]
    base_width: int
    target_width: int
    base_lr: float
    lr_stderr_octaves: float
    plan: ScalingPlan
    coordinates: CoordinateCheck = field(repr=False)
    transfer: TransferCheck = field(repr=False)
    warnings: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether no rule is broken and the best learning rate stays within the tolerance."""
        return not self.coordinates.verdicts and self.transfer.passed

    def recommendation(self) -> dict[str, Any]:
        """What ``scale.json`` holds."""
        drift = self.transfer.drift
        return to_plain(
            {
                "schema_version": 1,
                "scheme": self.scheme,
                "optimizer": self.optimizer,
                "base_width": self.base_width,
                "target_width": self.target_width,
                "base_lr": self.base_lr,
                "lr_stderr_octaves": self.lr_stderr_octaves,
                "verdict": {
                    "passed": self.passed,
                    "coordinate_check": not self.coordinates.verdicts,
                    "transfer_check": self.transfer.passed,
                    "wider_is_better": self.transfer.larger_is_better,
                    "broken_rules": self.coordinates.verdicts,
                },
                "drift": {
                    "octaves_per_doubling": drift.per_doubling,
                    "low": drift.low,
                    "high": drift.high,
                    "octaves_in_all": drift.total,
                },
                "weights": self.plan.rows,
                "attention_scores": self.plan.scores,
                "notes": self.plan.notes,
                "warnings": self.warnings,
                "coordinates": self.coordinates.observations,
                "sweeps": self.transfer,
            }
        )

    def save(self, folder: str | Path) -> Path:
        """Write ``scale.json`` into `folder`; gives its path.

        Raises:
            OutputError: the folder cannot be written.
        """
        path = Path(folder) / "scale.json"
        write_text(path, json.dumps(self.recommendation(), indent=2, allow_nan=False) + "\n")
        return path

    def figures(self) -> dict[str, Figure]:
        """Coordinate check and sweeps, by name."""
        return {
            "coordinates": self.coordinates.figure("change"),
            "updates": self.coordinates.figure("update"),
            "transfer": self.transfer.figure(),
        }

    def __str__(self) -> str:
        broken = [f"BROKEN: {verdict.rule}: {verdict.sentence}" for verdict in self.coordinates.verdicts]
        rows = [
            str(self.plan),
            *(broken or ["coordinate check: no rule is broken"]),
            str(self.transfer),
            f"at width {self.target_width}, use a base learning rate of {self.base_lr:.3g} "
            f"(± {self.lr_stderr_octaves:.2f} octaves) with the factors above",
        ]
        return "\n".join(rows + [f"warning: {warning}" for warning in self.warnings])


def scale(
    build: Build,
    widths: Sequence[int],
    data: Data,
    *,
    target_width: int | None = None,
    scheme: str | AbcByRole = "spectral",
    optimizer: str = "adamw",
    lr: float | None = None,
    steps: int = 60,
    seeds: int = 2,
    lrs: Sequence[float] | None = None,
    check_steps: int = 3,
    check_seeds: int = 3,
    batch_size: int = 64,
    loss: Loss | None = None,
    tolerance: float = 0.5,
    seed: int = 0,
    keep: str | Path | None = None,
    name: str = "",
    show_progress: bool = False,
    **settings: Any,
) -> ScaleResult:
    """Check at small widths that hyperparameters hold, and say what to set for every weight at the target width.

    Args:
        build: width to module.
        widths: at least three, for the checks; the smallest is the base.
        data: a data set, ``(inputs, targets)``, or keyword arguments of a module that returns its loss.
        target_width: the width that is wanted; by default the largest of `widths`. It may be far larger: the module is
            built and traced there once, not trained.
        lr: middle of the sweep at the base width; by default a usual one of the optimiser's kind.
        lrs: the learning rates to sweep instead: by default nine, an octave apart, around `lr`, and three more at an
            end where an optimum lies, up to three times.
        steps, seeds: of the sweep's runs.
        check_steps, check_seeds: of the coordinate check.
        tolerance: octaves of drift over all `widths` that still count as transfer.
        keep: folder of the ledger of finished runs, so that the same call goes on where an interrupted one stopped.
        name: of the model, part of what the ledger recognises a call by (with the weights' shapes, data and settings).
        settings: more of `parametrize`'s arguments.

    Raises:
        DataError: fewer than three widths, an unknown scheme or optimiser, or every run of a width diverged.
        ModelError: the widths change no weight, or change the depth too.

    >>> import torch
    >>> from torch import nn
    >>> def build(n):
    ...     return nn.Sequential(nn.Linear(4, n), nn.ReLU(), nn.Linear(n, n), nn.ReLU(), nn.Linear(n, 2))
    >>> x = torch.randn(256, 4, generator=torch.Generator().manual_seed(0))
    >>> result = scale(build, [16, 32, 64], (x, (x[:, 0] > 0).long()), target_width=512, steps=5, seeds=1)
    >>> result.plan["2.weight"].lr / result.base_lr
    0.03125
    """
    rule_of(scheme)
    family = family_of(optimizer)
    widths = tuple(sorted(set(widths)))
    at_least_three("width", len(widths), "to see a trend")
    if widths[0] < 1:
        raise DataError(f"width {widths[0]} is no width of a network; give at least 1.")
    target = widths[-1] if target_width is None else target_width
    check_factory(build, (widths[0], target) if target != widths[0] else widths)
    middle = lr if lr is not None else {"gradient": 0.1, "sign": 2.0**-8, "orthogonal": 0.02}[family]
    if not 0 < middle < float("inf"):
        raise DataError(f"lr is {middle}; give a finite number above zero.")
    grid = tuple(sorted(set(lrs))) if lrs is not None else tuple(middle * 2.0**k for k in range(-4, 5))
    common: dict[str, Any] = {"scheme": scheme, "optimizer": optimizer, "batch_size": batch_size, "loss": loss}
    common |= {"seed": seed, "show_progress": show_progress, **settings}
    ledger = _ledger(
        keep, build, data, widths[0], (name, steps, str(scheme), optimizer, batch_size, seed, widths[0], settings)
    )
    for _ in range(1 + (WIDENINGS if lrs is None else 0)):
        transfer = transfer_check(
            build, widths, data, grid, steps=steps, seeds=seeds, tolerance=tolerance, ledger=ledger, **common
        )
        wider = _wider(transfer)
        if wider == grid:
            break
        grid = wider if lrs is None else grid
    base_lr, spread = _common_optimum(transfer)
    coordinates = coordinate_check(build, widths, data, lr=base_lr, steps=check_steps, seeds=check_seeds, **common)
    plan = _plan(build, widths[0], target, data, scheme, optimizer, base_lr, seed, settings)
    warnings = _warnings(transfer, coordinates, widths, target, str(scheme))
    kind = scheme if isinstance(scheme, str) else "abc"
    return ScaleResult(
        kind, optimizer, widths, widths[0], target, base_lr, spread, plan, coordinates, transfer, warnings
    )


def _ledger(
    keep: str | Path | None, build: Callable[..., Any], data: Data, width: int, what: tuple[Any, ...]
) -> Ledger:
    if keep is None:
        return Ledger(None, "")
    shapes = {name: tuple(value.shape) for name, value in build(width).named_parameters()}
    return Ledger(check_writable(keep) / "sweeps.json", setting_key(what, shapes, data))


def _wider(check: TransferCheck) -> tuple[float, ...]:
    """The grid, three octaves longer at each end where an optimum lies."""
    mean = check.losses.mean(1)
    best = {int(row.argmin()) for row in mean if np.isfinite(row).any()}
    low, high = check.lrs[0], check.lrs[-1]
    below = tuple(low * 2.0**-k for k in (3, 2, 1)) if 0 in best or not best else ()
    above = tuple(high * 2.0**k for k in (1, 2, 3)) if len(check.lrs) - 1 in best else ()
    return (*below, *check.lrs, *above)


def _common_optimum(check: TransferCheck) -> tuple[float, float]:
    """The learning rate for all widths and the standard error of its base-2 logarithm."""
    places = np.array([found.octaves for found in check.optima])
    weights = 1 / np.array([found.stderr for found in check.optima]) ** 2
    mean = float(weights @ places / weights.sum())
    excess = max(1.0, float(weights @ (places - mean) ** 2) / (len(places) - 1))
    return float(2.0**mean), float((excess / weights.sum()) ** 0.5)


def _plan(
    build: Build, base_width: int, target: int, data: Data, scheme: str | AbcByRole, optimizer: str, lr: float,
    seed: int, settings: dict[str, Any],
) -> ScalingPlan:  # fmt: skip
    example = batch_of(data, 2, seed)
    other = base_width if target != base_width else 2 * base_width
    module = build(target)
    try:
        program, base = (
            traced(module, example, build(other)),
            traced(build(base_width), example, build(max(target, other))),
        )
    except ModelError as error:
        raise ModelError(f"the model cannot be built at width {target}: {error}") from error
    groups = parametrize_traced(
        module, program, base, scheme=scheme, lr=lr, optimizer=optimizer, dry_run=True, **settings
    )
    return groups.plan


def _warnings(
    transfer: TransferCheck, coordinates: CoordinateCheck, widths: tuple[int, ...], target: int, scheme: str
) -> tuple[str, ...]:
    found = []
    edges = [width for width, best in zip(widths, transfer.optima, strict=True) if best.at_edge]
    if edges:
        found.append(
            f"the best learning rate at width {', '.join(map(str, edges))} lies at the edge of the sweep; give another "
            "lr= or a wider grid."
        )
    if transfer.diverged:
        found.append(f"{transfer.diverged} of {transfer.losses.size} runs diverged; they count as censored.")
    if target > widths[-1]:
        octaves = float(np.log2(target / widths[-1]))
        reach = max(abs(transfer.drift.low), abs(transfer.drift.high)) * octaves
        found.append(
            f"width {target} lies {octaves:.1f} doublings beyond the checked ones, over which the best learning "
            f"rate may drift by up to {reach:.1f} octaves."
        )
    uncertain = sum(seen.status == "uncertain" for seen in coordinates.observations)
    if uncertain:
        found.append(f"{uncertain} exponents are uncertain at these widths; more check_seeds or widths decide them.")
    found += coordinates.notes
    if scheme in ("standard", "ntk"):
        found.append(f"the {scheme} parametrisation does not carry hyperparameters over widths; use spectral or mup.")
    return tuple(found)


__all__ = ["ScaleResult", "scale"]
