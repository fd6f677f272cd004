"""The part of a program that no random weight has touched, run on real inputs of any batch size."""

from typing import Any

import torch
from torch import Tensor

from widthwise.core import ModelError, UnsupportedOperation
from widthwise.program import AxisKind, Node, Program, Ref

CREATIONS = ("aten.arange.default", "aten.zeros.default", "aten.ones.default", "aten.full.default")
RESHAPES = ("aten.view.default", "aten.reshape.default", "aten.expand.default", "aten._unsafe_view.default")


def run_concrete(program: Program, nodes: list[Node], inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Values of the inputs, constants and concrete nodes for one batch.

    Raises:
        ModelError: an input has another shape than the one that was traced.
    """
    values: dict[str, Any] = dict(inputs)  # inputs stay first: they tell the batch size
    batch = next(iter(inputs.values())).shape[0]
    for node in program.nodes:
        if node.kind == "input":
            values |= {node.name: _checked(node, inputs[node.name])} if node.name in inputs else {}
        elif node.kind == "constant":
            values[node.name] = _like(node.value, next(iter(inputs.values())))
    batched = set(inputs)
    with torch.no_grad():
        for node in nodes:
            if any(ref.name in batched for ref in node.refs):
                batched.add(node.name)
                operands = values | {ref.name: _grown(program, ref.name, values, batched, batch) for ref in node.refs}
                values[node.name] = _at_batch(node, operands, batch)
            else:  # a constant keeps the size that it was traced with
                values[node.name] = _run(node, _resolve(node.args, values), _resolve(node.kwargs, values))
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def _at_batch(node: Node, values: dict[str, Any], batch: int) -> Any:
    """The result of an operation, with the batch at hand in place of the traced one in sizes that it is given."""
    args, kwargs = _resolve(node.args, values), _resolve(node.kwargs, values)
    if node.op in RESHAPES and node.shape is not None and node.axes is not None:
        args = [args[0], _rebatched(node, batch)]
    elif node.op in CREATIONS and node.axes is not None:
        args = [_rebatched(node, batch)[0] if node.op == "aten.arange.default" else _rebatched(node, batch), *args[1:]]
    return _run(node, args, kwargs)


def _grown(program: Program, name: str, values: dict[str, Any], batched: set[str], batch: int) -> Any:
    """A value as an operation on data needs it: constants along the batch are made anew for the batch at hand."""
    node = program.node(name)
    if name in batched or node.kind != "op" or node.axes is None:
        return values[name]
    if not any(factor.kind is AxisKind.BATCH for axis in node.axes for factor in axis):
        return values[name]
    operands = {ref.name: _grown(program, ref.name, values, batched, batch) for ref in node.refs}
    return _at_batch(node, operands, batch)


def constant_of(program: Program, node: Node) -> Any:
    """The value of a node that depends on constants alone."""
    if node.kind != "op":
        return node.value
    values = {ref.name: constant_of(program, program.node(ref.name)) for ref in node.refs}
    return _run(node, _resolve(node.args, values), _resolve(node.kwargs, values))


def check_examples_apart(program: Program, nodes: list[Node], inputs: dict[str, Tensor]) -> None:
    """Refuse programs that mix examples before the first matrix: their kernel is no function of two inputs.

    Raises:
        UnsupportedOperation: the value of a node for one example depends on the other examples.
    """
    if next(iter(inputs.values())).shape[0] < 2 or not nodes:
        return
    together = run_concrete(program, nodes, {name: torch.stack([x[0], x[-1]]) for name, x in inputs.items()})
    alone = run_concrete(program, nodes, {name: x[:1] for name, x in inputs.items()})
    for node in nodes:
        one, both = alone.get(node.name), together.get(node.name)
        if one is None or both is None or one.dim() == 0 or one.shape[1:] != both.shape[1:]:
            continue
        if both.shape != one.shape and torch.allclose(both[: one.shape[0]], one, rtol=1e-4, atol=1e-6, equal_nan=True):
            continue
        if both.shape == one.shape and torch.equal(both, one):
            continue
        raise UnsupportedOperation(node.op, node.module_path, "it mixes the examples of a batch")


def _like(value: Any, x: Tensor) -> Any:
    """A constant in the floating type and on the device of the inputs."""
    if not isinstance(value, Tensor):
        return value
    floating = value.is_floating_point() and x.is_floating_point()
    return value.to(device=x.device, dtype=x.dtype if floating else value.dtype)


def _run(node: Node, args: Any, kwargs: Any) -> Any:
    assert node.target is not None
    try:
        return node.target(*args, **kwargs)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"operation {node.op} in module '{node.module_path}' fails on these inputs: {reason}"
        ) from error


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
