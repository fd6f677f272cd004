"""The section "How to scale it": the spectral parametrization of the module, role by role."""

from dataclasses import dataclass

from torch import nn

from widthwise.core import WidthwiseError
from widthwise.forecast._types import ScalingRow
from widthwise.program import Program, Role
from widthwise.scaling import ScalingPlan, WeightPlan
from widthwise.scaling._families import UpdateFamily
from widthwise.scaling._parametrize import ROLES_WITH_ONE_HOT_INPUT, parametrize_traced
from widthwise.scaling._schemes import Factors, Fans, rule_of

SCHEME = "spectral"
TIED = "tied to the readout"


@dataclass(frozen=True)
class Change:
    """Factors of a doubling of the width."""

    init: float
    multiplier: float
    adam: float
    sgd: float


def scaling_section(module: nn.Module, program: Program | None) -> tuple[tuple[ScalingRow, ...], tuple[str, ...]]:
    """One row per role (and reason), and notes on attention and tied weights; nothing for what cannot be traced."""
    if program is None:
        return (), ("The network could not be traced, so that the roles of its weights are not known.",)
    try:
        plan = parametrize_traced(
            module, program, None, scheme=SCHEME, lr=1.0, optimizer="adamw", init=False, dry_run=True
        ).plan
    except WidthwiseError as error:
        return (), (f"No parametrization was found: {str(error).rstrip('.')}.",)
    return _rows(plan), _notes(plan)


def _rows(plan: ScalingPlan) -> tuple[ScalingRow, ...]:
    groups: dict[tuple[str, str, Change], list[str]] = {}
    for row in plan.rows:
        groups.setdefault((row.role.value, row.reason, doubling(row)), []).append(row.name)
    order = [role.value for role in Role]
    rows = [
        ScalingRow(role, tuple(names), reason, change.init, change.multiplier, change.adam, change.sgd)
        for (role, reason, change), names in groups.items()
    ]
    return tuple(sorted(rows, key=lambda row: order.index(row.role)))


def doubling(row: WeightPlan) -> Change:
    """What becomes of a weight's scales when every width doubles.

    The ratio of the rule at twice the growing fans to the rule at the present ones.
    """
    fans, twice = _fans(row, 1), _fans(row, 2)
    rule = rule_of(SCHEME)

    def ratio(family: UpdateFamily) -> Factors:
        now, then = rule(fans, family), rule(twice, family)
        return Factors(then.init / now.init, then.multiplier / now.multiplier, then.step / now.step, 1.0)

    adam, sgd = ratio("sign"), ratio("gradient")
    multiplier = fans.fan_out / twice.fan_out if TIED in row.reason else adam.multiplier
    init = adam.init if row.init_std else 1.0
    return Change(init, multiplier, adam.step, sgd.step)


def _fans(row: WeightPlan, factor: int) -> Fans:
    """The fans of a weight with every growing side multiplied."""
    grows_in = row.role in (Role.HIDDEN, Role.OUTPUT)
    grows_out = row.role in (Role.HIDDEN, Role.INPUT, Role.VECTOR, Role.EMBEDDING)
    fan_in = 1.0 if row.role in ROLES_WITH_ONE_HOT_INPUT else float(row.fan_in * (factor if grows_in else 1))
    return Fans(row.role, fan_in, float(row.fan_out * (factor if grows_out else 1)), grows_in, grows_out)


def _notes(plan: ScalingPlan) -> tuple[str, ...]:
    notes = list(plan.notes)
    sizes = sorted({score.head_size for score in plan.scores})
    if plan.scores:
        heads = ", ".join(map(str, sizes))
        notes.append(
            f"Attention scores of heads of size {heads} are divided by the head size instead of its root, so that they "
            "keep their size when heads grow; growing the number of heads changes nothing."
        )
    tied = [row.name for row in plan.rows if TIED in row.reason]
    if tied:
        notes.append(
            f"{', '.join(tied)} is both embedding and readout: it is trained as an embedding, and the readout's input "
            "is divided by the width."
        )
    return tuple(notes)
