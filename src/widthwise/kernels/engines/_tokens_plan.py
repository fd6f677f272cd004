"""From a graph of nodes to the two programs of the token machine: what inputs bring along, and pairs of inputs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from widthwise.kernels._fields import Field, Inputs, Tokens
from widthwise.kernels._fields_attention import Mask
from widthwise.kernels.engines._maps import Unfit
from widthwise.kernels.engines._plan_types import Contribution
from widthwise.kernels.engines._tokens_codes import INTS, REALS
from widthwise.kernels.engines._tokens_layout import Layout
from widthwise.kernels.engines._tokens_program import Writer
from widthwise.kernels.engines._tokens_reader import Reader


@dataclass(frozen=True)
class Program:
    """Operations, ``[count, INTS]`` and ``[count, REALS]``, and the slots that they use."""

    ops: np.ndarray
    pars: np.ndarray
    slots: int
    known: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)


@dataclass(frozen=True)
class TokenPlan:
    """What the token machine does; made by `compile_tokens`.

    Attributes:
        outputs: how many fields are evaluated.
        own: what an input brings along, worked out from its covariances with itself.
        whole: the same, and the outputs of an input with itself.
        pair: the covariances of pairs of inputs.
        fixed, table: constants and lists of positions that operations refer to.
        data, tokens, masks, means: what is read of every input, in this order; `starts` says where each lies.
        places: numbers that an input brings along, `known` of which are read.
        first, last: those that pairs read lie between.
        area: numbers of the largest plane.
        longest: most positions.
        zero_tangents: whether a field without variance may have a tangent.
        stds: where standard deviations lie that activations with a kink read, and how many.
    """

    outputs: int
    own: Program
    whole: Program
    pair: Program
    fixed: np.ndarray
    table: np.ndarray
    data: tuple[Inputs, ...]
    tokens: tuple[Tokens, ...]
    masks: tuple[Mask, ...]
    means: tuple[Field, ...]
    starts: dict[tuple[str, int], int]
    places: int
    known: int
    first: int
    last: int
    area: int
    longest: int
    zero_tangents: bool
    stds: tuple[tuple[int, int], ...]

    def numbers(self, program: Program, real: np.dtype) -> tuple[np.ndarray, np.ndarray]:
        """Real arguments of a program's operations, and constants, in a precision."""
        if real.str not in program.known:
            program.known[real.str] = (program.pars.reshape(-1).astype(real), self.fixed.astype(real))
        return program.known[real.str]


def compile_tokens(
    *outputs: Field, contribution: Contribution, numbered: Callable[[Inputs], Tensor], tangents: bool = True
) -> TokenPlan | None:
    """A plan for the moments and tangents of fields with themselves, None where the token machine does not fit.

    Args:
        outputs: fields to evaluate; those with positions give their mean over equal positions.
        contribution: how much a trained parameter adds to the tangent kernel.
        numbered: what an `Inputs` field reads of one input that holds 1, 2, 3, ...: ``[1, positions, features]``.
        tangents: whether tangents are wanted.
    """
    try:
        return _compiled(outputs, contribution, numbered, tangents)
    except Unfit:
        return None


def _compiled(
    outputs: tuple[Field, ...], contribution: Contribution, numbered: Callable[[Inputs], Tensor], tangents: bool
) -> TokenPlan:
    reader = Reader(contribution, numbered)
    roots = [reader.node(u) for u in outputs]
    nodes = reader.nodes
    if any(nodes[root].kind == "fixed" for root in roots):
        raise Unfit("an output of constants")
    layout = Layout(nodes, reader.widths)
    pair = Writer(nodes, layout, own=False, tangents=tangents)
    pair.write(roots)
    own = Writer(nodes, layout, own=True, tangents=False)
    own.write_features(pair.wanted, [])
    whole = Writer(nodes, layout, own=True, tangents=tangents)
    whole.write_features(pair.wanted, roots)
    used = [nodes[i] for writer in (pair, own, whole) for i in writer.slots_of]
    sizes = [node.size for node in used]
    fixed = np.concatenate([np.zeros(1), *(array.ravel() for array in nodes.arrays)])
    return TokenPlan(
        len(outputs), _program(own), _program(whole), _program(pair), fixed, np.array([0, *layout.table], np.int64),
        tuple(nodes.data), tuple(nodes.tokens), tuple(nodes.masks), tuple(reader.means),
        dict(layout.starts), layout.places, layout.known,
        min(at for at, _ in pair.reads), max(at + count for at, count in pair.reads), max(sizes) ** 2, max(sizes),
        pair.offset_tangents, tuple(_kinks(layout)),
    )  # fmt: skip


def _kinks(layout: Layout) -> Iterator[tuple[int, int]]:
    for (kind, node, *_), at in layout.kept.items():
        if kind == "std":
            yield at, layout.nodes[node].size


def _program(writer: Writer) -> Program:
    ops = np.array(writer.ops, np.int64).reshape(-1, INTS)
    return Program(ops, np.array(writer.pars).reshape(-1, REALS), max(1, writer.taken))
