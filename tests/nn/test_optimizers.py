"""Optimisers: singular value decompositions, PyTorch's own Muon, natural norms, invariances."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from widthwise.core import ModelError, generator
from widthwise.nn import (
    Lion,
    ModularResidual,
    Muon,
    SpectralDescent,
    modular_groups,
    modular_init_,
    natural_norm,
    newton_schulz,
    unit_scale_,
    unit_scaled_groups,
)

SHAPES = [(4, 4), (16, 3), (3, 16), (64, 48), (1, 7), (7, 1), (10, 100)]


def gaussian(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=generator(seed, "optimizers"), dtype=dtype)


def polar(matrix: torch.Tensor) -> torch.Tensor:
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    return u @ vh


def stepped(weight: torch.Tensor, gradient: torch.Tensor, make, steps: int = 1) -> torch.Tensor:
    """The change of a weight after steps along a constant gradient."""
    parameter = nn.Parameter(weight.clone())
    optimizer = make([parameter])
    for _ in range(steps):
        parameter.grad = gradient.clone()
        optimizer.step()
    return parameter.detach() - weight


# --- orthogonalisation


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(1, 24), cols=st.integers(1, 24), seed=st.integers(0, 99))
def test_accurate_variant_is_the_polar_factor(rows: int, cols: int, seed: int) -> None:
    """Conditioning is bounded by construction: singular values between 0.1 and 1."""
    u, _, vh = torch.linalg.svd(gaussian(rows, cols, seed=seed, dtype=torch.float64), full_matrices=False)
    values = torch.linspace(0.1, 1, min(rows, cols), dtype=torch.float64)
    assert torch.allclose(newton_schulz((u * values) @ vh, 6, polish=2), u @ vh, atol=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_quintic_brings_singular_values_near_one(shape) -> None:
    values = torch.linalg.svdvals(newton_schulz(gaussian(*shape)))
    assert values.min() > 0.65 and values.max() < 1.2


def test_what_is_said_of_the_polynomials() -> None:
    """On diagonal matrices the iteration acts on each singular value alone, as the docstring states."""
    spread = torch.linspace(0.05, 1, 400, dtype=torch.float64)
    steep = torch.stack(
        [newton_schulz(torch.diag(torch.tensor([s, (1 - s**2).clamp(min=0) ** 0.5])))[0, 0] for s in spread]
    )
    assert steep.min() > 0.68 and steep.max() < 1.14
    for polish, error in ((1, 0.063), (2, 6e-4), (3, 1e-9)):
        ends = torch.diag(torch.tensor([0.05, (1 - 0.05**2) ** 0.5], dtype=torch.float64))
        assert (newton_schulz(ends, polish=polish).diagonal() - 1).abs().max() < error


def test_zero_stays_zero_and_low_rank_stays_low_rank() -> None:
    assert newton_schulz(torch.zeros(3, 5)).abs().max() == 0
    outer = gaussian(6, 1, dtype=torch.float64) @ gaussian(1, 9, seed=1, dtype=torch.float64)
    values = torch.linalg.svdvals(newton_schulz(outer, polish=3))
    assert abs(values[0] - 1) < 1e-6 and values[1] < 1e-9


def test_batches_are_matrices_one_by_one_and_transposes_commute() -> None:
    batch = gaussian(2, 3, 5, 4)
    alone = torch.stack([torch.stack([newton_schulz(m) for m in row]) for row in batch])
    assert torch.allclose(newton_schulz(batch), alone, atol=1e-5)
    assert torch.allclose(newton_schulz(batch.mT), alone.mT, atol=1e-5)


# --- steps


@pytest.mark.parametrize("direction", ["orthogonal", "spectral"])
@pytest.mark.parametrize("shape", [*SHAPES, (8, 3, 5, 5), (12,), ()])
def test_a_step_moves_by_lr_in_natural_norm(shape, direction) -> None:
    change = stepped(
        torch.zeros(shape), gaussian(*shape), lambda p: SpectralDescent(p, lr=0.1, direction=direction), steps=1
    )
    matrix = change.reshape(-1, 1) if len(shape) < 2 else change.flatten(1)
    assert natural_norm(matrix).item() == pytest.approx(0.1, rel=2e-3)


def test_frobenius_step_is_the_stated_multiple_of_the_gradient() -> None:
    gradient = gaussian(6, 24)
    change = stepped(torch.zeros(6, 24), gradient, lambda p: SpectralDescent(p, lr=0.1, direction="frobenius"))
    assert torch.allclose(change, -0.1 * 0.5 * gradient / gradient.norm(), atol=1e-7)


def test_orthogonal_step_against_the_decomposition() -> None:
    gradient = gaussian(20, 50, dtype=torch.float64)
    change = stepped(
        torch.zeros(20, 50, dtype=torch.float64),
        gradient,
        lambda p: SpectralDescent(p, lr=1.0, precision="match", polish=3),
    )
    assert torch.allclose(change, -polar(gradient) * (20 / 50) ** 0.5, atol=1e-6)


@pytest.mark.parametrize("scale", ["muon", "rms"])
@pytest.mark.parametrize("shape", [(6, 24), (24, 6)])
@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_equals_that_of_pytorch(shape, scale, nesterov) -> None:
    ours, theirs = (nn.Parameter(gaussian(*shape)) for _ in range(2))
    named = {"muon": "original", "rms": "match_rms_adamw"}[scale]
    mine = Muon([ours], lr=0.05, weight_decay=0.1, scale=scale, nesterov=nesterov)
    other = torch.optim.Muon([theirs], lr=0.05, weight_decay=0.1, nesterov=nesterov, adjust_lr_fn=named)
    for step in range(5):
        ours.grad = gaussian(*shape, seed=step)
        theirs.grad = ours.grad.clone()
        mine.step()
        other.step()
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_momentum_is_the_running_mean_mixed_with_the_gradient() -> None:
    gradients = [gaussian(5, 5, seed=s, dtype=torch.float64) for s in range(3)]
    parameter = nn.Parameter(torch.zeros(5, 5, dtype=torch.float64))
    optimizer = SpectralDescent([parameter], lr=1.0, momentum=0.5, precision="match", polish=3, steps=9)
    expected, buffer = torch.zeros(5, 5, dtype=torch.float64), torch.zeros(5, 5, dtype=torch.float64)
    for gradient in gradients:
        parameter.grad = gradient
        optimizer.step()
        buffer = 0.5 * buffer + 0.5 * gradient
        expected -= polar(0.5 * gradient + 0.5 * buffer)
    assert torch.allclose(parameter, expected, atol=1e-6)


@pytest.mark.parametrize("blocks", [3, (6, 2, 1)])
def test_blocks_are_matrices_of_their_own(blocks) -> None:
    gradient = gaussian(9, 5)
    packed = stepped(torch.zeros(9, 5), gradient, lambda p: SpectralDescent(p, blocks=blocks))
    sizes = [3, 3, 3] if blocks == 3 else list(blocks)
    alone = [stepped(torch.zeros_like(part), part, SpectralDescent) for part in gradient.split(sizes)]
    assert torch.allclose(packed, torch.cat(alone), atol=1e-6)
    assert not torch.allclose(packed, stepped(torch.zeros(9, 5), gradient, SpectralDescent), atol=1e-3)


def test_kinds_of_tensors() -> None:
    def move(gradient: torch.Tensor, kind: str) -> torch.Tensor:
        return stepped(torch.zeros_like(gradient), gradient, lambda p: SpectralDescent(p, lr=1.0, kind=kind))

    matrix = gaussian(6, 4)
    assert torch.allclose(move(matrix, "transposed"), move(matrix.T.contiguous(), "linear").T, atol=1e-6)
    assert torch.allclose(move(matrix, "embedding").square().mean(1), torch.ones(6), atol=1e-5)
    experts = gaussian(3, 6, 4)
    assert torch.allclose(move(experts, "experts")[1], move(experts[1], "linear"), atol=1e-6)
    filters = gaussian(6, 4, 3, 3)
    assert torch.allclose(move(filters, "taps")[:, :, 1, 2], move(filters[:, :, 1, 2], "linear") / 9, atol=1e-6)
    once = gaussian(5, 4)
    once[2] = 0  # a token that does not occur
    assert move(once, "embedding")[2].abs().max() == 0


def test_bfloat16_follows_float32() -> None:
    gradient = gaussian(32, 16)
    exact = stepped(torch.zeros(32, 16), gradient, lambda p: SpectralDescent(p, lr=1.0))
    for make in (
        lambda p: SpectralDescent(p, lr=1.0, precision="bfloat16"),
        lambda p: SpectralDescent(p, lr=1.0, precision="match"),
    ):
        rough = stepped(torch.zeros(32, 16).bfloat16(), gradient.bfloat16(), make)
        assert rough.dtype == torch.bfloat16
        assert (rough.float() - exact).norm() / exact.norm() < 0.03


@pytest.mark.parametrize("make", [SpectralDescent, Muon, Lion], ids=lambda m: m.__name__)
def test_state_round_trip_continues_the_same_run(make) -> None:
    def run(break_at: int | None) -> torch.Tensor:
        parameter = nn.Parameter(gaussian(6, 4))
        optimizer = make([parameter], lr=0.1, weight_decay=0.1)
        for step in range(6):
            if step == break_at:
                saved = copy.deepcopy(optimizer.state_dict())
                optimizer = make([parameter])
                optimizer.load_state_dict(saved)
            parameter.grad = gaussian(6, 4, seed=step)
            optimizer.step()
        return parameter.detach()

    assert torch.equal(run(None), run(3))


def test_state_loads_without_unpickling(tmp_path) -> None:
    parameter = nn.Parameter(gaussian(6, 4))
    optimizer = SpectralDescent([parameter], blocks=(4, 2))
    parameter.grad = gaussian(6, 4)
    optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    assert torch.equal(loaded["state"][0]["momentum_buffer"], optimizer.state[parameter]["momentum_buffer"])


@pytest.mark.parametrize("make", [SpectralDescent, Lion], ids=lambda m: m.__name__)
def test_missing_and_empty_gradients_closures_and_tensor_rates(make) -> None:
    used, unused, empty = nn.Parameter(gaussian(3, 4)), nn.Parameter(gaussian(3, 4)), nn.Parameter(torch.zeros(0, 4))
    before = unused.detach().clone()
    optimizer = make([used, unused, empty], lr=torch.tensor(0.1))

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = used.square().sum() + empty.sum()
        loss.backward()
        return loss

    first = optimizer.step(closure)
    assert optimizer.step(closure) < first
    assert torch.equal(unused, before) and unused not in optimizer.state


def test_weight_decay_is_decoupled() -> None:
    weight = gaussian(4, 4)
    change = stepped(weight, torch.zeros(4, 4), lambda p: SpectralDescent(p, lr=0.1, weight_decay=0.5))
    assert torch.allclose(change, -0.05 * weight)


def test_lion_by_hand() -> None:
    parameter = nn.Parameter(torch.tensor([1.0, 1.0], dtype=torch.float64))
    optimizer = Lion([parameter], lr=0.1, betas=(0.5, 0.8), weight_decay=0.2)
    for gradient in ([1.0, -1.0], [-0.1, 0.5]):  # momentum after the first: (.2, -.2); mixed: (.05, .15)
        parameter.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
    expected = [(1 * 0.98 - 0.1) * 0.98 - 0.1, (1 * 0.98 + 0.1) * 0.98 - 0.1]
    assert parameter.tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lr": -1.0}, "lr is -1.0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"momentum": 1.0}, "momentum is 1.0"),
        ({"steps": 0}, "steps is 0"),
        ({"kind": "taps"}, "taps"),
        ({"blocks": 4}, "6 rows do not divide into 4"),
        ({"blocks": (4, 4)}, "do not add up to the 6 rows"),
    ],
)
def test_bad_settings_are_named(options, words) -> None:
    with pytest.raises(ModelError, match=words):
        SpectralDescent([nn.Parameter(torch.zeros(6, 4))], **options)


def test_a_bad_setting_of_a_group_is_named_and_the_group_not_added() -> None:
    optimizer = SpectralDescent([nn.Parameter(torch.zeros(6, 4))])
    with pytest.raises(ModelError, match="scale is 'big'"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2, 2))], "scale": "big"})
    assert len(optimizer.param_groups) == 1


def test_vectors_and_sparse_gradients_are_refused_by_name() -> None:
    with pytest.raises(ModelError, match=r"\(4,\) is not a matrix"):
        Muon([nn.Parameter(torch.zeros(4))])
    embedding = nn.Embedding(3, 2, sparse=True)
    embedding(torch.tensor([0])).sum().backward()
    with pytest.raises(ModelError, match="sparse"):
        SpectralDescent(embedding.parameters()).step()


# --- modular norm


def first_order_change(net: nn.Module, groups, x: torch.Tensor, seed: int) -> float:
    """Root mean square of the output's first-order change for a step along a random gradient."""
    named = dict(net.named_parameters())
    before = {name: value.detach().clone() for name, value in named.items()}
    optimizer = SpectralDescent(groups, polish=3)
    net(x).backward(gaussian(*net(x).shape, seed=seed, dtype=x.dtype))
    optimizer.step()
    tangents = {name: value.detach() - before[name] for name, value in named.items()}
    net.zero_grad()

    def output(values):
        return torch.func.functional_call(net, values, (x,))

    return torch.func.jvp(output, (before,), (tangents,))[1].square().mean(-1).sqrt().max().item()


