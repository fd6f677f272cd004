"""Tracing: from any `torch.nn.Module` to a `Program`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

import widthwise.program._axes_recurrent
import widthwise.program._axes_shapes
import widthwise.program._axes_shuffles
import widthwise.program._axes_weights  # noqa: F401  (they register their rules)
from widthwise.core import ModelError, TraceError
from widthwise.program._axes import Labels, label
from widthwise.program._export import at_least_two, export, split_examples
from widthwise.program._graph import Graph, inputs_of, read_graph
from widthwise.program._kinds import axes_of, is_unknown, resolve
from widthwise.program._program import Program
from widthwise.program._types import Factor, Node
from widthwise.program._weights import read_weights


def trace(module: nn.Module, example_inputs: Any, *, wider: nn.Module | None = None, training: bool = False) -> Program:
    """Trace an ordinary module into a tensor program.

    The module is exported by `torch.export` as it is (its mode is put back afterwards); every parameter gets a role
    and the scale that it was initialised with, every tensor axis gets its factors. Blocks under `torch.no_grad` and
    `torch.autocast` are inlined: the program keeps the precision of the tensors that it is given.

    Args:
        module: any module with parameters that `torch.export` can export.
        example_inputs: one example batch: a tensor, a tuple of positional or a dict of keyword arguments. The first
            axis of each input is the batch; a batch of one is repeated.
        wider: the same architecture built at another width. Axes whose sizes differ are then widths and no others;
            without it, widths are what a weight makes and another weight, a norm or a reduction takes up.
        training: trace the module in training mode (batch statistics in batch norm, active dropout).

    Raises:
        ModelError: the module has no parameters or raises on the examples, or the inputs are of no known form.
        TraceError: `torch.export` cannot trace it, or `wider` is another architecture.

    >>> import torch
    >>> mlp = torch.nn.Sequential(torch.nn.Linear(3, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))
    >>> [(weight.name, weight.role.value) for weight in trace(mlp, torch.ones(2, 3)).weights]
    [('0.weight', 'input'), ('0.bias', 'vector'), ('2.weight', 'output'), ('2.bias', 'finite')]
    """
    _check_module(module)
    examples = at_least_two(split_examples(example_inputs))
    graph = read_graph(export(module, examples, training), module)
    labels = label(graph.nodes, graph.shapes)
    sizes = None
    if wider is not None:
        _check_module(wider)
        other = read_graph(export(wider, examples, training), wider)
        sizes = _sizes_in(graph, labels, other)
    known = resolve(labels, graph.outputs, sizes)
    nodes = tuple(_labelled(node, labels, known) for node in graph.nodes)
    return Program(
        nodes=nodes,
        weights=read_weights(module, nodes, labels, known),
        inputs=tuple(inputs_of(graph.nodes)),
        outputs=graph.outputs,
        output=graph.main_output,
        module_name=type(module).__name__,
    )


def _check_module(module: Any) -> None:
    if not isinstance(module, nn.Module):
        raise ModelError(f"{type(module).__name__} is not a torch.nn.Module; give the module itself, not its factory.")
    parameters = list(module.parameters())
    if not parameters:
        raise ModelError(f"{type(module).__name__} has no parameters; there is nothing to learn or to forecast.")
    if any(isinstance(one, nn.parameter.UninitializedParameter) for one in parameters):
        raise ModelError(f"{type(module).__name__} has lazy parameters; call it once on an example batch first.")


def _labelled(node: Node, labels: Labels, known: Mapping[int, Factor]) -> Node:
    axes = labels.axes[node.name]
    if axes is None or isinstance(axes, list) or is_unknown(labels, axes):
        return node
    return replace(node, axes=axes_of(labels, axes, known))


def _sizes_in(graph: Graph, labels: Labels, other: Graph) -> dict[int, int]:
    """Size of each factor in another graph of the same architecture.

    Raises:
        TraceError: the graphs differ, or all sizes are the same.
    """
    mine, theirs = graph.nodes, other.nodes
    for one, two in zip(mine, theirs, strict=False):
        if (one.kind, one.op) != (two.kind, two.op):
            raise TraceError(
                f"wider is another architecture: {one.op} in module '{one.module_path}' stands where it has {two.op} "
                f"in '{two.module_path}'; change the width only."
            )
    if len(mine) != len(theirs):
        raise TraceError(
            f"wider is another architecture: {len(theirs)} nodes against {len(mine)}; change the width only."
        )
    other_labels = label(theirs, other.shapes)
    sizes: dict[int, int] = {}
    for one, two in zip(mine, theirs, strict=True):
        axes, other_axes = labels.axes[one.name], other_labels.axes[two.name]
        if isinstance(axes, tuple) and isinstance(other_axes, tuple):
            for axis, other_axis in zip(axes, other_axes, strict=False):
                leaves, others = labels.factors.leaves(axis), other_labels.factors.leaves(other_axis)
                if len(leaves) == len(others):
                    for leaf, its in zip(leaves, others, strict=True):
                        sizes.setdefault(leaf, other_labels.factors.sizes[its])
    if all(size == labels.factors.sizes[leaf] for leaf, size in sizes.items()):
        raise TraceError("wider has the same sizes as the module; build it at another width.")
    return sizes
