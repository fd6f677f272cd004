"""Readouts by the table that also embeds the tokens (tied language models)."""

from dataclasses import replace

from widthwise.kernels._lowering import Lowering
from widthwise.kernels._registry import Lowered, rule
from widthwise.kernels._rules_linear import linear as plain_linear
from widthwise.program import Node, Ref, Weight

TIED = " (rows of tokens that are not in the inputs)"


@rule("aten.linear.default")
def linear(run: Lowering, node: Node) -> Lowered:
    """A linear layer; the last one may be the embedding table.

    Output t of a tied readout is ``E_t . h``. Rows of the table are independent, and h depends on those of the tokens
    in the inputs alone: for every other t the row is a readout drawn independently of h, and the kernels are those of
    an untied readout. Outputs whose token is in an input get a mean on top, from ``E_t . E_t`` in the residual stream:
    it grows with the width where the entries of the table do not shrink, and is never small beside the rest.
    """
    weight = run.value(node.args[1])
    if not isinstance(weight, Weight) or run.uses.get(weight.name) != ("table",) or not _is_output(run, node):
        return plain_linear(run, node)
    place = node.args[1].name
    before = run.values[place]
    run.values[place] = replace(weight, name=weight.name + TIED)
    result = plain_linear(run, node)
    run.values[place] = before
    run.rules[node.name] = "exact for tokens that are not in the inputs"
    return result


def _is_output(run: Lowering, node: Node) -> bool:
    """Whether nothing but slices of positions lies between a node and the program's output."""
    passed = {"aten.slice.Tensor", "aten.select.int", "aten.alias.default", "aten.to.dtype", "aten.contiguous.default"}
    name = run.program.output
    while name != node.name:
        last = run.program.node(name)
        if last.op not in passed or not isinstance(last.args[0], Ref):
            return False
        name = last.args[0].name
    return True
