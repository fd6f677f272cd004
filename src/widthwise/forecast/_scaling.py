"""The section "How to scale it": the spectral parametrization of the module, role by role."""

from torch import nn

from widthwise.core import WidthwiseError
from widthwise.forecast._types_theory import ScalingRow
from widthwise.program import Program, Role
from widthwise.scaling import TIED, Doubling, ScalingPlan, doubling, parametrize_traced

SCHEME = "spectral"


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
    groups: dict[tuple[str, str, Doubling], list[str]] = {}
    for row in plan.rows:
        groups.setdefault((row.role.value, row.reason, doubling(row, SCHEME)), []).append(row.name)
    order = [role.value for role in Role]
    rows = [
        ScalingRow(role, tuple(names), reason, change.init, change.multiplier, change.adam, change.sgd)
        for (role, reason, change), names in groups.items()
    ]
    return tuple(sorted(rows, key=lambda row: order.index(row.role)))


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
