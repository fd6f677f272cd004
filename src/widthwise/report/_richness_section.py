"""The section on feature-learning strength: the plane, its exponents, what a run was, and what to set."""

from dataclasses import dataclass
from math import isfinite
from typing import Any

from widthwise.core import Figure, to_plain
from widthwise.probe import Regime
from widthwise.report._numbers import interval, number
from widthwise.report._sections import Section, Tile
from widthwise.report._tables import Table, table
from widthwise.scaling import Exponent, RateBound, RichnessAdvice, RichnessSweep, richness_advice

WORDS = {
    "lazy": "it trained like its linearisation: the initial features were refitted, none were learned",
    "rich": "it learned features",
    "ultra-rich": "it outgrew its initialisation after a plateau, and learned features in steps",
    "undecided": "the loss hardly fell, so that nothing can be said; give more steps",
}
PARTS = {"optimum": "best rate", "edge": "largest rate that trains", "floor": "smallest rate that trains"}


@dataclass(frozen=True)
class Richness:
    """A sweep over gamma and learning rate, and what the run at the best of them was."""

    sweep: RichnessSweep
    regime: Regime | None = None

    @property
    def advice(self) -> RichnessAdvice | None:
        """What to set; None where nothing trained."""
        return richness_advice(self.sweep) if any(isfinite(one.value) for one in self.sweep.optima) else None

    def recommendation(self) -> dict[str, Any]:
        """What ``scale.json`` holds of it."""
        sweep = self.sweep
        regime = self.regime
        return to_plain(
            {
                "depth": sweep.depth,
                "steps": sweep.steps,
                "gammas": sweep.gammas,
                "best_rates": sweep.optima,
                "largest_rates": sweep.edges,
                "smallest_rates": sweep.floors,
                "exponents": sweep.exponents,
                "law": {"lazy": 2.0, "rich": 2 / sweep.depth},
                "regime": None if regime is None else {"verdict": regime.verdict, "reasons": regime.reasons},
                "set": self.advice,
            }
        )

    def figures(self) -> dict[str, Figure]:
        """The plane, and the run at the best gamma."""
        return {"richness": self.sweep.plot()} | ({} if self.regime is None else {"regime": self.regime.plot()})

    def tile(self) -> Tile | None:
        """The key fact."""
        advice = self.advice
        if advice is None:
            return None
        verdict = "" if self.regime is None else f"; {self.regime.verdict}"
        return Tile(
            "Feature-learning strength",
            f"gamma {advice.gamma:.4g}",
            f"learning rate {_rate(advice.rate)} (SGD){verdict}",
        )

    def section(self) -> Section:
        """Words, figures and tables."""
        advice = self.advice
        notes = () if advice is None else tuple(f"{words[0].upper()}{words[1:]}" for words in advice.cautions)
        return Section(
            "richness", "How much it learns features", self._words(advice), tuple(self.figures()),
            (self._rates(), self._exponents()), notes,
        )  # fmt: skip

    def _words(self, advice: RichnessAdvice | None) -> tuple[str, ...]:
        sweep = self.sweep
        if advice is None:
            return (f"Nothing trained within {sweep.steps} steps at any gamma; give more steps.",)
        words = [
            f"The outputs are divided by gamma: small values are lazy, large ones learn features. After {sweep.steps} "
            f"steps of SGD the training loss was lowest, {number(advice.loss)}, at gamma = {advice.gamma:.4g} with a "
            f"learning rate of {number(advice.rate.value)}."
        ]
        if self.regime is not None:
            words.append(f"That run was {self.regime.verdict}: {WORDS[self.regime.verdict]}.")
            words.append(f"The evidence: {'; '.join(self.regime.reasons)}.")
        words.append(
            f"To set it at any width: {advice.call}. The learning rate is in natural units and follows gamma by "
            "itself, so that a search over gamma needs no second one over the rate."
        )
        return tuple(words)

    def _rates(self) -> Table:
        sweep, advice = self.sweep, self.advice
        losses = advice.losses if advice is not None else (float("inf"),) * len(sweep.gammas)
        rows = [
            (
                f"{gamma:.4g}",
                *(_rate(bound[k]) for bound in (sweep.optima, sweep.edges, sweep.floors)),
                number(losses[k]),
            )
            for k, gamma in enumerate(sweep.gammas)
        ]
        columns = ("gamma", "best rate", "largest that trains", "smallest that trains", "lowest loss")
        return table("Learning rates by gamma", columns, "nnnnn", rows)

    def _exponents(self) -> Table:
        rows = []
        for side, law in (("lazy", 2.0), ("rich", 2 / self.sweep.depth)):
            for part, words in PARTS.items():
                expected = f"{law:.3g}" if part != "floor" else ("2" if side == "lazy" else "1")
                rows.append((words, side, *_exponent(self.sweep.exponents[f"{part}, {side}"]), expected))
        ends = f"lazy: up to {self.sweep.lazy_below:g}, rich: from {self.sweep.rich_above:g}"
        title = f"Exponents in gamma ({ends}; {self.sweep.depth} matrices)"
        return table(title, ("of", "side", "fitted", "95 % interval", "theory"), "ttnnn", rows)


def _rate(bound: RateBound) -> str:
    """``0.21``, or ``0.21 or more`` where the tried rates end."""
    if not isfinite(bound.value):
        return "none"
    below, above = not bound.low > 0, not isfinite(bound.high)
    return number(bound.value) + (" or less" if below and not above else " or more" if above and not below else "")


def _exponent(fit: Exponent | None) -> tuple[str, str]:
    return ("too few gammas", "") if fit is None else (number(fit.value), interval(fit.low, fit.high))
