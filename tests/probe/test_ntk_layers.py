"""The sum over parameters taken layer by layer, against one autograd call per output and example."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from widthwise.core import ModelError, OutputError, seeded
from widthwise.nn import build_model, resnet
from widthwise.probe import _layer_contraction as contraction
from widthwise.probe import _layer_contraction_products as products
from widthwise.probe import _layer_contraction_uses as uses
from widthwise.probe import empirical_ntk

Case = tuple[nn.Module, Tensor]


class Applied(nn.Module):
    """``function(self, x)`` over named submodules or parameters."""

    def __init__(self, function: Callable[["Applied", Tensor], Tensor], **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def built(name: str) -> Case:
    return build_model(name, (2, 6), 3, 4), torch.randn(5, 2, 6)


def strided_convolutions() -> Case:
    """Stride, padding, dilation, groups, both directions, and a ReLU in place."""
    layers = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1, dilation=2),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 4, 3, groups=2, padding="same"),
        nn.GroupNorm(2, 4),
        nn.GELU(),
        nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2, padding=1, output_padding=1, dilation=1),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(600, 3),
    )
    return layers, torch.randn(5, 3, 12, 12)


def depthwise_convolutions() -> Case:
    layers = nn.Sequential(
        nn.Conv1d(4, 4, 3, groups=4, padding_mode="circular", padding=1),
        nn.Tanh(),
        nn.ConvTranspose1d(4, 3, 4, stride=2),
        nn.LayerNorm(14),
        nn.Flatten(),
        nn.Linear(42, 3),
    )
    return layers, torch.randn(5, 4, 6)


def used_twice() -> Case:
    shared = nn.Conv2d(3, 3, 3, padding=1)
    module = Applied(
        lambda self, x: self.readout(self.shared(torch.relu(self.shared(x))).flatten(1)),
        shared=shared,
        readout=nn.Linear(48, 3),
    )
    return module, torch.randn(5, 3, 4, 4)


def tied_and_transposed() -> Case:
    """An auto-encoder with one matrix, used as itself and transposed, scaled."""
    module = Applied(
        lambda self, x: torch.tanh(x @ self.weight.T) @ (self.weight * 0.5) + self.bias,
        weight=nn.Parameter(torch.randn(4, 6)),
        bias=nn.Parameter(torch.randn(6)),
    )
    return module, torch.randn(5, 6)


def attention(batch_first: bool) -> Case:
    """With the positions first, the examples do not stand in the first axis."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first)
    if batch_first:
        return Applied(lambda self, x: self.layer(x).mean(1), layer=layer), torch.randn(5, 4, 8)
    return Applied(lambda self, x: self.layer(x.transpose(0, 1)).mean(0), layer=layer), torch.randn(5, 4, 8)


def gpt2() -> Case:
    """The matrix of tokens is also the readout; linear layers see positions and examples in one axis."""
    config = GPT2Config(
        vocab_size=20, n_positions=8, n_embd=8, n_layer=2, n_head=2, bos_token_id=None, eos_token_id=None
    )
    module = Applied(lambda self, x: self.model(x, use_cache=False).logits[:, -1, :4], model=GPT2LMHeadModel(config))
    return module, torch.randint(0, 20, (5, 6))


def weight_normalised() -> Case:
    """The matrix that is applied is computed from two parameters."""
    layers = nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(6, 5)), nn.Tanh(), nn.RMSNorm(5), nn.Linear(5, 2)
    )
    return layers, torch.randn(5, 6)


def padded_embedding() -> Case:
    module = Applied(
        lambda self, x: self.readout(torch.tanh(self.table(x)).mean(1)),
        table=nn.Embedding(7, 4, padding_idx=0),
        readout=nn.Linear(4, 3),
    )
    return module, torch.tensor([[0, 1, 2, 1], [3, 3, 0, 0], [6, 5, 4, 1], [1, 2, 1, 0]])


def direct_parameters() -> Case:
    """Positions and gains as bare parameters."""
    module = Applied(
        lambda self, x: self.readout((self.first(x) + self.positions[:, :4]) * self.gain - self.shift).mean(1),
        first=nn.Linear(3, 8),
        positions=nn.Parameter(torch.randn(1, 9, 8)),
        gain=nn.Parameter(torch.randn(8)),
        shift=nn.Parameter(torch.randn(4, 1)),
        readout=nn.Sequential(nn.Tanh(), nn.Linear(8, 3)),
    )
    return module, torch.randn(5, 4, 3)


