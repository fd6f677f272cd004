"""The values that rules of operations take and give, and the rules themselves, by name of the operation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from widthwise.kernels._fields import Field
from widthwise.program import Node, Weight

if TYPE_CHECKING:
    from widthwise.kernels._lowering import Lowering


@dataclass(frozen=True)
class Concrete:
    """The value of a node that no random weight has touched: computed with real tensors.

    Attributes:
        node: its name.
        batched: whether it depends on the inputs; constants do not.
    """

    node: str
    batched: bool


@dataclass(frozen=True)
class Transposed:
    """A parameter matrix with its two axes exchanged."""

    weight: Weight


@dataclass(frozen=True)
class Several:
    """The results of an operation that has several (a split); None for those that have no rule."""

    results: tuple[Any, ...]


class Intermediate:
    """A value inside a pattern of operations (attention scores, a norm's statistic) that only some of them may read.

    Attributes:
        reason: why no other operation may.
    """

    reason = "only some operations may read it"


Lowered = Field | Concrete | Weight | Transposed | Several | Intermediate
Rule = Callable[["Lowering", Node], Lowered]

RULES: dict[str, Rule] = {}
RULES_ON: dict[type, dict[str, Rule]] = {}
"""Rules for operations on intermediate values, by the type of the value."""


def rule(*operations: str) -> Callable[[Rule], Rule]:
    """Register a rule under the ATen overloads that it reads (in-place variants are found by themselves)."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(operations, function))
        return function

    return register


def rule_on(kind: type, *operations: str) -> Callable[[Rule], Rule]:
    """Register a rule for operations of which an operand is an intermediate value of this type."""

    def register(function: Rule) -> Rule:
        RULES_ON.setdefault(kind, {}).update(dict.fromkeys(operations, function))
        return function

    return register


def find_rule(op: str, rules: dict[str, Rule] | None = None) -> Rule | None:
    """The rule of an operation; ``aten.relu_.default`` is read as ``aten.relu.default``."""
    rules = RULES if rules is None else rules
    if op in rules:
        return rules[op]
    parts = op.split(".")
    return rules.get(".".join([parts[0], parts[1].rstrip("_"), *parts[2:]])) if len(parts) > 2 else None