def residual_net(width: int, depth: int) -> nn.Sequential:
    def block() -> nn.Module:
        layers = nn.Sequential(nn.Linear(width, width, bias=False), nn.Tanh(), nn.Linear(width, width, bias=False))
        return ModularResidual(layers, depth)

    inner = [block() for _ in range(depth)]
    return modular_init_(
        nn.Sequential(nn.Linear(8, width, bias=False), *inner, nn.Linear(width, 4, bias=False)).double()
    )


@pytest.mark.parametrize(("width", "depth"), [(16, 1), (64, 1), (16, 8), (64, 8)])
def test_the_output_moves_by_at_most_lr_at_every_width_and_depth(width, depth) -> None:
    x = gaussian(5, 8, dtype=torch.float64)
    x = x / x.square().mean(-1, keepdim=True).sqrt()
    for seed in range(3):
        net = residual_net(width, depth)
        change = first_order_change(net, modular_groups(net, 0.1, masses={"[0-9]*.block*": 1 / depth}), x, seed)
        assert 0.01 < change <= 0.1 * (1 + 1e-6)


def test_the_share_of_a_sequence_is_its_masses_over_later_sensitivities() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.ReLU(), nn.Linear(4, 4, bias=False))
    rates = {group["weights"][0]: group["lr"] for group in modular_groups(net, 2.0, masses={"3": 3.0})}
    assert rates == pytest.approx({"0.weight": 0.5, "0.bias": 0.5, "3.weight": 1.5})


