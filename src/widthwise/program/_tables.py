"""The printed form of a program: two aligned tables."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from widthwise.program._types import Axis, Node, Weight

if TYPE_CHECKING:
    from widthwise.program._program import Program


def program_text(program: "Program") -> str:
    """Weights with their roles and scales, then the operations with their axes."""
    weights = [_weight_row(weight) for weight in program.weights]
    nodes = [_node_row(node) for node in program.nodes if node.kind != "weight"]
    head = f"{program.module_name}: {len(weights)} weights, {program.parameters:,} parameters, {len(nodes)} nodes"
    return "\n\n".join(
        (
            head,
            _table(("weight", "role", "shape", "fan-in", "fan-out", "init std", "init", "uses", "tied to"), weights),
            _table(("node", "operation", "shape", "axes", "module"), nodes),
        )
    )


def _weight_row(weight: Weight) -> tuple[str, ...]:
    mean = f" (mean {weight.init_mean:.4g})" if weight.init_mean else ""
    return (
        weight.name,
        weight.role.value,
        _shape(weight.shape),
        str(weight.fan_in),
        str(weight.fan_out),
        f"{weight.init_std:.4g}{mean}",
        weight.init_source,
        str(weight.uses),
        ", ".join(weight.aliases),
    )


def _node_row(node: Node) -> tuple[str, ...]:
    operation = node.op if node.kind == "op" else f"({node.kind})"
    axes = "unknown" if node.axes is None else ", ".join(map(_axis, node.axes))
    shape = "several" if node.shape is None else _shape(node.shape)
    return node.name, operation, shape, "" if node.shape is None else axes, node.module_path


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _axis(axis: Axis) -> str:
    return "·".join(f"{factor.kind.value}#{factor.id}" for factor in axis) or "1"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
