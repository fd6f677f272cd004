"""`recommend`: numbers to launch a run with, what they cost when they are off, and how far they are extrapolated."""

import math
from dataclasses import dataclass, field
from typing import Literal

from widthwise.core import DataError, Value
from widthwise.scaling._laws import compare_laws
from widthwise.scaling._laws import law as published
from widthwise.scaling._laws_fit import FittedLaw
from widthwise.scaling._laws_types import Advice, Bowl, Law, require_number

Level = Literal["inside", "near", "far"]
NEAR = 7.0  # published checks of Step Law reach about seven times its largest size


@dataclass(frozen=True)
class ExtrapolationRisk(Value):
    """How far a prediction lies from what its law was fitted on.

    Attributes:
        level: ``"inside"`` the fitted ranges, ``"near"`` (within a factor 7) or ``"far"``.
        factors: by which factor each quantity lies outside.
        lr_factor, batch_factor: half the 95 % interval, as a factor; None where no cloud is known.
        loss_at_stake: relative loss if both lie at the worst corner of their intervals; None without curvature.
        published_lr: least and greatest learning rate of the published laws that give one.
    """

    level: Level
    factors: dict[str, float]
    lr_factor: float | None
    batch_factor: float | None
    loss_at_stake: float | None
    published_lr: tuple[float, float]

    def __str__(self) -> str:
        outside = "; ".join(f"{name} by a factor {factor:.3g}" for name, factor in self.factors.items())
        low, high = self.published_lr
        lines = [f"extrapolation: {self.level}{' (' + outside + ')' if outside else ''}"]
        if self.lr_factor is not None and self.batch_factor is not None:
            lines.append(f"95 %: learning rate within a factor {self.lr_factor:.3g}, batch {self.batch_factor:.3g}")
        if self.loss_at_stake is not None:
            lines.append(f"the worst corner of the intervals costs {self.loss_at_stake:.2%} of the loss")
        return "\n".join([*lines, f"published laws give learning rates from {low:.3g} to {high:.3g}"])


@dataclass(frozen=True)
class Recommendation(Value):
    """What to launch a run with.

    Attributes:
        advice: of the law, before rounding.
        lr: peak learning rate, moved along the ridge with the rounded batch.
        batch_sequences, batch_tokens, steps: whole numbers, the batch a multiple of `batch_multiple` sequences.
        rounding_excess: relative loss that rounding costs; None where the curvature is not known.
        risk: of extrapolation.
        others: what the published laws say.
        bowl: curvature of the loss, where it is known.
        warnings: of the law, and of a recipe that differs from that of its runs.
    """

    advice: Advice
    lr: float
    batch_sequences: int
    batch_tokens: int
    steps: int
    rounding_excess: float | None
    risk: ExtrapolationRisk
    others: tuple[Advice, ...] = field(repr=False)
    bowl: Bowl | None
    warnings: tuple[str, ...]

    def penalty(self, lr: float, batch_tokens: float) -> float:
        """Relative loss above the law's optimum at another learning rate and batch.

        Raises:
            DataError: the law has no curvature, or the law or a number is not positive.
        """
        best, batch = self.advice.lr, self.advice.batch_tokens
        if self.bowl is None or best is None or batch is None:
            raise DataError(f"the curvature of the loss is not known for {self.advice.law}; use step-law or fit_law.")
        if lr <= 0 or batch_tokens <= 0:
            raise DataError(f"lr={lr} and batch_tokens={batch_tokens} must be positive.")
        return self.bowl.excess(lr / best, batch_tokens / batch)

    def table(self) -> str:
        """The published laws side by side."""
        rows = [f"{'law':<12}{'lr':>11}{'batch tokens':>15}{'steps':>12}"]
        for one in (self.advice, *(other for other in self.others if other.law != self.advice.law)):
            numbers = (_cell(one.lr, 11, ".3g"), _cell(one.batch_tokens, 15, ".4g"), _cell(one.steps, 12, ".4g"))
            rows.append(f"{one.law:<12}{''.join(numbers)}")
        return "\n".join(rows)

    def __str__(self) -> str:
        cost = "" if self.rounding_excess is None else f" (rounding costs {self.rounding_excess:.3%} of the loss)"
        head = (
            f"learning rate {self.lr:.4g}, batch {self.batch_sequences} sequences = {self.batch_tokens} tokens, "
            f"{self.steps} steps{cost}"
        )
        return "\n".join(
            [head, str(self.advice), str(self.risk), self.table(), *(f"warning: {w}" for w in self.warnings)]
        )