def test_modular_init_has_natural_norm_one() -> None:
    for layer in (nn.Linear(6, 20), nn.Linear(20, 6)):
        assert natural_norm(modular_init_(layer).weight.detach()).item() == pytest.approx(1, rel=1e-5)
    filters = modular_init_(nn.Conv2d(3, 8, 3)).weight.detach()
    assert torch.allclose(natural_norm(filters.permute(2, 3, 0, 1)), torch.full((3, 3), 1 / 9), rtol=1e-5)
    assert torch.allclose(modular_init_(nn.Embedding(5, 7)).weight.square().mean(1), torch.ones(5))


def test_modules_without_a_known_modular_norm_are_named() -> None:
    with pytest.raises(ModelError, match="'1' is a LSTM"):
        modular_groups(nn.Sequential(nn.Linear(2, 2), nn.LSTM(2, 2)), 0.1)


# --- unit scaling


def perceptron(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2))


def test_unit_scaling_keeps_the_function_and_hidden_outputs_have_variance_one() -> None:
    net, x = perceptron(64), gaussian(7, 8)
    before = net(x)
    assert torch.allclose(unit_scale_(net, readout="4", init=False)(x), before, atol=1e-6)
    layer = unit_scale_(nn.Sequential(nn.Linear(256, 512), nn.Linear(512, 1)), readout="1")[0]
    assert layer(gaussian(64, 256)).var().item() == pytest.approx(1, abs=0.05)


