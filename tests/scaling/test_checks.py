"""Coordinate and transfer checks: seeded mistakes have to be named, right set-ups have to pass."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from widthwise.nn import build_model
from widthwise.scaling import CoordinateCheck, Slope, coordinate_check, fit_slope, parametrize, transfer_check
from widthwise.scaling._coordinate_result import judged
from widthwise.scaling._multipliers import place_block_scale, place_input_scale
from widthwise.scaling._optimum import Optimum, fit_drift, optimum, vertex
from widthwise.scaling._transfer_check import missing

WIDTHS = (32, 64, 128, 256)
G = torch.Generator().manual_seed(3)
DATA = torch.randn(64, 8, generator=G), torch.randint(3, (64,), generator=G)
TOKENS = torch.randint(17, (8, 7), generator=G)
TEXT = {"input_ids": TOKENS[:, :-1]}, TOKENS[:, 1:].contiguous()


def build(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 3))


def mistaken(mistake, optimizer: str = "adam", seeds: int = 2, **settings) -> CoordinateCheck:  # type: ignore[no-untyped-def]
    """A check of a right set-up with one mistake made on purpose; ``mistake(module, groups, width ratio)``."""
    base = build(WIDTHS[0])

    def groups(module: nn.Module) -> list[dict]:
        found = parametrize(module, "spectral", lr=0.01, optimizer=optimizer, base=base, example_inputs=DATA[0])
        mistake(module, found, module[0].out_features / WIDTHS[0])
        return found

    return coordinate_check(build, WIDTHS, DATA, groups=groups, optimizer=optimizer, seeds=seeds, **settings)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("scheme", ["spectral", "mup"])
def test_right_parametrisations_break_no_rule(scheme, optimizer):
    check = coordinate_check(
        build, WIDTHS, DATA, scheme=scheme, optimizer=optimizer, lr={"sgd": 0.1, "adam": 0.01}[optimizer]
    )
    assert check.verdicts == ()
    assert all(seen.status != "broken" for seen in check.observations)
    hidden = check.of("change")["2"].slope
    assert hidden is not None and abs(hidden.value) < 0.1


def test_the_standard_parametrisation_fails_and_says_where():
    check = coordinate_check(build, WIDTHS, DATA, scheme="standard", optimizer="adam", lr=0.01)
    found = {(verdict.place, verdict.rule) for verdict in check.verdicts}
    assert {("4.weight", "readout init"), ("2.weight", "learning rate"), ("2.bias", "bias init")} <= found
    assert not check.passed
    assert "BROKEN: readout init: 4.weight" in str(check)


def wrong_readout(module, groups, ratio):  # type: ignore[no-untyped-def]
    with torch.no_grad():
        module[4].weight.mul_(ratio**0.5)


def wrong_bias(module, groups, ratio):  # type: ignore[no-untyped-def]
    with torch.no_grad():
        module[2].bias.mul_(ratio**-0.5)


@pytest.mark.parametrize(
    ("mistake", "expected"),
    [(wrong_readout, ("4.weight", "readout init")), (wrong_bias, ("2.bias", "bias init"))],
)
def test_a_wrong_initial_scale_is_named_and_nothing_else(mistake, expected):
    verdicts = [verdict for verdict in mistaken(mistake, seeds=5).verdicts if not verdict.consequence]
    assert [(verdict.place, verdict.rule) for verdict in verdicts] == [expected]


def test_a_wrong_learning_rate_is_named_with_its_cure():
    def mistake(module, groups, ratio):  # type: ignore[no-untyped-def]
        for group in groups:
            if "2.weight" in group["weights"]:
                index = group["weights"].index("2.weight")
                moved = group["params"].pop(index)
                group["weights"].pop(index)
                groups.append({**group, "params": [moved], "weights": ["2.weight"], "lr": group["lr"] * ratio})
                break

    check = mistaken(mistake)
    (verdict,) = check.verdicts
    assert (verdict.place, verdict.rule) == ("2.weight", "learning rate")
    slope = check.of("update")["2.weight"].slope
    assert slope is not None and slope.value == pytest.approx(1.0, abs=0.15)
    assert f"factor of width^{-slope.value:+.2f}" in verdict.sentence


@pytest.mark.slow
@pytest.mark.parametrize("mistake", ["none", "attention scale", "tied readout", "embedding learning rate"])
def test_mistakes_in_language_models_are_named(mistake):
    from transformers import GPT2Config, GPT2LMHeadModel

    def make(width: int) -> nn.Module:
        off = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0}
        return GPT2LMHeadModel(GPT2Config(n_embd=width, n_layer=1, n_head=4, vocab_size=17, n_positions=8, **off))

    base = make(32)

    def groups(module: nn.Module) -> list[dict]:
        found = parametrize(module, "spectral", lr=0.01, base=base, example_inputs=TEXT[0])
        if mistake == "attention scale":
            place_block_scale(module.transformer.h[0].attn.c_attn, 1.0, (0.0, 1.0))
        if mistake == "tied readout":
            place_input_scale(module.lm_head, 1.0)
        if mistake == "embedding learning rate":
            for group in found:
                if "transformer.wpe.weight" in group["weights"]:
                    index = group["weights"].index("transformer.wpe.weight")
                    moved = {**group, "params": [group["params"].pop(index)], "weights": [group["weights"].pop(index)]}
                    found.append({**moved, "lr": group["lr"] * 32 / module.config.n_embd})
                    break
        return found

    check = coordinate_check(make, (32, 64, 128, 256), TEXT, groups=groups, seeds=2)
    rules = {verdict.rule for verdict in check.verdicts if not verdict.consequence}
    assert rules == (set() if mistake == "none" else {mistake})


def test_slopes_of_exact_power_laws():
    widths = np.array([64.0, 128.0, 256.0, 512.0])
    noise = np.exp(0.02 * np.random.default_rng(0).standard_normal((3, 4)))
    slope = fit_slope(widths, 3.0 * widths**-0.5 * noise)
    assert slope is not None and slope.low < -0.5 < slope.high and slope.high - slope.low < 0.2
    assert fit_slope(widths, np.zeros((2, 4))) is None
    assert Slope(0.3, 0.2, 0.4).within(-0.1, 0.1) is False
    assert Slope(0.12, 0.0, 0.24).within(-0.1, 0.1) is None


# -- finite widths -----------------------------------------------------------------------------------------------------

NARROW = (8, 16, 32, 64, 128)
MANY = torch.randn(256, 64, generator=G), torch.randn(256, 64, generator=G)


def narrow(rate: float) -> CoordinateCheck:
    """Networks narrower than their batch, whose gradients have no alignment yet; hidden rate times ratio^rate."""

    def make(width: int) -> nn.Sequential:
        layers: list[nn.Module] = [nn.Linear(64, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh()]
        return nn.Sequential(*layers, nn.Linear(width, 64))

    def groups(module: nn.Module) -> list[dict]:
        found = parametrize(module, lr=0.01, optimizer="adam", base=make(8), example_inputs=MANY[0][:2])
        for group in found:
            if group["weights"] == ["2.weight"]:
                group["lr"] *= (module[0].out_features / 8) ** rate
        return found

    return coordinate_check(make, NARROW, MANY, groups=groups, optimizer="adam", batch_size=256, seeds=3)


@pytest.mark.parametrize(
    ("norm", "rank", "verdict"),
    [(-0.25, 0.5, "too narrow"), (-0.25, 0.0, "broken"), (-1.0, 0.5, "broken"), (-0.5, 0.2, "broken")],
)
def test_a_falling_norm_is_judged_by_the_rank_that_can_still_grow(norm, rank, verdict):
    widths, noise = (16, 32, 64, 128), np.exp(0.01 * np.random.default_rng(1).standard_normal((2, 3, 4)))
    powers = np.array(widths, dtype=float)
    norms, ranks = powers**norm * noise[0], powers**rank * noise[1]
    assert judged(widths, norms, ranks, -0.1, 0.1) == verdict
    assert judged(widths, norms, None, -0.1, 0.1) == "broken"


@pytest.mark.slow
def test_updates_whose_rank_still_grows_are_not_called_broken():
    """Sign-like updates of unaligned gradients lose norm as long as their stable rank grows; the rate is right."""
    check = narrow(0.0)
    matrices = [check.of("update")[name].status for name in ("0.weight", "2.weight")]
    assert set(matrices) <= {"too narrow", "uncertain"} and "too narrow" in matrices
    assert check.verdicts == () and not check.passed
    assert any("cannot be judged at these widths" in note for note in check.notes)


def test_widths_below_the_number_of_inputs_break_no_rule_of_initial_size():
    def make(width: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(64, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 64))

    check = coordinate_check(make, (8, 16, 32), MANY, seeds=2, steps=1)
    assert check.of("weight")["0.weight"].status == "holds"
    assert not [verdict for verdict in check.verdicts if verdict.rule == "init"]


@pytest.mark.slow
@pytest.mark.parametrize("rate", [-1.0, 1.0])
def test_a_wrong_rate_is_named_at_narrow_widths_too(rate):
    assert ("2.weight", "learning rate") in {(verdict.place, verdict.rule) for verdict in narrow(rate).verdicts}


@pytest.mark.slow
def test_a_residual_network_of_few_channels_breaks_no_rule():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(32, 1, 8, 8, generator=generator), torch.randint(10, (32,), generator=generator)
    check = coordinate_check(
        lambda width: build_model("resnet", (1, 8, 8), 10, width), (16, 32, 64, 128), images, lr=2.0**-9, batch_size=32
    )
    assert check.verdicts == ()
    assert any(seen.status == "too narrow" for seen in check.of("update").values())


# -- transfer ----------------------------------------------------------------------------------------------------------


def test_the_vertex_of_a_parabola_with_diverged_runs():
    x = np.arange(-6.0, 1.0)
    losses = 0.2 + (x + 2.3) ** 2
    losses[-1] = np.inf
    assert vertex(x, losses) == pytest.approx(-2.3)
    assert optimum(x, np.stack([losses, losses])).octaves == pytest.approx(-2.3)
    assert optimum(x, (x[::-1] ** 2)[None]).at_edge


def test_the_vertex_on_a_fine_grid_uses_every_point_near_the_lowest():
    """Five points of half an octave: the slope's error is that of least squares, below that of three of them."""
    x, rng = np.arange(-4.0, 1.5, 0.5), np.random.default_rng(0)
    noise = 0.02
    draws = np.array([vertex(x, 0.5 * (x + 1.5) ** 2 + noise * rng.normal(size=len(x))) for _ in range(400)])
    near = x[np.abs(x + 1.5) <= 1.25]
    expected = noise / (2 * 0.5) / np.sqrt(((near - near.mean()) ** 2).sum())
    assert len(near) == 5
    assert draws.mean() == pytest.approx(-1.5, abs=3 * expected / 20)
    assert draws.std() == pytest.approx(expected, rel=0.15)


