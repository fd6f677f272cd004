"""Hypernetworks: functional calls, proportionality, equality with ordinary training, finite differences."""

import copy
import pickle

import pytest
import torch
from torch import nn

from widthwise.core import DataError, ModelError, ResourceError, seeded
from widthwise.nn import HyperNet, encode, externalize, ordinary_values, proportionality, to_unit

GAMMA = torch.tensor([0.1, 0.25, 0.5, 1.0], dtype=torch.float64)


class Tied(nn.Module):
    """A weight under two names, a parameter list, and norms."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.scales = nn.ParameterList([torch.ones(4), torch.full((), 2.0)])
        self.norm = nn.GroupNorm(2, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.second(self.first(x) * self.scales[0]) * self.scales[1])


MODULES = {
    "linear": (lambda: nn.Linear(4, 2), (3, 4)),
    "tied": (Tied, (3, 4)),
    "convolution": (lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6).eval(), nn.ReLU()), (3, 4, 5, 5)),
    "attention": (lambda: nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True), (3, 5, 4)),
    "lstm": (lambda: nn.LSTM(4, 3, batch_first=True), (3, 5, 4)),
}


def first(output: torch.Tensor | tuple) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output


def plain(**options) -> HyperNet:
    with seeded(0, "plain"):
        settings = {"encoding": None, "residual": False, "hidden": (16, 64)} | options
        return HyperNet({"gamma": ()}, {"w": (20, 10), "b": (20,)}, **settings).double()


def flat(values: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([value.reshape(-1) for value in values.values()])


# --- external parameters


@pytest.mark.parametrize("name", MODULES)
def test_external_values_give_the_modules_own_output(name) -> None:
    make, shape = MODULES[name]
    module, x = make(), torch.randn(shape)
    external, values = externalize(module)
    assert torch.allclose(first(external(values, x)), first(module(x)), atol=1e-6)
    other = {key: torch.randn_like(value) for key, value in values.items()}
    expected = torch.func.functional_call(module, other, (x,))
    assert torch.allclose(first(external(other, x)), first(expected), atol=1e-6)
    assert not list(external.parameters())


def test_tied_parameters_are_one_and_patterns_choose() -> None:
    _, values = externalize(Tied())
    assert "first.weight" in values and "second.weight" not in values
    partly, some = externalize(Tied(), ["norm.*", "scales.1"])
    assert set(some) == {"norm.weight", "norm.bias", "scales.1"}
    kept = {name for name, _ in partly.named_parameters()}
    assert kept == {"primary.first.weight", "primary.first.bias", "primary.second.bias", "primary.scales.0"}
    assert set(partly.state_dict()) == kept | {"primary.second.weight"}


def test_values_are_taken_out_after_an_exception_and_not_nested() -> None:
    external, values = externalize(nn.Linear(4, 2))
    with pytest.raises(RuntimeError):
        external(values, torch.ones(3, 5))
    assert external.primary.weight is None
    with external.using(values), pytest.raises(ModelError, match="already"):
        external(values, torch.ones(3, 4))
    with pytest.raises(ModelError, match="already"), external.using(values), external.using(values):
        pass
    assert external.primary.weight is None and external(values, torch.ones(3, 4)).shape == (3, 2)


def test_a_copy_and_a_pickle_work_alike() -> None:
    external, values = externalize(Tied())
    x = torch.randn(3, 4)
    for twin in (copy.deepcopy(external), pickle.loads(pickle.dumps(external))):
        assert torch.equal(twin(values, x), external(values, x))


@pytest.mark.parametrize("inputs", ["shared", "paired"])
def test_batched_values_are_one_call_each(inputs) -> None:
    external, values = externalize(Tied())
    several = {name: torch.randn(5, *value.shape) for name, value in values.items()}
    x = torch.randn(5, 3, 4) if inputs == "paired" else torch.randn(3, 4)
    alone = [
        external({name: value[i] for name, value in several.items()}, x[i] if inputs == "paired" else x)
        for i in range(5)
    ]
    assert torch.allclose(external.batched(several, x, inputs=inputs), torch.stack(alone), atol=1e-5)


def test_gradients_reach_the_inputs_of_the_hypernetwork() -> None:
    """Finite differences through encoding, hypernetwork and external parameters."""
    external, values = externalize(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double())
    hyper = HyperNet({"a": (), "b": (2,)}, external.shapes, (6,), theta0=values, activation="tanh").double()
    hyper.check_range = False
    x = torch.randn(5, 3, dtype=torch.float64)

    def loss(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return external(hyper(a=a, b=b), x).square().sum()

    point = (torch.tensor(0.3).double().requires_grad_(), torch.tensor([0.5, 0.9]).double().requires_grad_())
    assert torch.autograd.gradcheck(loss, point)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"weight": torch.ones(2, 4)}, "parameter bias is missing"),
        ({"weight": torch.ones(2, 4), "bias": torch.ones(2), "gain": torch.ones(2)}, "gain is not external"),
        ({"weight": torch.ones(4, 2), "bias": torch.ones(2)}, r"weight has shape \(4, 2\); give \(2, 4\)"),
    ],
)
def test_wrong_values_are_named(values, words) -> None:
    with pytest.raises(ModelError, match=words):
        externalize(nn.Linear(4, 2))[0](values, torch.ones(1, 4))


def test_a_pattern_without_a_parameter_is_named() -> None:
    with pytest.raises(ModelError, match=r"no parameter is called 'head\*'"):
        externalize(nn.Linear(4, 2), "head*")


# --- magnitudes


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
@pytest.mark.parametrize("chunk", [None, 7])
def test_the_plain_network_is_proportional_to_its_input(activation, chunk) -> None:
    net = plain(activation=activation, chunk=chunk)
    one, parts = flat(net(gamma=torch.tensor(1.0).double())), net(gamma=GAMMA)
    for index, gamma in enumerate(GAMMA):
        assert torch.allclose(flat({k: v[index] for k, v in parts.items()}), gamma * one, rtol=1e-9, atol=1e-12)
    found = proportionality(net, {"gamma": GAMMA})
    assert found.proportional and found.slope == pytest.approx(1)
    for row in found.gradient_norm.values():
        assert [norm / g for norm, g in zip(row, GAMMA.tolist(), strict=True)] == pytest.approx([row[-1]] * 4)


@pytest.mark.parametrize("options", [{"encoding": "cos|sin"}, {"activation": "tanh"}, {"residual": True}])
def test_a_changed_network_is_not_proportional(options) -> None:
    assert not proportionality(plain(**options), {"gamma": GAMMA}).proportional


def test_layer_norm_makes_a_scalar_input_irrelevant() -> None:
    """Ablation of the paper: a positive scalar times a vector loses its size in the first normalisation."""
    net = plain(normalization="layer")
    low, high = (flat(net(gamma=torch.tensor(g).double())) for g in (10.0, 100.0))
    assert torch.allclose(low, high, rtol=1e-3)


def test_the_encoding_has_constant_norm_and_the_stated_order() -> None:
    z = torch.rand(50, 3, dtype=torch.float64)
    assert torch.allclose(encode(z).square().sum(-1), torch.full((50,), 3.0).double())
    assert torch.allclose(encode(torch.tensor([0.0, 1.0])), torch.tensor([1.0, 0.0, 0.0, 1.0]), atol=1e-6)
    assert encode(torch.tensor([0.25]), "z|1-z").tolist() == [0.25, 0.75]
    assert to_unit(torch.tensor([5.0]), 0, 10).item() == 0.5


def test_each_predicted_tensor_starts_with_its_own_fan_out() -> None:
    """A block of N rows has the standard deviation sqrt(2 / (1 + .01^2) / N) (both heads)."""
    for chunk in (None, 500):
        with seeded(1):
            net = HyperNet({"gamma": ()}, {"w": (100, 50), "b": (100,)}, (64,), chunk=chunk, residual=False)
        features = torch.randn(400, 64)
        w, b = net.head(features).split([5000, 100], dim=-1)
        expected = 2 / (1 + 0.01**2) * 64
        assert w.var().item() * 5000 == pytest.approx(expected, rel=0.25)
        assert b.var().item() * 100 == pytest.approx(expected, rel=0.5)


def test_ordinary_values_are_ordinary() -> None:
    values = ordinary_values({"a.weight": (400, 50), "a.bias": (400,), "n.weight": (7,), "n.bias": (7,), "t": ()})
    assert values["a.weight"].var().item() == pytest.approx(2 / 50, rel=0.05)
    assert values["a.bias"].abs().max() == 0 and values["n.weight"].min() == values["n.weight"].max() == 1


# --- the residual form


def test_with_a_zero_head_training_is_that_of_the_ordinary_network() -> None:
    module = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.LayerNorm(8), nn.Linear(8, 1)).double()
    external, values = externalize(module)
    hyper = HyperNet({"gamma": ()}, external.shapes, theta0=values).double()
    nn.init.zeros_(hyper.head.weight)
    for part in (hyper.body, hyper.head):
        part.requires_grad_(False)
    x, y = torch.randn(20, 3, dtype=torch.float64), torch.randn(20, 1, dtype=torch.float64)
    outputs = (lambda: module(x)), (lambda: external(hyper(gamma=torch.rand(()).double()), x))
    optimizers = (torch.optim.Adam(module.parameters(), 0.1), torch.optim.Adam([hyper.offset], 0.1))
    for _ in range(10):
        losses = []
        for output, optimizer in zip(outputs, optimizers, strict=True):
            optimizer.zero_grad()
            losses.append((output() - y).square().mean())
            losses[-1].backward()
            optimizer.step()
        assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-10)


def test_theta0_is_set_read_and_frozen() -> None:
    external, values = externalize(Tied())
    hyper = HyperNet({"gamma": ()}, external.shapes, theta0=values)
    assert all(torch.equal(hyper.theta0[name], value) for name, value in values.items())
    hyper.freeze_theta0()
    flat(hyper(gamma=torch.tensor(0.5))).sum().backward()
    assert hyper.offset.grad is None and hyper.head.weight.grad is not None
    with pytest.raises(ModelError, match=r"first\.bias"):
        hyper.set_theta0({**values, "first.bias": torch.zeros(3)})
    with pytest.raises(ModelError, match="residual=False"):
        HyperNet({"gamma": ()}, external.shapes, theta0=values, residual=False)


def test_the_share_of_theta0() -> None:
    values = {"w": torch.full((20, 10), 2.0), "b": torch.zeros(20)}
    net = plain(residual=True, theta0=values)
    nn.init.zeros_(net.head.weight)
    assert proportionality(net, {"gamma": GAMMA}).offset_share == 1
    assert proportionality(plain(), {"gamma": GAMMA}).offset_share == 0


# --- shapes, types, files


@pytest.mark.parametrize("chunk", [None, 50])
def test_checkpoint_and_dtype(tmp_path, chunk) -> None:
    net, twin = (plain(chunk=chunk, residual=True, encoding="cos|sin") for _ in range(2))
    nn.init.normal_(twin.head.weight)
    torch.save(net.state_dict(), tmp_path / "net.pt")
    twin.load_state_dict(torch.load(tmp_path / "net.pt", weights_only=True))
    gamma = torch.tensor([0.2, 0.7]).double()
    assert torch.equal(flat(net(gamma=gamma)), flat(twin(gamma=gamma)))
    half = net.bfloat16()(gamma=gamma.bfloat16())
    assert half["w"].dtype == torch.bfloat16 and half["w"].shape == (2, 20, 10)


def test_inputs_are_flattened_in_the_order_of_names() -> None:
    with seeded(0):
        net = HyperNet({"b": (2,), "a": ()}, {"w": (3,)}, (4,), encoding=None, residual=False)
    a, b = torch.rand(6), torch.rand(6, 2)
    expected = net.head(net.body(torch.cat([a[:, None], b], dim=1)))
    assert torch.allclose(net(b=b, a=a)["w"], expected)
    assert torch.allclose(net(a=a[0], b=b[0])["w"], expected[0], atol=1e-6)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "input gamma is missing"),
        ({"gamma": torch.tensor(0.5), "beta": torch.tensor(0.5)}, "input beta is unknown"),
        ({"gamma": torch.zeros(2, 3)}, r"gamma has shape \(2, 3\)"),
        ({"gamma": torch.tensor(1.5)}, "an input is 1.5, outside"),
    ],
)
def test_wrong_inputs_are_named(values, words) -> None:
    net = HyperNet({"gamma": ()}, {"w": (3,)}, (4,))
    with pytest.raises(DataError, match=words):
        net(**values)


def test_a_head_that_does_not_fit_is_refused_before_it_is_made() -> None:
    with pytest.raises(ResourceError, match=r"a head from 1024 features .* give chunk=4096"):
        HyperNet({"gamma": ()}, {"w": (10**6, 10**4)}, (1024,))


@pytest.mark.parametrize(("options", "words"), [({"hidden": ()}, "hidden is"), ({"chunk": 0}, "chunk is 0")])
def test_bad_settings_are_named(options, words) -> None:
    with pytest.raises(ModelError, match=words):
        HyperNet({"gamma": ()}, {"w": (3,)}, **options)