def test_adam_on_unit_weights_is_adam_on_the_weights_with_the_rates_of_mup() -> None:
    """The abc symmetry: multiplier k and rate r train as multiplier one and rate k r (epsilon zero)."""
    width, lr = 32, 0.1
    unit = unit_scale_(perceptron(width).double(), readout="4")
    plain = perceptron(width).double()
    with torch.no_grad():
        for index in (0, 2, 4):
            plain[index].weight.copy_(unit[index].weight)
            plain[index].bias.copy_(unit[index].bias)
    rates = {0: lr / 8, 2: lr / width, 4: lr / width}
    groups = [{"params": [plain[i].weight], "lr": rate} for i, rate in rates.items()]
    groups.append({"params": [plain[i].bias for i in rates], "lr": lr})
    optimizers = [
        torch.optim.Adam(unit_scaled_groups(unit, lr, readout="4"), eps=1e-30),
        torch.optim.Adam(groups, eps=1e-30),
    ]
    x, y = gaussian(9, 8, dtype=torch.float64), gaussian(9, 2, seed=1, dtype=torch.float64)
    for _ in range(4):
        for net, optimizer in zip((unit, plain), optimizers, strict=True):
            optimizer.zero_grad()
            (net(x) - y).square().mean().backward()
            optimizer.step()
    assert torch.allclose(unit(x), plain(x), rtol=1e-9)


def test_branches_and_embeddings_have_their_own_rates() -> None:
    net = nn.Sequential(nn.Embedding(10, 16), nn.Linear(16, 16, bias=False), nn.Linear(16, 3, bias=False))
    unit_scale_(net, readout="2")
    groups = unit_scaled_groups(net, 1.0, readout="2", branches=["1"], depth=4)
    rates = {name: group["lr"] for group in groups for name in group["weights"]}
    assert sorted(rates.values()) == [0.125, 0.25, 1.0]
    with pytest.raises(ModelError, match="no layer called 'head'"):
        unit_scale_(net, readout="head")