def test_the_vertex_stays_at_a_lowest_point_beside_nothing():
    x = np.arange(-3.0, 1.0)
    assert vertex(x, np.array([0.1, 0.2, 0.4, 0.9])) == -3.0
    assert vertex(x, np.array([0.4, 0.2, 0.1, np.inf])) == -1.0


def test_drift_of_known_optima():
    widths = 2.0 ** np.arange(6, 11)
    found = [Optimum(-3.0 - 0.7 * k, 0.1, 1.0, False) for k in range(5)]
    drift = fit_drift(widths, found)
    assert drift.per_doubling == pytest.approx(-0.7)
    assert drift.total == pytest.approx(-2.8)
    assert drift.low < -0.7 < drift.high


def test_natural_units_are_those_of_parametrize_without_a_base():
    rates, options = [0.1, 0.3, 1.0], {"optimizer": "adam", "steps": 4, "seeds": 1}
    found = transfer_check(build, (16, 32, 64), DATA, rates, natural_units=True, **options)

    def groups(module, lr):
        return parametrize(module, lr=lr, optimizer="adam", example_inputs=DATA[0][:2])

    expected = transfer_check(build, (16, 32, 64), DATA, rates, groups=groups, **options)
    assert np.array_equal(found.losses, expected.losses)
    relative = transfer_check(build, (16, 32, 64), DATA, rates, **options)
    assert not np.allclose(found.losses[0], relative.losses[0])


