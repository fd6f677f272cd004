"""Carrying a plan out: entries are rescaled, and multipliers placed where a module's input or output carries them."""

from typing import NamedTuple

import torch
from torch import nn

from widthwise.core import ModelError
from widthwise.program import Node, Program, Ref, Role, Weight
from widthwise.scaling._multipliers import place_block_scale, place_input_scale
from widthwise.scaling._plan import ScalingPlan
from widthwise.scaling._structure import is_view

RECORD = "_widthwise_scaled"


class Scaled(NamedTuple):
    """What an earlier call did to a weight: the ratio; scale and its source before; the tensor's version after."""

    ratio: float
    std: float
    source: str
    version: int


def earlier_of(before: dict[str, Scaled], weight: Weight) -> Scaled:
    """What was done to a weight so far."""
    return before.get(weight.name) or Scaled(1.0, weight.init_std, weight.init_source, 0)


def carry_out(module: nn.Module, program: Program, plan: ScalingPlan, init: bool) -> None:
    """Rescale the entries and place the multipliers of a plan.

    Raises:
        ModelError: entries changed since an earlier call.
    """
    record: dict[str, Scaled] = dict(getattr(module, RECORD, {}))
    if init:
        for row in plan.rows:
            if row.init_ratio == 1.0:
                continue
            known = record.get(row.name)
            if known is not None and row.parameter._version > known.version:
                raise ModelError(
                    f"parameter {row.name} changed since it was scaled; give init=False to keep the trained values, or "
                    "a fresh module."
                )
            with torch.no_grad():
                row.parameter.mul_(row.init_ratio)
            ratio, std, source = earlier_of(record, program.weight(row.name))[:3]
            record[row.name] = Scaled(ratio * row.init_ratio, std, source, row.parameter._version)
        object.__setattr__(module, RECORD, record)
    for row in plan.rows:
        place = input_place(program, program.weight(row.name), row.role)
        if place is not None:
            place_input_scale(module.get_submodule(place), row.multiplier)
    for score in plan.scores:
        place_block_scale(module.get_submodule(score.module_path), score.multiplier, score.block)


def input_place(program: Program, weight: Weight, role: Role) -> str | None:
    """The module whose first input carries a weight's multiplier; None where there is none.

    The product has to read what enters the module: one in the root's own forward has no such place.
    """
    users = [node for node in program.users(weight.name) if "embedding" not in node.op]
    if role not in (Role.OUTPUT, Role.EMBEDDING) or not users or len(weight.shape) < 2:
        return None
    path = users[-1].module_path
    return path if path and _enters(program, users[-1], path) else None


def _enters(program: Program, node: Node, path: str) -> bool:
    """Whether the computed operand of a product comes from outside of its module, views left out."""
    for _ in range(12):
        operands = [program.node(ref.name) for ref in node.refs if isinstance(ref, Ref)]
        operands = [operand for operand in operands if operand.kind in ("op", "input")]
        if len(operands) != 1:
            return False
        (operand,) = operands
        if operand.kind == "input":
            return False
        if operand.module_path != path and not operand.module_path.startswith(f"{path}."):
            return True
        if not is_view(operand):
            return False
        node = operand
    return False
