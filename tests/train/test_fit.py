"""Training against closed forms and its own laws."""

import functools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from widthwise.core import DataError, ModelError, seeded
from widthwise.data import DataSet
from widthwise.nn import mlp, resnet
from widthwise.train import (
    Callback,
    TrainingState,
    evaluate,
    fit,
    squared_error,
    stable_learning_rate,
)
from widthwise.train._schedule import Batches, evaluation_steps

RANDOM = torch.Generator().manual_seed(0)
X = torch.randn(40, 3, generator=RANDOM)
LINEAR = DataSet("linear", X, X @ torch.randn(3, 2, generator=RANDOM) + 0.3 * torch.randn(40, 2, generator=RANDOM))
CLASSES = DataSet("three", X, (X.argmax(1)), ("a", "b", "c"))


def linear(seed: int = 0) -> nn.Module:
    with seeded(seed):
        return nn.Linear(3, 2).double()


def least_squares(data: DataSet) -> Tensor:
    """Weights and bias in one matrix ``[features + 1, outputs]``."""
    design = torch.cat([data.inputs.double(), torch.ones(len(data), 1, dtype=torch.float64)], dim=1)
    return torch.linalg.lstsq(design, data.encoded()).solution


def test_gradient_descent_finds_least_squares() -> None:
    module = linear()
    run = fit(module, LINEAR, steps=400, progress=False)
    exact = least_squares(LINEAR)
    torch.testing.assert_close(module.weight.detach().T, exact[:3], rtol=0, atol=1e-8)
    torch.testing.assert_close(module.bias.detach(), exact[3], rtol=0, atol=1e-8)
    assert run.stopped == "steps" and run.steps == 400 and not run.diverged


def test_weight_decay_finds_ridge_regression() -> None:
    """Loss |Xw - y|^2 / n + decay |w|^2 / 2 has w = (X^T X + n decay / 2)^-1 X^T y."""
    module = nn.Linear(3, 2, bias=False).double()
    fit(module, LINEAR, steps=500, optimizer=functools.partial(torch.optim.SGD, weight_decay=0.4), progress=False)
    x, y = X.double(), LINEAR.encoded()
    exact = torch.linalg.solve(x.T @ x + 40 * 0.4 / 2 * torch.eye(3), x.T @ y)
    torch.testing.assert_close(module.weight.detach().T, exact, rtol=0, atol=1e-8)


def test_full_batch_steps_are_gradient_descent() -> None:
    """Three steps by hand: w <- w - lr 2 X^T (X w - y) / n."""
    module = nn.Linear(3, 2, bias=False).double()
    weight, x, y = module.weight.detach().clone().T, X.double(), LINEAR.encoded()
    run = fit(module, LINEAR, steps=3, lr=0.05, progress=False)
    losses = [float((x @ weight - y).square().sum(1).mean())]
    for _ in range(3):
        weight = weight - 0.05 * 2 * x.T @ (x @ weight - y) / 40
        losses.append(float((x @ weight - y).square().sum(1).mean()))
    torch.testing.assert_close(module.weight.detach().T, weight)
    assert run.history.step.tolist() == [0, 1, 2, 3] and run.lr == 0.05
    torch.testing.assert_close(run.history.train_loss, torch.tensor(losses, dtype=torch.float64))


def test_automatic_rate_is_half_the_edge_of_a_quadratic() -> None:
    """The edge is 2 / lambda_max of 2 X^T X / n (with a column of ones): 0.9 of it converges, 1.1 of it does not."""
    design = torch.cat([X.double(), torch.ones(40, 1, dtype=torch.float64)], dim=1)
    edge = 2 / float(torch.linalg.eigvalsh(2 * design.T @ design / 40)[-1])
    rate = stable_learning_rate(linear(), LINEAR)
    assert 0.49 * edge < rate < 0.52 * edge
    below = fit(linear(), LINEAR, steps=4000, lr=1.8 * rate, progress=False)
    above = fit(linear(), LINEAR, steps=4000, lr=2.2 * rate, progress=False)
    assert below.train.loss < below.history.train_loss[0] and not below.diverged
    assert above.diverged and above.steps < 4000