def class_token() -> Case:
    """The token is joined by concatenation, which has no rule: this one parameter takes Jacobians."""
    module = Applied(
        lambda self, x: self.readout(torch.cat([self.token.expand(len(x), -1, -1), self.first(x)], 1)).sin().mean(1),
        token=nn.Parameter(torch.randn(1, 1, 8)),
        first=nn.Linear(3, 8),
        readout=nn.Linear(8, 3),
    )
    return module, torch.randn(5, 4, 3)


def recurrent() -> Case:
    module = Applied(
        lambda self, x: self.readout(self.recurrence(x)[0][:, -1]),
        recurrence=nn.LSTM(2, 4, batch_first=True),
        readout=nn.Linear(4, 2),
    )
    return module, torch.randn(5, 6, 2)


LAYERED = {
    **{name: partial(built, name) for name in ("mlp", "cnn", "transformer")},
    "resnet2d": lambda: (resnet(4, input_shape=(3, 8, 8), outputs=3), torch.randn(5, 3, 8, 8)),
    "strided": strided_convolutions,
    "depthwise": depthwise_convolutions,
    "twice": used_twice,
    "tied": tied_and_transposed,
    "attention": partial(attention, True),
    "attention, positions first": partial(attention, False),
    "gpt2": gpt2,
    "weight norm": weight_normalised,
    "padded embedding": padded_embedding,
    "direct": direct_parameters,
}
PARTLY = {"class token": class_token, "recurrent": recurrent}


def case(name: str) -> Case:
    """In double precision, with no bias or gain at its initial value."""
    with seeded(0, name):
        module, x = (LAYERED | PARTLY)[name]()
        module = module.double().eval()
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.ndim < 2:
                    parameter += 0.3 * torch.randn_like(parameter)
    return module, x.double() if x.is_floating_point() else x


def brute_force(module: nn.Module, x1: Tensor, x2: Tensor) -> Tensor:
    """``[n1, n2, outputs, outputs]`` from one autograd call for each example and output."""

    def jacobian(x: Tensor) -> Tensor:
        return torch.stack([torch.stack([gradient(value) for value in module(one[None]).flatten()]) for one in x])

    def gradient(value: Tensor) -> Tensor:
        parts = torch.autograd.grad(value, list(module.parameters()), retain_graph=True, materialize_grads=True)
        return torch.cat([part.flatten() for part in parts])

    return torch.einsum("iap,jbp->ijab", jacobian(x1), jacobian(x2))


