"""Parametrisations of real modules: base equality, idempotence, exponents, and width-stable updates."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from widthwise.core import DataError, ModelError
from widthwise.scaling import parametrize

X = torch.randn(16, 8, generator=torch.Generator().manual_seed(5))

TARGETS = torch.randn(16, 3, generator=torch.Generator().manual_seed(6))


def build(width: int) -> nn.Sequential:
    torch.manual_seed(width)
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 3))


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def lrs(groups) -> dict[str, float]:  # type: ignore[no-untyped-def]
    return {name: group["lr"] for group in groups for name in group["weights"]}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lion", "spectral"])
@pytest.mark.parametrize("scheme", ["spectral", "mup", "ntk", "standard", "mean-field"])
def test_at_its_base_width_nothing_changes(scheme, optimizer):
    module = build(32)
    before, output = state(module), module(X)
    groups = parametrize(
        module, scheme, lr=0.01, optimizer=optimizer, base=build(32), example_inputs=X, weight_decay=0.1
    )
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert torch.equal(module(X), output)
    assert all(group["lr"] == 0.01 and group["weight_decay"] == 0.1 for group in groups)


@pytest.mark.parametrize("base", [None, 32])
@pytest.mark.parametrize("scheme", ["spectral", "mup", "ntk"])
def test_twice_is_once(scheme, base):
    module = build(128)
    reference = None if base is None else build(base)
    first = parametrize(module, scheme, lr=0.01, base=reference, example_inputs=X)
    before, output = state(module), module(X)
    second = parametrize(module, scheme, lr=0.01, base=reference, example_inputs=X)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert torch.equal(module(X), output)
    assert lrs(first) == pytest.approx(lrs(second))


def test_a_dry_run_changes_nothing_and_shows_the_table():
    module = build(128)
    before = state(module)
    groups = parametrize(module, "mup", lr=0.01, base=build(32), example_inputs=X, dry_run=True)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert not any(part._forward_pre_hooks for part in module.modules())
    text = str(groups)
    assert all(name in text for name in before)
    assert groups.plan.to_dict()["rows"][0]["role"] == "input"


@pytest.mark.parametrize(
    ("scheme", "optimizer", "expected"),
    [  # exponents of the width ratio, arXiv:2203.03466 tables 3 and 8; (input, hidden, readout, hidden bias)
        ("spectral", "sgd", (1, 0, -1, 1)),
        ("spectral", "adam", (0, -1, -1, 0)),
        ("mup", "sgd", (1, 0, 1, 1)),
        ("mup", "adam", (0, -1, 0, 0)),
        ("ntk", "sgd", (0, -1, -1, 0)),
        ("standard", "adam", (0, 0, 0, 0)),
    ],
)
def test_learning_rates_follow_the_tables(scheme, optimizer, expected):
    found = lrs(parametrize(build(256), scheme, lr=0.01, optimizer=optimizer, base=build(32), example_inputs=X))
    names = ("0.weight", "2.weight", "4.weight", "0.bias")
    assert [math.log(found[name] / 0.01) / math.log(8) for name in names] == pytest.approx(list(expected), abs=1e-9)


def test_the_readout_gets_its_scale_by_the_rule_or_by_a_multiplier():
    plain, multiplied = build(256), build(256)
    std = float(plain[4].weight.detach().std())
    parametrize(plain, "spectral", lr=0.1, base=build(64), example_inputs=X)
    parametrize(multiplied, "mup", lr=0.1, base=build(64), example_inputs=X)
    assert float(plain[4].weight.detach().std()) == pytest.approx(std * 4**-0.5, rel=1e-5)
    assert float(multiplied[4].weight.detach().std()) == pytest.approx(std * 4**0.5, rel=1e-5)
    with torch.no_grad():
        assert torch.allclose(plain(X), multiplied(X), atol=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_mup_and_spectral_train_alike(optimizer):
    """The abc symmetry: moving the readout's multiplier into its weights changes no step (float64, eps scaled)."""
    outputs = []
    for scheme in ("spectral", "mup"):
        module = build(128).double()
        groups = parametrize(module, scheme, lr=0.02, optimizer=optimizer, base=build(32), example_inputs=X.double())
        step = torch.optim.SGD(groups) if optimizer == "sgd" else torch.optim.AdamW(groups)
        for _ in range(5):
            step.zero_grad()
            nn.functional.cross_entropy(module(X.double()), torch.arange(16) % 3).backward()
            step.step()
        outputs.append(module(X.double()).detach())
    assert torch.allclose(outputs[0], outputs[1], rtol=1e-6, atol=1e-8)


def movement(scheme: str, optimizer: str, width: int, seed: int) -> list[float]:
    """RMS change of each layer's preactivations after one step of mean squared error."""
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 3))
    groups = parametrize(module, scheme, lr={"sgd": 0.05, "adam": 0.01}[optimizer], optimizer=optimizer,
                         base=build(64), example_inputs=X)  # fmt: skip
    step = torch.optim.SGD(groups) if optimizer == "sgd" else torch.optim.Adam(groups)

    def layers() -> list[Tensor]:
        found, h = [], X
        for part in module:
            h = part(h)
            if isinstance(part, nn.Linear):
                found.append(h.detach())
        return found

    before = layers()
    (module(X) - TARGETS).square().mean().backward()
    step.step()
    return [float((a - b).square().mean().sqrt()) for a, b in zip(layers(), before, strict=True)]


