"""Built-in models: shapes, width axes, initial weights, export."""

import subprocess
import sys
from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from widthwise.core import ModelError, seeded
from widthwise.nn import MODELS, build_model, cnn, mlp, resnet, transformer

SIDES = st.integers(1, 20)
SHAPES = st.one_of(
    st.tuples(SIDES), st.tuples(st.integers(1, 3), SIDES), st.tuples(st.integers(1, 3), SIDES, st.integers(1, 12))
)
FIXED = [(5,), (2, 9), (3, 8, 8), (1, 28, 28)]


@settings(max_examples=15, deadline=None)
@given(name=st.sampled_from(sorted(MODELS)), shape=SHAPES, outputs=st.integers(1, 4), width=st.integers(1, 9))
def test_output_shape(name: str, shape: tuple[int, ...], outputs: int, width: int) -> None:
    module = build_model(name, shape, outputs, width).eval()
    assert module(torch.randn(3, *shape)).shape == (3, outputs)


@settings(max_examples=15, deadline=None)
@given(name=st.sampled_from(sorted(MODELS)), shape=SHAPES, outputs=st.integers(1, 4), factor=st.integers(2, 3))
def test_width_scales_only_width_axes(name: str, shape: tuple[int, ...], outputs: int, factor: int) -> None:
    """Every axis of every tensor keeps its size or grows by the factor; the readout keeps its outputs."""
    small = build_model(name, shape, outputs, 8).state_dict()
    large = build_model(name, shape, outputs, 8 * factor).state_dict()
    assert small.keys() == large.keys()
    for key, tensor in small.items():
        assert tensor.ndim == large[key].ndim
        assert all(new in (old, factor * old) for old, new in zip(tensor.shape, large[key].shape, strict=True)), key
    assert small["readout.weight"].shape[0] == large["readout.weight"].shape[0] == outputs


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("shape", FIXED)
def test_export_agrees_for_another_batch_size(name: str, shape: tuple[int, ...]) -> None:
    module = build_model(name, shape, 3, 8).eval()
    dynamic = ({0: torch.export.Dim("n", min=2, max=64)},)
    exported = torch.export.export(module, (torch.randn(4, *shape),), dynamic_shapes=dynamic).module()
    x = torch.randn(7, *shape)
    torch.testing.assert_close(exported(x), module(x))


@pytest.mark.parametrize("name", sorted(MODELS))
def test_state_dict_round_trip(name: str) -> None:
    first, second = (build_model(name, (2, 6), 3, 8).eval() for _ in range(2))
    x = torch.randn(4, 2, 6)
    assert not torch.equal(first(x), second(x))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(x), second(x))


@pytest.mark.parametrize("name", sorted(MODELS))
def test_examples_do_not_see_each_other_in_eval_mode(name: str) -> None:
    module = build_model(name, (1, 6, 5), 3, 8).double().eval()
    x = torch.randn(4, 1, 6, 5, dtype=torch.float64)
    torch.testing.assert_close(module(x)[2:3], module(x[2:3]))


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("shape", [(20,), (2, 12), (1, 12, 12)])
def test_outputs_have_the_scale_of_the_inputs(name: str, shape: tuple[int, ...]) -> None:
    """He then LeCun: unit mean square in gives an output mean square of order one, over draws of a wide network."""
    squares = []
    for draw in range(20):
        with seeded(draw):
            module = build_model(name, shape, 50, 128).train()
            x = torch.randn(8, *shape)
            squares.append(float(module(x).square().mean().detach()))
    assert 0.05 < sum(squares) / len(squares) < 2.5


def test_mlp_preserves_the_mean_square_exactly_in_expectation() -> None:
    """For an input x, E[f(x)^2] = |x|^2 / d per output: He and ReLU keep it, LeCun reads it out (mean of 400 draws)."""
    x = torch.randn(1, 10, generator=torch.Generator().manual_seed(0))
    expected = float(x.square().mean())
    samples = []
    for draw in range(400):
        with seeded(draw):
            samples.append(mlp(64, input_shape=(10,), outputs=8)(x).square().mean())
    values = torch.stack(samples)
    standard_error = float(values.detach().std() / len(values) ** 0.5)
    assert abs(float(values.mean()) - expected) < 4 * standard_error
    assert standard_error < 0.1 * expected


@pytest.mark.parametrize("shape, sides", [((1, 28, 28), (7, 7)), ((3, 8, 8), (4, 4)), ((1, 40), (10,)), ((9,), (5,))])
def test_cnn_sites(shape: tuple[int, ...], sides: tuple[int, ...]) -> None:
    module = cnn(6, input_shape=shape, outputs=2)
    assert module.readout.in_features == 6 * prod(sides)
    assert not any("Pool" in type(part).__name__ for part in module.modules())


def test_transformer_sees_order() -> None:
    """Learned positions: permuting the tokens changes the output, and removing the positions makes it invariant."""
    module = transformer(16, input_shape=(6,), outputs=3, vocab=10).double()
    x = torch.tensor([[1, 2, 3, 4, 5, 6]])
    assert not torch.allclose(module(x), module(x.flip(1)))
    torch.nn.init.zeros_(module.position)
    torch.testing.assert_close(module(x), module(x.flip(1)))


def test_resnet_block_is_the_identity_when_its_last_convolution_is_zero() -> None:
    module = resnet(4, input_shape=(3, 6, 6), outputs=2)
    block = module.stage1_block1
    torch.nn.init.zeros_(block.conv2.weight)
    x = torch.randn(2, 4, 6, 6)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: build_model("mpl", (3,), 2, 4), "did you mean mlp"),
        (lambda: build_model("quokka", (3,), 2, 4), "choose one of mlp, cnn, resnet, transformer"),
        (lambda: build_model("mlp", (3,), 2, 4, colour=1), "colour"),
        (lambda: mlp(0, input_shape=(3,), outputs=2), "width=0"),
        (lambda: cnn(4, input_shape=(1, 2, 3, 4), outputs=2), r"\(1, 2, 3, 4\)"),
        (lambda: cnn(4, input_shape=(1, 0), outputs=2), r"\(1, 0\)"),
        (lambda: transformer(6, input_shape=(3,), outputs=2, heads=4), "heads=4 does not divide width=6"),
        (lambda: transformer(8, input_shape=(2, 3), outputs=2, vocab=4), r"\(2, 3\)"),
    ],
)
def test_bad_input(call, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        call()


COMPILE = """
import torch
from widthwise.nn import MODELS, build_model
for name in MODELS:
    module, x = build_model(name, (2, 6), 3, 8).eval(), torch.randn(4, 2, 6)
    torch.testing.assert_close(torch.compile(module, backend="aot_eager", fullgraph=True)(x), module(x))
"""


@pytest.mark.slow
def test_compile_in_one_graph() -> None:
    """In its own process: the shape checker that the tests install cannot be compiled."""
    run = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
