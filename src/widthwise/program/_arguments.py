"""Arguments of an operation by the names of its schema."""

from typing import Any

from widthwise.program._types import Node


def arguments(node: Node) -> dict[str, Any]:
    """Arguments of an operation by name, defaults filled in, earlier nodes standing as `Ref`.

    Operations without an ATen schema (``getitem``, higher-order ones) give ``{"0": ..., "1": ...}``.

    >>> import torch, widthwise.program as wp
    >>> program = wp.trace(torch.nn.Linear(3, 2), torch.ones(4, 3))
    >>> sorted(wp.arguments(program.node(program.output)))
    ['bias', 'input', 'weight']
    """
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return {str(index): value for index, value in enumerate(node.args)} | dict(node.kwargs)
    bound: dict[str, Any] = {}
    for index, argument in enumerate(schema.arguments):
        if index < len(node.args) and not argument.kwarg_only:
            bound[argument.name] = node.args[index]
        elif argument.name in node.kwargs:
            bound[argument.name] = node.kwargs[argument.name]
        elif argument.has_default_value():
            bound[argument.name] = argument.default_value
    return bound