@pytest.mark.parametrize("loss", ["mse", "cross-entropy"])
def test_automatic_rate_trains_a_network(loss: str) -> None:
    with seeded(1):
        module = mlp(64, input_shape=(3,), outputs=3)
    run = fit(module, CLASSES, steps=150, loss=loss, progress=False)
    assert not run.diverged
    assert run.train.loss < 0.5 * float(run.history.train_loss[0])
    assert run.train.accuracy is not None and run.train.accuracy > 0.9


def test_divergence_is_recorded() -> None:
    run = fit(linear(), LINEAR, steps=10_000, lr=1e3, progress=False)
    assert run.diverged and run.stopped == "diverged" and run.steps < 10_000
    assert run.to_dict()["diverged"] is True


def test_evaluation_by_hand_and_in_batches() -> None:
    module = mlp(5, input_shape=(3,), outputs=3).double()
    held_out = CLASSES.subset(torch.arange(7))
    frequencies = CLASSES.class_frequencies()
    outputs = module(held_out.inputs.double()).detach()
    onehot = torch.eye(3, dtype=torch.float64)[held_out.targets]
    for batch_size in (1, 3, 100):
        found = evaluate(module, held_out, frequencies, batch_size=batch_size)
        assert found.mse == pytest.approx(float((outputs - onehot + frequencies).square().sum(1).mean()), rel=1e-12)
        assert found.loss == pytest.approx(found.mse, rel=1e-12)
        assert found.accuracy == float(((outputs + frequencies).argmax(1) == held_out.targets).double().mean())
        other = evaluate(module, held_out, loss="cross-entropy", batch_size=batch_size)
        assert other.loss == pytest.approx(float(nn.functional.cross_entropy(outputs, held_out.targets)), rel=1e-12)


def test_perfect_outputs_have_no_error() -> None:
    class Perfect(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.one_hot(x.argmax(1), 3) - CLASSES.class_frequencies()

    found = evaluate(Perfect(), CLASSES)
    assert found.mse == pytest.approx(0, abs=1e-12) and found.accuracy == 1.0
    assert evaluate(nn.Identity(), LINEAR.subset(torch.arange(3)).__class__("r", X, X)).accuracy is None


def test_until_train_loss_full_batch() -> None:
    run = fit(linear(), LINEAR, steps=400, until_train_loss=0.5, progress=False)
    assert run.stopped == "train-loss" and run.train.loss <= 0.5 and run.steps < 400
    shorter = fit(linear(), LINEAR, steps=run.steps - 1, progress=False)
    assert shorter.train.loss > 0.5  # the first step at which it holds


def test_until_train_loss_minibatch() -> None:
    run = fit(linear(), LINEAR, epochs=400, batch_size=7, lr=0.05, until_train_loss=0.5, progress=False)
    assert run.stopped == "train-loss" and run.train.loss <= 0.5 and run.steps % 6 == 0


def test_callbacks_see_every_step_and_stop() -> None:
    class Watch(Callback):
        def __init__(self) -> None:
            self.steps: list[int] = []
            self.evaluated: list[int] = []

        def on_step_end(self, state: TrainingState) -> None:
            self.steps.append(state.step)
            state.stop = state.step == 12

        def on_evaluate(self, state: TrainingState) -> None:
            assert state.train is not None and state.test is not None
            self.evaluated.append(state.step)

    watch = Watch()
    run = fit(linear(), LINEAR, test=LINEAR, steps=100, callbacks=[watch], progress=False)
    assert run.stopped == "callback" and run.steps == 12
    assert watch.steps == list(range(1, 13))
    assert watch.evaluated == run.history.step.tolist() and watch.evaluated[-1] == 12


def test_stop_at_the_first_evaluation_takes_no_step() -> None:
    class Never(Callback):
        def on_evaluate(self, state: TrainingState) -> None:
            state.stop = True

    assert fit(linear(), LINEAR, steps=5, callbacks=[Never()], progress=False).steps == 0


def test_held_out_part_of_the_data_set_is_used() -> None:
    data = DataSet("both", LINEAR.inputs, LINEAR.targets, test=LINEAR.subset(torch.arange(5)))
    run = fit(linear(), data, steps=3, progress=False)
    assert run.test is not None and run.history.test_mse.isfinite().all()
    assert fit(linear(), LINEAR, steps=3, progress=False).test is None


def test_parameter_groups_keep_their_own_rates() -> None:
    module = linear()
    weight, bias = module.weight.detach().clone(), module.bias.detach().clone()
    squared_error(module(X.double()), LINEAR.encoded()).backward()
    slopes = module.weight.grad.clone(), module.bias.grad.clone()
    groups = [{"params": [module.weight], "lr": 0.01}, {"params": module.bias, "lr": 0.5}]
    run = fit(module, LINEAR, steps=1, parameter_groups=groups, progress=False)
    torch.testing.assert_close(module.weight.detach(), weight - 0.01 * slopes[0])
    torch.testing.assert_close(module.bias.detach(), bias - 0.5 * slopes[1])
    assert run.lr is None


def test_equal_seeds_equal_runs_and_the_global_generator_is_left_alone() -> None:
    def run(seed: int) -> Tensor:
        with seeded(0):
            module = nn.Sequential(nn.Linear(3, 20), nn.Dropout(0.3), nn.Linear(20, 2))
        fit(module, LINEAR, epochs=3, batch_size=8, lr=0.01, seed=seed, progress=False)
        return module[0].weight.detach()

    before = torch.get_rng_state()
    first = run(0)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first, run(0)) and not torch.equal(first, run(1))


