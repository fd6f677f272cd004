"""Fused engines: whole networks evaluated in cache, for the field graphs that they recognise."""

from widthwise.kernels.engines._dispatch import Engine, fused_grams, part_of
from widthwise.kernels.engines._plan import Plan, compile_plan

__all__ = ["Engine", "Plan", "compile_plan", "fused_grams", "part_of"]