@pytest.fixture(params=["cheaper", "positions", "gradients"])
def order(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The order of contraction: the one chosen, or either one forced."""
    if request.param != "cheaper":
        forced = request.param == "positions"
        monkeypatch.setattr(contraction.Weight, "by_positions", lambda self, *_, **__: forced and self.matrix)
    return request.param


@pytest.mark.parametrize("name", [*LAYERED, *PARTLY])
def test_against_brute_force(name: str, order: str) -> None:
    module, x = case(name)
    method = "layers" if name in LAYERED else "auto"
    full = brute_force(module, x, x)
    mean = torch.einsum("ijaa->ij", full) / full.shape[-1]
    torch.testing.assert_close(empirical_ntk(module, x[:3], x[2:], method=method, chunk=2), mean[:3, 2:])
    if order != "cheaper":
        torch.testing.assert_close(empirical_ntk(module, x, outputs="full", method=method), full)


def test_single_outputs_and_their_sum() -> None:
    module, x = case("cnn")
    full = brute_force(module, x, x)
    torch.testing.assert_close(empirical_ntk(module, x, outputs="sum"), full.sum((2, 3)) / full.shape[-1])
    torch.testing.assert_close(empirical_ntk(module, x, outputs=1, method="layers"), full[..., 1, 1])


@pytest.mark.parametrize("name", ["resnet2d", "gpt2", "depthwise"])
@pytest.mark.parametrize("chunk", [1, 4])
def test_blocks_heads_and_slices_do_not_matter(name: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of examples, one output at a time, and slices of a few rows of a gradient."""
    module, x = case(name)
    expected = empirical_ntk(module, x, method="layers")
    monkeypatch.setattr("widthwise.probe._ntk_layers._HEADS", 1)
    for name in ("_GRADIENTS", "_PATCHES"):
        monkeypatch.setattr(contraction, name, 100)
    monkeypatch.setattr(products, "_ENTRIES", 100)
    kernel = empirical_ntk(module, x, method="layers", chunk=chunk)
    torch.testing.assert_close(kernel, expected)
    assert torch.equal(kernel, kernel.T)
    assert torch.linalg.eigvalsh(kernel).min() > -1e-12 * kernel.trace()


def test_no_parameter_of_the_layered_modules_takes_jacobians(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("widthwise.probe._ntk.JacobianTiles", None)
    for name in LAYERED:
        module, x = case(name)
        empirical_ntk(module, x)


class Scripted(torch.autograd.Function):
    """A linear map whose use of the weight no rule sees."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> Tensor:
        return x @ weight

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, slope: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return slope @ weight.T, x.T @ slope


def test_a_use_that_is_not_seen_is_found_by_the_check_against_autograd() -> None:
    """The same matrix once in a known operation and once in a custom function: Jacobians give the whole."""
    module = Applied(
        lambda self, x: Scripted.apply(torch.tanh(x @ self.weight), self.weight),
        weight=nn.Parameter(torch.randn(4, 4, dtype=torch.float64)),
    )
    x = torch.randn(3, 4, dtype=torch.float64)
    torch.testing.assert_close(empirical_ntk(module, x, outputs="full"), brute_force(module, x, x))
    with pytest.raises(ModelError, match="no rule for the use of parameter 'weight'"):
        empirical_ntk(module, x, method="layers")


def test_frozen_parameters_are_left_out() -> None:
    module, x = case("mlp")
    names = [name for name, _ in module.named_parameters()]
    module.get_parameter(names[0]).requires_grad_(False)
    kernel = empirical_ntk(module, x, method="layers")
    torch.testing.assert_close(kernel, empirical_ntk(module, x, method="jacobian", parameters=names[1:]))
    assert not module.get_parameter(names[0]).requires_grad
    assert module.get_parameter(names[1]).requires_grad
    torch.testing.assert_close(
        kernel + empirical_ntk(module, x, parameters=names[:1]), empirical_ntk(module, x, parameters=names)
    )


def test_single_precision() -> None:
    module, x = case("resnet2d")
    expected = empirical_ntk(module, x)
    kernel = empirical_ntk(module.float(), x)
    assert kernel.dtype == torch.float32
    assert (kernel.double() - expected).norm() < 1e-5 * expected.norm()


def test_written_to_disk(tmp_path) -> None:
    module, x = case("cnn")
    expected = empirical_ntk(module, x)
    out = np.lib.format.open_memmap(tmp_path / "kernel.npy", mode="w+", dtype=np.float64, shape=(5, 5))
    empirical_ntk(module, x, out=out, chunk=2)
    out.flush()
    np.testing.assert_allclose(np.load(tmp_path / "kernel.npy"), expected.numpy(), rtol=1e-10)
    with pytest.raises(OutputError, match=r"shape \(5, 4\)"):
        empirical_ntk(module, x, out=np.zeros((5, 4)))


def test_bad_input() -> None:
    coupled = Applied(lambda self, x: self.linear(x) - x.mean(), linear=nn.Linear(6, 3))
    with pytest.raises(ModelError, match="change with the other examples"):
        empirical_ntk(coupled, torch.randn(4, 6))
    module, x = case("mlp")
    with pytest.raises(ModelError, match="bfloat16, too coarse"):
        empirical_ntk(module.bfloat16(), x)
    with pytest.raises(ModelError, match="outputs=3 is no kind"):
        empirical_ntk(module.double(), x, outputs=3)


def test_breaking_a_formula_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The survey compares with autograd, so a wrong gradient sends the parameter to Jacobians, never into the sum."""
    module, x = case("mlp")
    expected = empirical_ntk(module, x, method="jacobian")
    right = uses.MatrixUse.gradient
    monkeypatch.setattr(uses.MatrixUse, "gradient", lambda self, *args: 1.01 * right(self, *args))
    torch.testing.assert_close(empirical_ntk(module, x), expected)
