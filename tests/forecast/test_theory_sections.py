"""Finite width, depth scales, training time and scaling: equal to the theory's own functions on the same inputs."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge
from torch import nn

import widthwise as ww
from tests.forecast.conftest import make_run, small_net
from widthwise.core import seeded
from widthwise.forecast import _dynamics, _grams
from widthwise.forecast._dynamics import dynamics_section, make_dynamics
from widthwise.forecast._finite_width import finite_width_section
from widthwise.forecast._grams import Grams, KernelChoice, choose_kernel
from widthwise.forecast._network import depth_scales
from widthwise.forecast._run import Run
from widthwise.forecast._scaling import scaling_section
from widthwise.probe import empirical_ntk
from widthwise.scaling import doubling, parametrize
from widthwise.theory import KernelDynamics, finite_width_report, optimal_ratio


def choice_of(run: Run) -> KernelChoice:
    return choose_kernel(run.source.build(seed=run.settings.seed), run.source, run.train, run.settings)


def deep_net(width: int = 24) -> nn.Module:
    layers = [nn.Flatten(), nn.Linear(64, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))


def test_finite_width_is_the_effective_theory_beside_drawn_networks() -> None:
    run = make_run(deep_net)
    choice = choice_of(run)
    found = finite_width_section(run, choice)
    assert found is not None and choice.program is not None
    square = float(run.train.inputs.double().square().mean())
    report = finite_width_report(choice.program, square=square, outputs=10)
    assert found.exact and found.ratio == pytest.approx(2 / 24)
    assert found.relative_ntk == pytest.approx(report.relative_ntk, rel=1e-9)
    assert found.optimal_ratio == pytest.approx(optimal_ratio(5.0, 10))
    assert found.advised_width == pytest.approx(2 / found.optimal_ratio)
    assert found.layers_ntk[-1] == found.relative_ntk
    draws = []
    for draw in range(30):
        with seeded(9, "spread", draw):
            draws.append(empirical_ntk(deep_net(), run.train.inputs[:32]).double())
    ntk = torch.stack(draws)
    spread = float((ntk - ntk.mean(0)).square().mean(0).sum().sqrt() / ntk.mean(0).norm())
    assert found.measured_ntk == pytest.approx(spread, rel=0.6)  # six draws of a heavy-tailed quantity


def test_one_hidden_layer_and_branches_have_no_depth_scales() -> None:
    run = make_run(small_net)
    assert depth_scales(choice_of(run).limit, run.train.inputs) is None
    assert depth_scales(None, run.train.inputs) is None


def test_training_time_is_kernel_dynamics_and_ends_at_regression(run: Run, grams: Grams) -> None:
    found = dynamics_section(run, grams, choice_of(run))
    dynamics = KernelDynamics.fit(grams.ntk, run.targets.train, grams.ntk_test, convention="mean")
    assert found.largest_rate == pytest.approx(2 * len(run.train) / float(torch.linalg.eigvalsh(grams.ntk)[-1]))
    path = dynamics.flow(np.array(found.steps) * found.rate)
    assert np.allclose(found.test_mse, path.test_error(run.targets.test.numpy()), rtol=1e-6)
    assert np.allclose(found.train_mse, path.train_error, rtol=1e-4, atol=1e-12)
    gram, cross, targets = grams.ntk.numpy(), grams.ntk_test.numpy(), run.targets
    for ridge, error in ((1e-12, found.final_mse), (found.ridge_value, found.ridge_mse)):
        fitted = KernelRidge(alpha=ridge, kernel="precomputed").fit(gram, targets.train.numpy())
        wanted = np.square(fitted.predict(cross) - targets.test.numpy()).sum(1).mean()
        assert error == pytest.approx(float(wanted), rel=1e-4)
    assert found.best_mse <= found.final_mse and len(found.test_accuracy) == len(found.steps)


def test_dynamics_of_a_rectangle_use_the_first_samples(run: Run, grams: Grams, monkeypatch: Any) -> None:
    monkeypatch.setattr(_dynamics, "MOST_SAMPLES", 50)
    assert make_dynamics(run, grams).targets.shape == (50, 10)


class Tied(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, width)
        self.hidden = nn.Linear(width, width)
        self.readout = nn.Linear(width, 11, bias=False)
        self.readout.weight = self.embedding.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.readout(torch.relu(self.hidden(self.embedding(tokens))).mean(1))


@pytest.mark.parametrize(
    ("build", "inputs"),
    [(deep_net, torch.randn(2, 64)), (Tied, torch.zeros(2, 3, dtype=torch.long))],
)
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_factors_of_a_doubling_are_those_of_parametrize(build: Any, inputs: torch.Tensor, optimizer: str) -> None:
    narrow, wide = build(48), build(96)
    plan = parametrize(wide, lr=1.0, optimizer=optimizer, base=narrow, example_inputs=inputs, dry_run=True).plan
    own = parametrize(narrow, lr=1.0, example_inputs=inputs, dry_run=True).plan
    for row in own.rows:
        change, wanted = doubling(row), plan[row.name]
        assert (change.adam if optimizer == "adamw" else change.sgd) == pytest.approx(wanted.lr)
        assert change.multiplier == pytest.approx(wanted.multiplier)


def test_every_weight_has_its_row_and_notes_name_what_is_tied() -> None:
    module = Tied(48)
    rows, notes = scaling_section(module, ww.trace(module, torch.zeros(2, 3, dtype=torch.long)))
    assert sorted(name for row in rows for name in row.weights) == ["embedding.weight", "hidden.bias", "hidden.weight"]
    assert any("both embedding and readout" in note for note in notes)
    assert scaling_section(module, None)[0] == () and "could not be traced" in scaling_section(module, None)[1][0]


class Gated(nn.Module):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.body, self.head = nn.GRU(2, width, batch_first=True), nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x)[0][:, -1])


def sequences() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(120, 2, 2, generator=torch.Generator().manual_seed(0))
    return x, (x.sum((1, 2)) > 0).long()


def test_a_recurrent_network_is_sampled_or_says_how_long_that_takes(monkeypatch: Any) -> None:
    run = make_run(Gated, sequences(), samples=64, held_out=8)
    monkeypatch.setattr(_grams, "estimate_seconds", lambda *_: 1.0)
    found = choice_of(run)
    assert (found.kind, found.rule) == ("infinite", "sampled") and "sampled" in found.note
    monkeypatch.setattr(_grams, "estimate_seconds", lambda *_: 7200.0)
    found = choice_of(run)
    assert (found.kind, found.rule) == ("monte-carlo", "finite") and "about 2 hours" in found.note
    monkeypatch.setattr(_grams, "estimate_seconds", lambda limit, *_: 10.0 if limit.method == "sampled" else 7200.0)
    found = choice_of(run)
    assert (found.kind, found.rule) == ("infinite", "sampled") and found.limit is not None
    assert found.limit.method == "sampled" and "samples of one coordinate" in found.note


class Clock(_grams.Limit):
    """A sampled limit, 16 inputs on a side of a tile, with the time that tiles of a GRU take, by a clock of its own."""

    method, now = "sampled", 0.0

    def __init__(self) -> None: ...

    def sampled_side(self) -> int:
        return 16

    def ntk_and_features(self, first: torch.Tensor, second: torch.Tensor | None = None) -> None:
        self.now += 3.0 + 0.9 * len(first) ** 1.33


def test_the_time_of_sampled_tiles_is_that_of_tiles_of_their_size(monkeypatch: Any) -> None:
    """Small tiles cost more per pair: 4 x 4 inputs 9 seconds, 16 x 16 inputs 39, where pairs alone would say 139."""
    clock: Any = Clock()
    monkeypatch.setattr(_grams.time, "perf_counter", lambda: clock.now)
    train = make_run(Gated, sequences(), samples=64, held_out=8).train
    seconds = getattr(_grams.estimate_seconds, "__wrapped__", _grams.estimate_seconds)(clock, train, 72)
    true = (3.0 + 0.9 * 16**1.33) / 16**2 * 72 * 64 / 2
    assert 0.5 * true < seconds < 2 * true