def sweep(**settings):  # type: ignore[no-untyped-def]
    return transfer_check(build, (16, 32, 64), DATA, [1e-3, 1e-2, 1e-1, 1.0], optimizer="sgd", steps=20, **settings)


def test_a_relative_schedule_is_taken():
    def relative(optimizer):  # type: ignore[no-untyped-def]
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))

    assert np.isfinite(sweep(schedule=relative, seeds=1).losses[:, :, 0]).all()


def test_sweeps_around_the_best_rate_find_it_with_fewer_runs():
    lrs = [2.0**k for k in range(-12, 6)]
    settings = {"optimizer": "sgd", "steps": 20, "seeds": 2}
    whole = transfer_check(build, (16, 32, 64), DATA, lrs, **settings)
    part = transfer_check(build, (16, 32, 64), DATA, lrs, around=1, **settings)
    assert part.runs < whole.runs / 2
    run = ~np.isnan(part.losses)
    assert np.array_equal(part.losses[run], whole.losses[run])
    for one, other in zip(part.optima, whole.optima, strict=True):
        assert one.octaves == pytest.approx(other.octaves) and not one.at_edge
    assert part.drift.total == pytest.approx(whole.drift.total, abs=0.2)


@pytest.mark.parametrize(
    ("mean", "wanted"),
    [
        ([np.nan] * 5, [1, 2, 3]),
        ([np.nan, 0.3, 0.2, 0.1, np.nan], [4]),
        ([np.nan, 0.1, 0.2, 0.3, np.nan], [0]),
        ([np.nan, 0.1, np.inf, np.nan, np.nan], [0]),  # nothing above what diverged
        ([np.nan, np.inf, np.inf, np.inf, np.nan], [0]),
        ([0.3, 0.1, 0.2, np.nan, np.nan], []),
    ],
)
def test_which_rates_are_run_next(mean, wanted):
    assert missing(np.array(mean), 2, 1) == wanted


