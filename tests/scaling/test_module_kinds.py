"""Roles, factors and notes for the module kinds that parametrisations usually trip over."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from widthwise.scaling import parametrize

X = torch.randn(12, 8, generator=torch.Generator().manual_seed(2))
RATIO = 4


def planned(make, inputs, optimizer="adam", **settings):  # type: ignore[no-untyped-def]
    """The plan at four times the base width 16, relative learning rates and notes."""
    torch.manual_seed(0)
    groups = parametrize(
        make(16 * RATIO), lr=1.0, optimizer=optimizer, base=make(16), example_inputs=(inputs,), **settings
    )
    return groups.plan, {row.name: row.lr for row in groups.plan.rows}


class Experts(nn.Module):
    """Four experts with weights [expert, in, out] and a soft router."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.table, self.router, self.head = nn.Linear(8, width), nn.Linear(width, 4), nn.Linear(width, 3)
        self.up = nn.Parameter(torch.randn(4, width, 2 * width) * width**-0.5)
        self.down = nn.Parameter(torch.randn(4, 2 * width, width) * (2 * width) ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.table(x)
        share = self.router(h).softmax(-1)
        mixed = torch.bmm(torch.relu(torch.bmm(h.expand(4, -1, -1), self.up)), self.down)
        return self.head(h + (share.T.unsqueeze(-1) * mixed).sum(0))


def test_experts_have_the_fans_of_one_expert():
    plan, lrs = planned(Experts, X)
    assert (plan["up"].fan_in, plan["up"].fan_out) == (64, 128)
    assert plan["router.weight"].role == "output"
    assert [lrs[name] for name in ("up", "down", "router.weight", "table.weight")] == [0.25, 0.25, 0.25, 1.0]
    assert plan["up"].init_std == pytest.approx(64**-0.5, rel=0.05)


def test_muon_leaves_what_is_no_matrix_to_adam():
    plan, _ = planned(Experts, X, "muon")
    assert {row.name for row in plan.rows if row.optimizer == "muon"} == set()
    plan, _ = planned(lambda n: nn.Sequential(nn.Linear(8, n), nn.Linear(n, 2 * n), nn.Linear(2 * n, 3)), X, "muon")
    assert [row.name for row in plan.rows if row.optimizer == "muon"] == ["1.weight"]


def test_groups_and_depthwise_convolutions():
    def make(width: int) -> nn.Module:
        body = [nn.Conv2d(3, width, 3), nn.Conv2d(width, width, 3, groups=4), nn.Conv2d(width, width, 3, groups=width)]
        return nn.Sequential(*body, nn.Flatten(), nn.Linear(16 * width, 3))

    plan, lrs = planned(make, torch.randn(2, 3, 10, 10))
    assert [plan[f"{i}.weight"].role for i in range(3)] == ["input", "hidden", "vector"]
    assert plan["1.weight"].fan_in == 64 // 4 * 9
    assert [lrs[f"{i}.weight"] for i in (0, 1, 2, 4)] == [1.0, 0.25, 1.0, 0.25]


class Adapted(nn.Module):
    """A frozen layer with a low-rank adapter, and a layer that nothing calls."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.table, self.base, self.head = nn.Linear(8, width), nn.Linear(width, width), nn.Linear(width, 3)
        self.base.requires_grad_(False)
        self.a, self.b = nn.Linear(width, 4, bias=False), nn.Linear(4, width, bias=False)
        nn.init.zeros_(self.b.weight)
        self.forgotten = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.table(x))
        return self.head(torch.relu(self.base(h) + self.b(self.a(h))))


def test_adapters_frozen_and_unused_parameters():
    """Rates of A and B differ by the width, as in arXiv:2402.12354 (LoRA+)."""
    plan, lrs = planned(Adapted, X)
    assert (lrs["a.weight"], lrs["b.weight"]) == (0.25, 1.0)
    assert plan["b.weight"].init_std == 0.0
    assert not plan["base.weight"].trained and plan["base.weight"].init_ratio == 1.0
    assert any("forgotten.weight is used in no forward pass" in note for note in plan.notes)


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.table, self.head = nn.Linear(8, width), nn.Linear(width, 3)
        self.mix = nn.MultiheadAttention(width, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.table(x)
        return self.head(h + self.mix(h, h, h, need_weights=False)[0])


def test_scores_inside_pytorchs_attention_are_left_and_said():
    module = Attention(64)
    groups = parametrize(module, lr=1.0, base=Attention(16), example_inputs=(X[None],))
    assert groups.plan.scores == ()
    (note,) = groups.plan.notes
    assert "cannot be set from outside" in note and "multiply them by 0.5" in note
    assert not module.mix._forward_hooks and module(X[None]).shape == (1, 12, 3)
    assert groups.plan["mix.in_proj_weight"].role == "hidden"


def test_recurrent_weights_are_hidden():
    class Recurrent(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.cell, self.head = nn.LSTM(8, width, batch_first=True), nn.Linear(width, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.cell(x)[0])

    plan, lrs = planned(Recurrent, X[None])
    assert [plan[f"cell.weight_{kind}_l0"].role for kind in ("ih", "hh")] == ["input", "hidden"]
    assert (lrs["cell.weight_ih_l0"], lrs["cell.weight_hh_l0"], lrs["cell.bias_ih_l0"]) == (1.0, 0.25, 1.0)


def test_packed_projections_and_ties_of_gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    def make(width: int) -> nn.Module:
        config = GPT2Config(
            n_embd=width, n_layer=1, n_head=2, vocab_size=13, n_positions=8, bos_token_id=0, eos_token_id=0
        )
        return GPT2LMHeadModel(config)

    module = make(64)
    tokens = {"input_ids": torch.arange(8)[None]}
    plan = parametrize(module, lr=1.0, base=make(16), example_inputs=tokens).plan
    packed = plan["transformer.h.0.attn.c_attn.weight"]
    assert (packed.role, packed.fan_in, packed.lr) == ("hidden", 64, 0.25)
    table = plan["transformer.wte.weight"]
    assert (table.role, table.lr, table.multiplier) == ("embedding", 1.0, 0.25)
    (score,) = plan.scores
    assert score.multiplier == 0.5 and score.block == (0.0, pytest.approx(1 / 3))


def test_a_readout_without_a_module_is_folded():
    """Same function and same first step as with the multiplier."""

    class Bare(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.table, self.head = nn.Linear(8, width), nn.Parameter(torch.randn(width, 3) * width**-0.5)

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(self.table(x)) @ self.head

    module = Bare(64)
    groups = parametrize(module, "mup", lr=1.0, optimizer="adam", base=Bare(16), example_inputs=(X,))
    assert not module._forward_pre_hooks
    row = groups.plan["head"]
    assert (row.multiplier, row.lr) == (1.0, 0.25)
    assert "folded" in groups.plan.notes[0]


def test_attention_that_is_scaled_right_already_is_left():
    class Right(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.q, self.k, self.head = nn.Linear(8, width), nn.Linear(8, width), nn.Linear(width, 3)

        def forward(self, x: Tensor) -> Tensor:
            q, k = self.q(x)[:, None], self.k(x)[:, None]
            mixed = nn.functional.scaled_dot_product_attention(q, k, k, scale=8 / q.shape[-1])
            return self.head(mixed[:, 0])

    plan, _ = planned(Right, X[None])
    assert plan.scores == ()


def test_adafactors_steps_are_relative_to_the_weights():
    """PyTorch's Adafactor multiplies by the weight's root mean square: a hidden step of 1/n needs 1/sqrt(n)."""
    _, lrs = planned(lambda n: nn.Sequential(nn.Linear(8, n), nn.Linear(n, n), nn.Linear(n, 3)), X, "adafactor")
    found = [math.log(lrs[f"{i}.weight"]) / math.log(RATIO) for i in range(3)]
    assert found == pytest.approx([0, -0.5, 0])
    module, other = nn.Linear(64, 64, bias=False), nn.Linear(256, 256, bias=False)
    moved = []
    for part in (module, other):
        before = part.weight.detach().clone()
        part(torch.ones(4, part.in_features)).square().mean().backward()
        torch.optim.Adafactor(part.parameters(), lr=0.01).step()
        moved.append(float((part.weight - before).square().mean().sqrt()))
    assert moved[1] / moved[0] == pytest.approx(4**-0.5, rel=0.1)


def test_coupled_decay_is_pointed_out():
    plan, _ = planned(lambda n: nn.Sequential(nn.Linear(8, n), nn.Linear(n, 3)), X, "adam", weight_decay=0.1)
    assert "use adamw" in plan.notes[0]


# -- depth -------------------------------------------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self, width: int, normed: bool) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, width), nn.Linear(width, width)
        self.end = nn.LayerNorm(width) if normed else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.end(self.down(torch.relu(self.up(self.norm(x)))))


class Deep(nn.Module):
    def __init__(self, depth: int, normed: bool = False, width: int = 48) -> None:
        super().__init__()
        self.table, self.head = nn.Linear(8, width), nn.Linear(width, 3)
        self.blocks = nn.Sequential(*[Block(width, normed) for _ in range(depth)])

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.table(x)))


def test_a_branch_is_scaled_by_what_ends_it():
    plan = parametrize(Deep(8), lr=1.0, optimizer="adam", depth_rule="sqrt", base_depth=2, example_inputs=(X,)).plan
    assert plan["blocks.0.down.weight"].lr / plan["blocks.0.up.weight"].lr == pytest.approx(0.5)
    assert plan["blocks.0.down.bias"].lr / plan["blocks.0.up.bias"].lr == pytest.approx(0.5)
    module = Deep(8, normed=True)
    plan = parametrize(module, lr=1.0, optimizer="adam", depth_rule="sqrt", base_depth=2, example_inputs=(X,)).plan
    assert plan["blocks.0.down.weight"].lr == plan["blocks.0.up.weight"].lr
    assert torch.equal(module.blocks[0].end.weight, torch.full((48,), 0.5))
    parametrize(module, lr=1.0, optimizer="adam", depth_rule="sqrt", base_depth=2, example_inputs=(X,))
    assert torch.equal(module.blocks[0].end.weight, torch.full((48,), 0.5))


def movement(depth: int, optimizer: str, rule: str, normed: bool, factor: float = 1.0) -> float:
    """Change of the stream after two steps, mean over two seeds."""
    found = []
    for seed in range(2):
        torch.manual_seed(seed)
        module = Deep(depth, normed)
        groups = parametrize(
            module, lr={"sgd": 0.01, "adam": 0.02}[optimizer], optimizer=optimizer, depth_rule=rule, base_depth=2,
            example_inputs=(X,), overrides={"blocks.*": {"lr": factor}},
        )  # fmt: skip
        step = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[optimizer](groups)
        before = module.blocks(module.table(X)).detach()
        for _ in range(2):
            step.zero_grad()
            nn.functional.cross_entropy(module(X), torch.arange(12) % 3).backward()
            step.step()
        found.append(float((module.blocks(module.table(X)) - before).square().mean().sqrt()))
    return float(np.mean(found))


def slope(depths: list[int], changes: list[float]) -> float:
    return float(np.polyfit(np.log(depths), np.log(changes), 1)[0])


@pytest.mark.slow
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_stream_changes_alike_at_every_depth(optimizer, normed):
    depths = [2, 4, 8, 16]
    steady = slope(depths, [movement(depth, optimizer, "sqrt", normed) for depth in depths])
    growing = slope(depths, [movement(depth, optimizer, "none", normed) for depth in depths])
    assert abs(steady) < 0.2 < growing


@pytest.mark.slow
def test_adams_rate_has_to_fall_with_the_root_of_the_depth():
    """Undoing the factor 1/sqrt(L) of Adam's rate under branch multipliers 1/sqrt(L) gives growth with exponent 1/2."""
    depths = [2, 4, 8, 16]
    undone = slope(depths, [movement(depth, "adam", "sqrt", False, (depth / 2) ** 0.5) for depth in depths])
    assert undone == pytest.approx(0.5, abs=0.2)
