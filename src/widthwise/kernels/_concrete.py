"""The part of a program that no random weight has touched, run on real inputs of any batch size."""

from typing import Any

import torch
from torch import Tensor

from widthwise.core import ModelError
from widthwise.program import AxisKind, Node, Program, Ref

RESHAPES = ("view", "reshape", "expand", "unsafe_view")


def run_concrete(program: Program, nodes: list[Node], inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Values of the inputs, constants and concrete nodes for one batch.

    Raises:
        ModelError: an input has another shape than the one that was traced.
    """
    values: dict[str, Any] = dict(inputs)  # inputs stay first: they tell the batch size
    batch = next(iter(inputs.values())).shape[0]
    for node in program.nodes:
        if node.kind == "input":
            values[node.name] = _checked(node, inputs[node.name])
        elif node.kind == "constant":
            values[node.name] = node.value
    with torch.no_grad():
        for node in nodes:
            assert node.target is not None
            args, kwargs = _resolve(node.args, values), _resolve(node.kwargs, values)
            if any(word in node.op for word in RESHAPES) and node.shape is not None and node.axes is not None:
                args = [args[0], _rebatched(node, batch)]
            values[node.name] = node.target(*args, **kwargs)
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def _checked(node: Node, value: Tensor) -> Tensor:
    if node.shape is not None and tuple(value.shape[1:]) != tuple(node.shape[1:]):
        raise ModelError(
            f"inputs of shape {tuple(value.shape[1:])} do not fit a program that was traced with "
            f"{tuple(node.shape[1:])}; trace the module again with such inputs."
        )
    return value


def _rebatched(node: Node, batch: int) -> list[int]:
    """The result's shape with the batch factor set to the batch at hand."""
    assert node.shape is not None and node.axes is not None
    sizes = []
    for size, axis in zip(node.shape, node.axes, strict=True):
        traced = [factor.size for factor in axis if factor.kind is AxisKind.BATCH]
        sizes.append(size // traced[0] * batch if traced else size)
    return sizes


def _resolve(tree: Any, values: dict[str, Any]) -> Any:
    if isinstance(tree, Ref):
        return values[tree.name]
    if isinstance(tree, dict):
        return {key: _resolve(item, values) for key, item in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_resolve(item, values) for item in tree]
    return tree