def test_equal_seeds_give_equal_sweeps():
    assert np.array_equal(sweep(seeds=1).losses, sweep(seeds=1).losses)


def test_a_users_own_initialisation_is_seeded_too():
    """One seed has one network at every learning rate: with rates too small to matter all losses are equal."""

    def groups(module: nn.Module, lr: float) -> list[dict]:
        for layer in module:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.3)
        return [{"params": list(module.parameters()), "lr": lr * 1e-12}]

    losses = sweep(seeds=2, groups=groups).losses
    assert np.ptp(losses, axis=2).max() < 1e-6 and np.ptp(losses, axis=1).min() > 1e-3


@pytest.mark.slow
def test_the_best_rate_stays_in_mup_and_moves_in_the_standard_parametrisation():
    from widthwise.data import load

    digits = load("digits")

    def network(width: int) -> nn.Module:
        layers: list[nn.Module] = [nn.Flatten(), nn.Linear(64, width), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))

    lrs = [2.0**k for k in range(-13, -1)]
    settings = {"optimizer": "adam", "steps": 60, "seeds": 3}
    steady, drifting = (
        transfer_check(network, (64, 128, 256, 512), digits, lrs, scheme=scheme, **settings)
        for scheme in ("spectral", "standard")
    )
    assert abs(steady.drift.total) < abs(drifting.drift.total) / 2
    assert drifting.drift.high < 0


def test_results_are_plain_values():
    check = sweep(seeds=1)
    plain: dict = check.to_dict()
    assert len(plain["losses"]) == 3 and not math.isnan(plain["drift"]["total"])
    assert isinstance(check.figure().title, str)


def test_targets_may_be_real_numbers():
    def one(width: int) -> nn.Module:
        return nn.Sequential(nn.Linear(8, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1))

    target: Tensor = DATA[0][:, :1] * 0.5
    check = coordinate_check(one, (32, 64, 128), (DATA[0], target), optimizer="sgd", lr=0.1, seeds=2)
    assert check.verdicts == ()


class Scores(nn.Module):
    """One attention whose keys have a bias, which moves all scores of a query alike."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inputs, self.query, self.key = nn.Linear(8, width), nn.Linear(width, width), nn.Linear(width, width)
        self.readout = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inputs(x)
        q, k = self.query(x), self.key(x)
        return self.readout((q @ k.mT / q.shape[-1]).softmax(-1) @ x).mean(1)


def test_a_bias_that_changes_nothing_is_said_and_not_judged():
    data = torch.randn(16, 5, 8, generator=G), torch.arange(16) % 3
    check = coordinate_check(Scores, (16, 32, 64), data, seeds=2)
    assert check.of("update")["key.bias"].status == "no effect"
    assert check.of("update")["query.bias"].status != "no effect"
    assert any(note.startswith("key.bias does not change the loss") for note in check.notes)
    assert "bias learning rate" not in {verdict.rule for verdict in check.verdicts}