def recommend(
    params: float,
    tokens: float,
    sequence_length: int = 2048,
    *,
    law: str | Law | FittedLaw = "step-law",
    batch_multiple: int = 8,
    loss: float | None = None,
    compute: float | None = None,
    plateau: float = 0.0025,
    optimizer: str = "adamw",
    schedule: str = "cosine",
    final_lr: Literal["fixed", "proportional"] = "fixed",
    parametrization: str = "standard",
) -> Recommendation:
    """Learning rate, batch and steps to launch a run with.

    Args:
        params, tokens: raw counts; params without embeddings.
        sequence_length: tokens per sequence.
        law: name of a published law, or one that `fit_law` found.
        batch_multiple: the batch is rounded to a multiple of so many sequences, and the learning rate moved along the
            ridge of the bowl: d ln lr = -(cross / lr curvature) d ln batch.
        loss, compute: for laws that take them.
        plateau: relative rise of the loss that bounds the plateaus.
        optimizer, schedule, final_lr, parametrization: the recipe; what differs from that of Step Law's runs (AdamW,
            cosine to a fixed 1e-5, standard parametrisation) gives a warning.

    Raises:
        DataError: an argument is no raw count.
        WidthwiseError: no such law, or it gives no learning rate or batch for this run.

    >>> found = recommend(1e9, 1e11)
    >>> found.batch_sequences, found.steps, found.risk.level
    (544, 89758, 'inside')
    """
    if batch_multiple < 1:
        raise DataError(f"batch_multiple={batch_multiple} must be at least 1.")
    chosen = published(law) if isinstance(law, str) else law.law if isinstance(law, FittedLaw) else law
    advice = chosen.predict(params, tokens, sequence_length, loss=loss, compute=compute, plateau=plateau)
    lr = require_number("learning rate", advice.lr, chosen.name)
    exact = require_number("batch", advice.batch_tokens, chosen.name)
    sequences = max(1, round(exact / sequence_length / batch_multiple)) * batch_multiple
    batch = sequences * sequence_length
    bowl = chosen.bowl if chosen.bowl is not None and chosen.bowl.convex else None
    moved = lr * (batch / exact) ** (bowl.ridge if bowl else 0.0)
    others = compare_laws(params, tokens, sequence_length, loss=loss, compute=compute)
    recipe = _recipe_warnings(optimizer, schedule, final_lr, parametrization) if chosen.name == "step-law" else ()
    return Recommendation(
        advice,
        moved,
        sequences,
        batch,
        max(1, math.ceil(tokens / batch)),
        None if bowl is None else bowl.excess(moved / lr, batch / exact),
        extrapolation_risk(chosen, advice, others),
        others,
        bowl,
        (*advice.warnings, *recipe),
    )


def extrapolation_risk(law: Law, advice: Advice, others: tuple[Advice, ...]) -> ExtrapolationRisk:
    """Distance from the fitted ranges, width of the intervals, what they cost, and what other laws say."""
    factors = law.domain.outside(advice.run)
    worst = max(factors.values(), default=1.0)
    widths = [None if i is None else (i[1] / i[0]) ** 0.5 for i in (advice.lr_interval, advice.batch_interval)]
    stake = None
    if law.bowl is not None and widths[0] is not None and widths[1] is not None:
        stake = max(law.bowl.excess(widths[0] ** s, widths[1]) for s in (-1, 1))
    rates = [one.lr for one in others if one.lr is not None]
    level: Level = "inside" if worst <= 1 else "near" if worst <= NEAR else "far"
    return ExtrapolationRisk(level, factors, widths[0], widths[1], stake, (min(rates), max(rates)))


def _recipe_warnings(optimizer: str, schedule: str, final_lr: str, parametrization: str) -> tuple[str, ...]:
    found = []
    if optimizer.lower() != "adamw":
        found.append(f"the law holds for AdamW, not for {optimizer}")
    if schedule.lower() != "cosine":
        found.append(
            f"the rise of the learning rate with tokens belongs to the cosine schedule; {schedule} may not have it"
        )
    if final_lr != "fixed":
        found.append("a final learning rate in proportion to the peak moves the optimum to lower peaks; fix it at 1e-5")
    if parametrization.lower() not in ("standard", "sp"):
        found.append(
            f"under {parametrization} the learning rate should not fall with width; use transfer_check instead"
        )
    return tuple(found)


def _cell(value: float | None, width: int, spec: str) -> str:
    return f"{'-' if value is None else format(value, spec):>{width}}"
