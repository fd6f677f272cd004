"""Laws that hold for every architecture: re-execution, independence of examples, permutation of hidden units."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from widthwise.program import Axis, AxisKind, Program, trace


def main_value(output: object) -> Tensor:
    return output["logits"] if isinstance(output, dict) else output


def index_along(axis: Axis, factor_id: int) -> Tensor:
    """For each entry along an axis, its index along one of the axis's factors (row-major)."""
    grid = torch.zeros([factor.size for factor in axis], dtype=torch.long)
    for position, factor in enumerate(axis):
        if factor.id == factor_id:
            shape = [-1 if other == position else 1 for other in range(len(axis))]
            grid = grid + torch.arange(factor.size).view(shape)
    return grid.flatten()


def permuted(value: Tensor, axes: Sequence[Axis], factor_id: int, order: Tensor) -> Tensor:
    """The tensor with its entries moved as `order` says along every occurrence of a factor."""
    for dim, axis in enumerate(axes):
        grid = torch.arange(value.shape[dim]).view([factor.size for factor in axis])
        for position, factor in enumerate(axis):
            if factor.id == factor_id:
                grid = grid.index_select(position, order)
        value = value.index_select(dim, grid.flatten())
    return value


def test_the_program_computes_what_the_module_computes(case, execute):
    module, batch, program = case
    result = execute(program, {program.inputs[0]: batch}, {})[program.output]
    with torch.no_grad():
        assert torch.equal(result, main_value(module(batch)))


def test_every_axis_of_every_node_is_known_and_has_its_size(case):
    _, _, program = case
    for node in program.nodes:
        if node.shape is not None:
            assert node.axes is not None, node
            assert [torch.Size([f.size for f in axis]).numel() for axis in node.axes] == list(node.shape)


def test_another_example_changes_only_its_own_entries(case, execute):
    _, batch, program = case
    other = batch.clone()
    other[0] = batch[1]
    before, after = (execute(program, {program.inputs[0]: one}, {}) for one in (batch, other))
    checked = 0
    for node in program.nodes:
        if node.axes is None or not node.shape:
            continue
        differs = before[node.name] != after[node.name]
        places = [(dim, f.id) for dim, axis in enumerate(node.axes) for f in axis if f.kind is AxisKind.BATCH]
        assert places or not differs.any(), node
        for dim, factor_id in places:
            example = index_along(node.axes[dim], factor_id)
            assert not differs.index_select(dim, (example > 0).nonzero().flatten()).any(), node
            checked += 1
    assert checked > 2


def test_hidden_units_can_be_permuted(case, execute):
    """Weights with the same factor permuted alike give the same outputs: the ids name the right axes."""
    _, batch, program = case
    inputs = {program.inputs[0]: batch}
    held = [node for node in program.nodes if node.kind in ("weight", "constant") and node.value is not None]
    hidden = {f.id: f for node in held for axis in node.axes for f in axis if f.kind is AxisKind.WIDTH}
    expected = execute(program, inputs, {})[program.output]
    moved = 0
    for factor_id, factor in hidden.items():
        order = torch.arange(factor.size).roll(1)
        values = {node.name: permuted(node.value, node.axes, factor_id, order) for node in held}
        torch.testing.assert_close(execute(program, inputs, values)[program.output], expected, rtol=1e-4, atol=1e-5)
        moved += sum(not torch.equal(values[node.name], node.value) for node in held)
    assert moved >= 1


def test_permuting_one_weight_alone_changes_the_output(zoo, execute):
    """The law above has power: break it for one weight and it fails."""
    torch.manual_seed(1)
    module, batch = zoo["mlp"][0](), zoo["mlp"][1](2)
    program = trace(module, batch)
    node = next(node for node in program.nodes if node.op == "2.weight")
    factor = node.axes[1][0]
    value = permuted(node.value, node.axes, factor.id, torch.arange(factor.size).roll(1))
    inputs = {program.inputs[0]: batch}
    expected = execute(program, inputs, {})[program.output]
    assert not torch.allclose(execute(program, inputs, {node.name: value})[program.output], expected)


@pytest.mark.parametrize("name", ["cnn", "lstm"])
@pytest.mark.parametrize("training", [False, True])
def test_tracing_leaves_the_module_alone(zoo, name, training):
    module, batch = zoo[name][0](), zoo[name][1](2)
    next(module.children()).eval()
    modes = [part.training for part in module.modules()]
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = torch.random.get_rng_state()
    trace(module, batch, training=training)
    assert [part.training for part in module.modules()] == modes
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_parameters_are_counted_once(case):
    module, _, program = case
    assert program.parameters == sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", ["mlp", "cnn", "residual", "attention", "lstm", "encoder", "generator"])
def test_widths_found_are_the_sizes_that_grow(zoo, name):
    """The heuristic and the exact mode agree on architectures with nothing finite inside but heads."""
    build, inputs = zoo[name]
    batch = inputs(2)
    small = build()
    width = 2 * next(size for size in (3, 6, 8, 12, 16) if _is_default(build, size, small))
    guess, exact = trace(small, batch), trace(small, batch, wider=build(width))
    assert [weight.role for weight in guess.weights] == [weight.role for weight in exact.weights]
    assert _kinds(guess) == _kinds(exact)


def _is_default(build, size: int, small: torch.nn.Module) -> bool:
    try:
        built = build(size)
    except (ValueError, AssertionError):
        return False
    return [p.shape for p in built.parameters()] == [p.shape for p in small.parameters()]


def _kinds(program: Program) -> list[list[list[AxisKind]] | None]:
    return [None if n.axes is None else [[f.kind for f in axis] for axis in n.axes] for n in program.nodes]
