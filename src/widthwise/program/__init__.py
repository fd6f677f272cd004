"""Tracing a module into a tensor program: weights with roles, operations with labelled axes."""

from widthwise.program._arguments import arguments
from widthwise.program._axes import axis_rule
from widthwise.program._program import Program
from widthwise.program._trace import trace
from widthwise.program._types import Axis, AxisKind, Factor, Node, Ref, Role, Weight, axis_size

__all__ = [
    "Axis",
    "AxisKind",
    "Factor",
    "Node",
    "Program",
    "Ref",
    "Role",
    "Weight",
    "arguments",
    "axis_rule",
    "axis_size",
    "trace",
]
