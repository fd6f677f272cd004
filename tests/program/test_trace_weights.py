"""Roles, fans, ties and the printed table, against what is known of each architecture."""

import pytest
import torch
from torch import nn

from widthwise.core import ModelError
from widthwise.program import AxisKind, Role, trace


def roles(program) -> dict[str, str]:
    return {weight.name: weight.role.value for weight in program.weights}


def fans(program, name: str) -> tuple[int, int]:
    weight = program.weight(name)
    return weight.fan_in, weight.fan_out


def test_an_mlp_has_one_input_hidden_layers_and_one_output():
    layers = [nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 3)]
    program = trace(nn.Sequential(*layers), torch.randn(2, 4))
    assert roles(program) == {
        "0.weight": "input",
        "0.bias": "vector",
        "2.weight": "hidden",
        "2.bias": "vector",
        "4.weight": "output",
        "4.bias": "finite",
    }
    assert fans(program, "2.weight") == (16, 32)
    assert fans(program, "2.bias") == (1, 32)


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (1, 3), (5, 1)])
def test_sizes_of_one_keep_their_roles(inputs, outputs):
    module = nn.Sequential(nn.Linear(inputs, 16), nn.Tanh(), nn.Linear(16, outputs))
    assert list(roles(trace(module, torch.randn(2, inputs))).values()) == ["input", "vector", "output", "finite"]


def test_fans_agree_with_torch_for_convolutions(zoo):
    program = trace(zoo["cnn"][0](), zoo["cnn"][1](2))
    for name in ("first.weight", "second.weight"):
        weight = program.weight(name)
        assert (weight.fan_in, weight.fan_out) == nn.init._calculate_fan_in_and_fan_out(weight.value)
    assert roles(program)["first.weight"] == "input"
    assert roles(program)["second.weight"] == "hidden"
    assert roles(program)["head.weight"] == "output"
    assert roles(program)["norm.weight"] == "vector"


def test_flattened_images_have_width_row_and_column(zoo):
    program = trace(zoo["cnn"][0](), zoo["cnn"][1](2))
    flat = next(node for node in program.nodes if node.op.startswith("aten.flatten"))
    assert [(factor.kind, factor.size) for factor in flat.axes[1]] == [
        (AxisKind.WIDTH, 12),
        (AxisKind.POSITION, 2),
        (AxisKind.POSITION, 3),
    ]


def test_groups_divide_the_fan_and_depthwise_kernels_are_vectors(zoo):
    program = trace(zoo["grouped"][0](4), zoo["grouped"][1](2))
    assert fans(program, "grouped.weight") == (4 * 3, 8 * 3)
    assert roles(program)["grouped.weight"] == "hidden"
    depthwise = program.weight("depthwise.weight")
    assert (depthwise.role, depthwise.fan_in) == (Role.VECTOR, 3)


def test_tied_names_are_one_weight_with_two_uses(zoo):
    program = trace(zoo["shared head"][0](), zoo["shared head"][1](2))
    weight = program.weight("readout.weight")
    assert weight is program.weight("embed.weight")
    assert (weight.name, weight.aliases, weight.uses) == ("embed.weight", ("readout.weight",), 2)
    assert weight.role is Role.EMBEDDING
    assert {node.op for node in program.nodes if node.kind == "weight"} == {"embed.weight", "norm.weight", "norm.bias"}
    assert [node.op for node in program.users("readout.weight")] == ["aten.embedding.default", "aten.linear.default"]


def test_a_weight_used_transposed_is_one_weight(zoo):
    program = trace(zoo["tied autoencoder"][0](8), zoo["tied autoencoder"][1](2))
    (weight,) = program.weights
    assert weight.uses == 2
    inner = program.node(program.output).axes[1]
    assert program.node(program.inputs[0]).axes[1] == inner


def test_a_module_called_twice_is_one_weight_used_twice():
    shared = nn.Linear(8, 8)
    program = trace(nn.Sequential(nn.Linear(3, 8), shared, nn.Tanh(), shared, nn.Linear(8, 1)), torch.randn(2, 3))
    assert program.weight("1.weight").uses == 2
    assert len(program.weights) == 6


def test_heads_are_told_from_their_width(zoo):
    program = trace(zoo["attention"][0](12, 3), zoo["attention"][1](2))
    heads = next(node for node in program.nodes if node.op.startswith("aten.transpose"))
    kinds = [[factor.kind.value for factor in axis] for axis in heads.axes]
    assert kinds == [["batch"], ["head"], ["position"], ["width"]]
    assert roles(program)["position"] == "vector"
    assert roles(program)["embed.weight"] == "embedding"
    assert roles(program)["out.weight"] == "hidden"


