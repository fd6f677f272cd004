"""Factors against index maps: every entry of a tensor is followed through the operation that moves it."""

from collections.abc import Sequence
from math import prod

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from widthwise.program import Node, Ref
from widthwise.program._axes import Labels, label
from widthwise.program._factors import Factors
from widthwise.program._trace import trace  # noqa: F401  (registers the rules)

aten = torch.ops.aten


@st.composite
def factorisation(draw: st.DrawFn, size: int) -> tuple[int, ...]:
    """Sizes, ones among them, whose product is `size`."""
    sizes = []
    while size > 1 or (len(sizes) < 2 and draw(st.booleans())):
        one = draw(st.sampled_from([part for part in range(1, size + 1) if size % part == 0]))
        sizes.append(one)
        size //= one
        if len(sizes) > 5:
            sizes.append(size)
            break
    return tuple(sizes) or (1,)


@st.composite
def chains(draw: st.DrawFn) -> tuple[tuple[int, ...], list[tuple[object, tuple]]]:
    shape = tuple(draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=4)))
    steps: list[tuple[object, tuple]] = []
    current = torch.zeros(shape)
    for _ in range(draw(st.integers(1, 6))):
        choice = draw(st.sampled_from(["view", "permute", "select", "unsqueeze", "flatten", "repeat", "interleave"]))
        dim = draw(st.integers(0, max(current.dim() - 1, 0)))
        if choice == "view":
            step = (aten.reshape.default, (list(draw(factorisation(current.numel()))),))
        elif choice == "permute":
            step = (aten.permute.default, (draw(st.permutations(range(current.dim()))),))
        elif choice == "select" and current.dim() > 1:
            step = (aten.select.int, (dim, draw(st.integers(0, current.shape[dim] - 1))))
        elif choice == "flatten" and current.dim() > 1:
            step = (aten.flatten.using_ints, (dim, -1))
        elif choice == "repeat" and current.numel() < 200:
            step = (aten.repeat.default, ([draw(st.integers(1, 2)) for _ in range(current.dim() + 1)],))
        elif choice == "interleave" and current.dim() > 0 and current.numel() < 200:
            step = (aten.repeat_interleave.self_int, (2, dim))
        else:
            step = (aten.unsqueeze.default, (dim,))
        current = step[0](current, *step[1])
        steps.append(step)
    return shape, steps


def run(shape: Sequence[int], steps: list[tuple[object, tuple]]) -> tuple[Labels, list[torch.Tensor]]:
    """Labels of a chain of operations on one input, and the flat input index behind each entry of each result."""
    values = [torch.arange(prod(shape)).reshape(tuple(shape))]
    nodes = [Node("n0", "input", "n0", tuple(shape), None)]
    for number, (target, args) in enumerate(steps, start=1):
        values.append(target(values[-1], *args))
        ref = Ref(f"n{number - 1}")
        shape = tuple(values[-1].shape)
        nodes.append(Node(f"n{number}", "op", str(target), shape, None, target=target, args=(ref, *args)))
    return label(nodes, {node.name: node.shape for node in nodes}), values


def digits(labels: Labels, axes: Sequence[tuple[int, ...]]) -> dict[int, torch.Tensor]:
    """For each factor of a tensor's axes, the index along it at every entry of the tensor."""
    leaves = [leaf for axis in axes for leaf in labels.factors.leaves(axis)]
    sizes = [labels.factors.sizes[leaf] for leaf in leaves]
    grids = torch.meshgrid(*map(torch.arange, sizes), indexing="ij") if sizes else []
    return {leaf: grid.flatten() for leaf, grid in zip(leaves, grids, strict=True)}


@settings(max_examples=300, deadline=None)
@given(chains())
def test_factors_follow_the_index_map(chain):
    shape, steps = chain
    labels, values = run(shape, steps)
    original = digits(labels, labels.axes["n0"])
    for number, value in enumerate(values):
        here = digits(labels, labels.axes[f"n{number}"])
        for leaf in original.keys() & here.keys():
            assert torch.equal(original[leaf][value.flatten()], here[leaf])


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_reshape_and_back_gives_the_axes_back(data):
    shape = tuple(data.draw(st.lists(st.sampled_from([2, 3, 4, 6]), min_size=1, max_size=4)))
    between = data.draw(factorisation(prod(shape)))
    labels, _ = run(shape, [(aten.reshape.default, (list(between),)), (aten.reshape.default, (list(shape),))])
    leaves = [[labels.factors.leaves(axis) for axis in labels.axes[name]] for name in ("n0", "n2")]
    nested = all(
        max(a, b) % min(a, b) == 0 for a in _cuts(shape) for b in _cuts(between)
    )  # cuts that line up keep every factor
    assert leaves[0] == leaves[1] or not nested


def _cuts(sizes: Sequence[int]) -> list[int]:
    return [prod(sizes[index:]) for index in range(len(sizes) + 1)]


def test_unequal_cuts_give_new_factors_and_leave_the_others():
    labels, _ = run((5, 3, 4), [(aten.reshape.default, ([5, 4, 3],))])
    before, after = ([labels.factors.leaves(axis) for axis in labels.axes[name]] for name in ("n0", "n1"))
    assert before[0] == after[0]
    assert not {*before[1], *before[2]} & {*after[1], *after[2]}


def test_parts_merged_in_order_are_the_whole():
    factors = Factors()
    whole = factors.fresh(12)
    outer, inner = factors.regroup(whole, (3, 4))
    assert factors.leaves(whole) == (*outer, *inner)
    other = factors.fresh(12)
    assert factors.unify(other, (*outer, *inner))
    assert factors.leaves(other) == factors.leaves(whole)
    assert not factors.unify(factors.fresh(12), factors.fresh(8))