def test_modes_are_restored() -> None:
    module = resnet(4, input_shape=(3,), outputs=2).eval()
    fit(module, LINEAR, steps=2, lr=0.01, progress=False)
    assert not any(part.training for part in module.modules())
    assert int(module.norm.num_batches_tracked) == 2  # batch statistics were those of training mode


@given(samples=st.integers(1, 30), size=st.integers(1, 40), seed=st.integers(0, 5))
def test_each_epoch_visits_each_example_once(samples: int, size: int, seed: int) -> None:
    batches = Batches(samples, size, seed)
    if batches.size is None:
        assert size >= samples and batches.rows(0) is None
        return
    for epoch in range(2):
        steps = range(epoch * batches.per_epoch, (epoch + 1) * batches.per_epoch)
        parts = [batches.rows(step) for step in steps]
        assert sorted(torch.cat(parts).tolist()) == list(range(samples))
        assert all(len(part) == size for part in parts[:-1])


@given(total=st.integers(0, 5000), more=st.integers(0, 5000))
def test_evaluation_steps_of_a_longer_run_include_those_of_a_shorter(total: int, more: int) -> None:
    short, long = evaluation_steps(total, 8), evaluation_steps(total + more, 8)
    assert {0, total} <= short and short - {total} <= long
    assert len(short) <= 3 + 8 * math.log10(max(total, 1) + 1)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({}, "exactly one"),
        ({"steps": 1, "epochs": 1}, "exactly one"),
        ({"steps": 1, "lr": -1.0}, "lr=-1.0"),
        ({"steps": 1, "optimizer": "sgdd"}, "sgdd"),
        ({"steps": 1, "optimizer": torch.optim.Rprop}, "lr='auto' is not known for optimizer Rprop"),
        ({"steps": 1, "loss": "hinge"}, "hinge"),
        ({"steps": 1, "batch_size": 0}, "batch_size=0"),
        ({"steps": 1, "parameter_groups": [{"params": [nn.Parameter(torch.ones(4))]}]}, r"shape \(4,\)"),
    ],
)
def test_bad_arguments(arguments: dict, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        fit(linear(), LINEAR, progress=False, **arguments)


def test_bad_modules() -> None:
    with pytest.raises(ModelError, match=r"shape \[n, 2\]"):
        fit(nn.Linear(3, 5), LINEAR, steps=1, progress=False)
    with pytest.raises(ModelError, match=r"inputs of shape \(2, 3\)"):
        fit(nn.Linear(4, 2), LINEAR, steps=1, progress=False)
    with pytest.raises(DataError, match="no classes"):
        fit(linear(), LINEAR, steps=1, loss="cross-entropy", progress=False)