def test_recurrent_weights_count_all_gates(zoo):
    program = trace(zoo["lstm"][0](6), zoo["lstm"][1](2))
    assert fans(program, "core.weight_ih_l0") == (3, 24)
    assert roles(program)["core.weight_ih_l0"] == "input"
    assert roles(program)["core.weight_hh_l0"] == "hidden"
    assert fans(program, "core.weight_ih_l1") == (12, 24)


def test_wider_tells_a_finite_bottleneck_from_a_width():
    def build(width):
        return nn.Sequential(
            nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2), nn.Linear(2, width), nn.Linear(width, 3)
        )

    guess = roles(trace(build(16), torch.randn(2, 4)))
    exact = roles(trace(build(16), torch.randn(2, 4), wider=build(24)))
    assert (guess["2.weight"], guess["3.weight"]) == ("hidden", "hidden")
    assert (exact["2.weight"], exact["3.weight"]) == ("output", "input")


def test_wider_tells_growing_heads_from_growing_head_width(zoo):
    build, inputs = zoo["attention"]
    batch = inputs(2)
    more_heads = trace(build(12, 3), batch, wider=build(24, 6))
    more_width = trace(build(12, 3), batch, wider=build(24, 3))

    def kinds(program):
        axes = next(node for node in program.nodes if node.op.startswith("aten.transpose")).axes
        return axes[1][0].kind, axes[3][0].kind

    assert kinds(more_heads) == (AxisKind.WIDTH, AxisKind.FEATURE)
    assert kinds(more_width) == (AxisKind.HEAD, AxisKind.WIDTH)


def test_inputs_and_outputs_by_name(zoo):
    program = trace(zoo["shared head"][0](), {"tokens": torch.randint(0, 7, (1, 4))})
    assert program.inputs == ("tokens",)
    assert program.node("tokens").shape == (2, 4)  # a batch of one is repeated
    assert len(program.outputs) == 2
    assert program.node(program.output).shape == (2, 4, 11)


def test_in_place_operations_are_functional_where_nobody_looks(zoo):
    program = trace(zoo["cnn"][0](), zoo["cnn"][1](2))
    assert [node.op for node in program.nodes if node.op.split(".")[1:2] and node.op.split(".")[1].endswith("_")] == []


def test_an_in_place_operation_on_a_live_view_stays(execute):
    class Live(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 4)

        def forward(self, x):
            h = self.layer(x)
            h[:, :2].mul_(3)
            return h

    torch.manual_seed(0)
    module, batch = Live(), torch.randn(2, 3)
    program = trace(module, batch)
    assert "aten.mul_.Tensor" in [node.op for node in program.nodes]
    assert torch.equal(execute(program, {program.inputs[0]: batch}, {})[program.output], module(batch))


def test_an_operation_without_a_rule_has_no_axes_and_later_weights_keep_their_roles():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.third = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x):
            h = torch.fft.fft(self.first(x)).real
            return self.third(torch.relu(self.second(h)))

    program = trace(Odd(), torch.randn(2, 4))
    odd = next(node for node in program.nodes if "fft" in node.op)
    assert odd.axes is None
    assert [weight.role.value for weight in program.weights][::2] == ["input", "hidden", "output"]


def test_the_table_names_every_weight_and_operation(zoo):
    program = trace(zoo["shared head"][0](), zoo["shared head"][1](2))
    head, weights, nodes = str(program).split("\n\n")
    assert "SharedHead: 3 weights, 104 parameters" in head
    assert weights.splitlines()[2].split()[:5] == ["embed.weight", "embedding", "11x8", "1", "8"]
    assert weights.splitlines()[2].endswith("readout.weight")
    assert len(nodes.splitlines()) == 2 + sum(node.kind != "weight" for node in program.nodes)
    widths = {line.index("aten.") for line in nodes.splitlines() if "aten." in line}
    assert len(widths) == 1


def test_fingerprints_tell_programs_apart_and_redraws_together():
    def build(width=8, activation=nn.ReLU):
        return nn.Sequential(nn.Linear(4, width), activation(), nn.Linear(width, 3))

    batch = torch.randn(2, 4)
    first = trace(build(), batch).fingerprint
    assert trace(build(), batch).fingerprint == first
    scaled = build()
    with torch.no_grad():
        scaled[0].weight.mul_(2)
    others = [build(16), build(activation=nn.Tanh), scaled]
    assert len({first, *(trace(other, batch).fingerprint for other in others)}) == 4


def test_plain_form_holds_no_tensors(zoo):
    plain = trace(zoo["mlp"][0](), zoo["mlp"][1](2)).to_dict()
    assert plain["weights"][0]["role"] == "input"
    assert "value" not in plain["weights"][0]


def test_unknown_names_are_named():
    program = trace(nn.Linear(3, 2), torch.randn(2, 3))
    with pytest.raises(ModelError, match="no weight 'missing'"):
        program.weight("missing")
    with pytest.raises(ModelError, match="no node 'missing'"):
        program.node("missing")