@pytest.mark.parametrize(
    ("scheme", "optimizer"),
    [
        ("spectral", "adam"),
        ("mup", "sgd"),
        ("standard", "adam"),
        *(
            pytest.param(*pair, marks=pytest.mark.slow)
            for pair in (("spectral", "sgd"), ("mup", "adam"), ("standard", "sgd"))
        ),
    ],
)
def test_updates_are_width_stable_in_mup_and_not_in_the_standard_one(scheme, optimizer):
    widths = [64, 128, 256, 512]
    changes = np.array([np.mean([movement(scheme, optimizer, w, s) for s in range(3)], axis=0) for w in widths])
    slopes = np.polyfit(np.log(widths), np.log(changes), 1)[0]
    if scheme == "standard":
        assert max(slopes) > 0.3
    else:
        assert max(abs(slopes)) < 0.15


def test_checkpoints_and_copies_keep_the_multiplier():
    module = build(128)
    parametrize(module, "mup", lr=0.1, base=build(32), example_inputs=X)
    twin = copy.deepcopy(module)
    assert torch.equal(twin(X), module(X))
    fresh = build(128)
    fresh.load_state_dict(module.state_dict())
    parametrize(fresh, "mup", lr=0.1, base=build(32), example_inputs=X, init=False)
    assert torch.equal(fresh(X), module(X))


def test_trained_entries_are_not_rescaled_by_accident():
    module = build(128)
    groups = parametrize(module, "spectral", lr=0.1, optimizer="sgd", base=build(32), example_inputs=X)
    optimizer = torch.optim.SGD(groups)
    module(X).square().mean().backward()
    optimizer.step()
    with pytest.raises(ModelError, match="changed since it was scaled"):
        parametrize(module, "spectral", lr=0.1, optimizer="sgd", base=build(64), example_inputs=X)
    parametrize(module, "spectral", lr=0.1, optimizer="sgd", base=build(64), example_inputs=X, init=False)


def test_overrides_by_pattern():
    groups = parametrize(
        build(128), "spectral", lr=0.1, base=build(32), example_inputs=X, optimizer="adam",
        overrides={"0.*": {"lr": 3.0}, "2.weight": {"role": "output"}},
    )  # fmt: skip
    found = lrs(groups)
    assert found["0.weight"] == pytest.approx(0.3)
    assert groups.plan["2.weight"].role == "output"
    with pytest.raises(DataError, match="'speed' is not one of"):
        parametrize(build(64), lr=0.1, example_inputs=X, overrides={"*": {"speed": 1.0}})


def test_frozen_weights_are_in_no_group():
    module = build(64)
    module[0].weight.requires_grad_(False)
    groups = parametrize(module, lr=0.1, base=build(32), example_inputs=X)
    assert "0.weight" not in lrs(groups)
    assert not groups.plan["0.weight"].trained


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": 0.0}, "lr is 0.0"),
        ({"lr": 0.1, "gamma": -1.0}, "gamma is -1.0"),
        ({"lr": 0.1, "optimizer": "adamax2"}, "optimizer 'adamax2' is not known"),
        ({"lr": 0.1, "scheme": "sp"}, "'sp' is not one of"),
        ({"lr": 0.1, "scheme": {"hiden": (0, 0, 0)}}, "role 'hiden'"),
        ({"lr": 0.1, "weight_decay": -1.0}, "weight_decay is -1.0"),
    ],
)
def test_bad_settings_are_refused_in_one_sentence(settings, message):
    with pytest.raises(DataError, match=message):
        parametrize(build(32), **settings, example_inputs=X)


def test_another_architecture_as_base_is_refused():
    with pytest.raises(ModelError, match="differ in parameter"):
        parametrize(build(64), lr=0.1, base=nn.Sequential(nn.Linear(8, 3)), example_inputs=X)


@pytest.mark.parametrize(
    ("features", "optimizer", "settings", "said"),
    [
        (784, "adamw", {}, "'lr': 0.0408"),
        (784, "sgd", {}, None),
        (784, "adamw", {"overrides": {"0.weight": {"lr": 0.1}}}, None),
        (784, "adamw", {"base": None}, None),
        (32, "adamw", {}, None),
    ],
)
def test_an_input_layer_wider_than_the_base_is_named_with_its_mend(features, optimizer, settings, said):
    """Per unit of an even rate a sign update changes outputs by the fan-in: 784 / 32 times as much at the input."""

    def build(width):
        return nn.Sequential(
            nn.Linear(features, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2)
        )

    settings = {"base": build(32), **settings}
    groups = parametrize(
        build(64), lr=0.1, optimizer=optimizer, example_inputs=torch.randn(2, features), dry_run=True, **settings
    )
    found = [note for note in groups.plan.notes if "may set the best rate alone" in note]
    assert (not found) if said is None else (len(found) == 1 and said in found[0] and found[0].startswith("0.weight"))
