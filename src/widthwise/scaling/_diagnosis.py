"""From exponents to verdicts: which rule is broken, in which layer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from widthwise.core import Value
from widthwise.program import Program, Role, Weight
from widthwise.scaling._slopes import Slope

Status = Literal["holds", "broken", "uncertain", "too narrow", "no effect", "diverged"]
BrokenRule = Literal[
    "init", "readout init", "bias init", "learning rate", "embedding learning rate", "readout learning rate",
    "bias learning rate", "attention scale", "tied readout",
]  # fmt: skip


@dataclass(frozen=True)
class Observation(Value):
    """The exponent of one observable at one place.

    Attributes:
        observable: ``"activation"``, ``"score"`` or ``"score scale"`` at initialisation, ``"change"`` or
            ``"score change"`` after the steps, ``"weight"`` and ``"update"`` (of the first step) in natural norms,
            ``"tied weight"`` and ``"tied update"`` of tables as readouts, ``"alignment"``.
        place: module path, or name of the weight.
        slope: None where it vanishes or diverged.
        status: against what features that learn at every width need. ``"too narrow"``: an update whose norm falls with
            the width only as far as its stable rank still grows, which it cannot do for ever; wider networks decide.
            ``"no effect"``: an update of something that does not change the loss.
    """

    observable: str
    place: str
    slope: Slope | None
    status: Status


@dataclass(frozen=True)
class LayerVerdict(Value):
    """What is wrong with one weight or attention.

    Attributes:
        place: name of the weight, or module path of the queries.
        rule: which rule it breaks.
        sentence: the same in words, with the measured exponent.
        consequence: whether it may only follow from a wrong initial scale elsewhere (gradients carry it on).
    """

    place: str
    rule: BrokenRule
    sentence: str
    consequence: bool


def allowed(
    observable: str, place: str, program: Program, readouts: frozenset[str], tolerance: float
) -> tuple[float, float]:
    """The exponents that an observable may have."""
    lowest = float("-inf")
    if observable == "alignment":
        return lowest, float("inf")
    shrinks = observable in ("score", "score change", "tied weight") or (
        observable == "activation" and place in readouts
    )
    if observable == "weight":
        shrinks = program.weight(place).role is Role.OUTPUT
    return (lowest if shrinks else -tolerance), tolerance


def verdicts(
    observations: Mapping[tuple[str, str], Observation], program: Program, gradient: bool
) -> tuple[LayerVerdict, ...]:
    """The broken rules, causes before consequences."""
    found: list[LayerVerdict] = []
    for observation in observations.values():
        if observation.status == "broken" and observation.slope is not None:
            verdict = _verdict(observation, observations, program)
            if verdict is not None:
                found.append(verdict)
    causes = any(verdict.rule in ("init", "readout init", "tied readout") for verdict in found)
    if gradient and causes:
        found = [
            LayerVerdict(v.place, v.rule, v.sentence, v.rule.endswith("learning rate") or v.rule == "attention scale")
            for v in found
        ]
    return tuple(sorted(found, key=lambda verdict: verdict.consequence))


def _verdict(seen: Observation, others: Mapping[tuple[str, str], Observation], program: Program) -> LayerVerdict | None:
    assert seen.slope is not None
    power = f"width^{seen.slope.value:+.2f}"
    if seen.observable == "weight":
        weight = program.weight(seen.place)
        return LayerVerdict(seen.place, _init_rule(weight), f"{seen.place}: {_init_words(weight, power)}", False)
    if seen.observable == "update":
        weight = program.weight(seen.place)
        rule = _rate_rule(weight)
        words = (
            f"its update moves features by {power}; its learning rate needs a factor of width^{-seen.slope.value:+.2f}"
        )
        return LayerVerdict(seen.place, rule, f"{seen.place} ({weight.role.value}): {words}", False)
    if seen.observable in ("tied weight", "tied update"):
        words = f"the table is also the readout, whose logits scale as {power}: divide its input by the width"
        return LayerVerdict(seen.place, "tied readout", f"{seen.place}: {words}", False)
    if seen.observable in ("score scale", "score change"):
        words = f"scores of aligned queries and keys go as {power}: scale them by 1/head size, not by its root"
        return LayerVerdict(seen.place, "attention scale", f"{seen.place or 'attention'}: {words}", False)
    return None


def _init_rule(weight: Weight) -> BrokenRule:
    if weight.role is Role.OUTPUT:
        return "readout init"
    return "bias init" if weight.role is Role.VECTOR else "init"


def _init_words(weight: Weight, power: str) -> str:
    wanted = {
        Role.OUTPUT: "give its entries a standard deviation of 1/fan-in (or zero)",
        Role.VECTOR: "start it at zero or at a size that does not depend on the width",
        Role.EMBEDDING: "start it at a size that does not depend on the width",
    }.get(weight.role, "give its entries a standard deviation of 1/sqrt(fan-in)")
    return f"its initial size goes as {power} in natural units; {wanted}"


def _rate_rule(weight: Weight) -> BrokenRule:
    rules: dict[Role, BrokenRule] = {
        Role.EMBEDDING: "embedding learning rate",
        Role.OUTPUT: "readout learning rate",
        Role.VECTOR: "bias learning rate",
    }
    return rules.get(weight.role, "learning rate")
