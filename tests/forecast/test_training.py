"""The training check: units, budget, sentence; and the advice that rests on it."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression
from torch import nn

from tests.forecast.conftest import make_run, small_net
from widthwise.data import DataSet
from widthwise.forecast import TrainingRow
from widthwise.forecast._advice import confidence
from widthwise.forecast._cost import forward_operations, training_steps
from widthwise.forecast._curves import fit_task
from widthwise.forecast._training import MOST_STEPS, training_note, training_rows
from widthwise.report import ForecastReport


def test_operations_are_counted() -> None:
    x = torch.zeros(2, 1, 8, 8)
    assert forward_operations(small_net(24), x) == 2 * (64 * 24 + 24 * 10)
    assert forward_operations(nn.Conv2d(1, 5, 3), x) == 2 * 5 * 9 * 36


def test_steps_grow_with_the_budget_and_fall_with_the_batch() -> None:
    module, x = small_net(), torch.zeros(2, 1, 8, 8)
    steps = [training_steps(module, x, 32, seconds) for seconds in (0.0, 1.0, 2.0)]
    assert steps[0] == 1 and steps[2] == pytest.approx(2 * steps[1], abs=2)
    assert training_steps(module, x, 512, 1.0) < steps[1]


def line(scale: float, offset: float) -> DataSet:
    x = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    y = scale * (x @ torch.tensor([[1.0], [-2.0], [0.5]])) + offset
    return DataSet("line", x, y + 0.3 * scale * torch.randn(400, 1, generator=torch.Generator().manual_seed(1)))


def linear(width: int = 8) -> nn.Module:
    return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 1))


def test_errors_are_in_the_targets_own_units() -> None:
    """Targets a thousand times as large and far from zero: errors a million times as large, nothing else."""
    rows = []
    for data in (line(1.0, 0.0), line(1000.0, 5e4)):
        run = make_run(linear, data, training_seconds=1.0)
        x, y = run.train.inputs.double(), run.train.targets.double()
        gram = x @ x.T + 1
        rows.append(training_rows(run, fit_task(gram, run.targets, 0))[0])
        best = LinearRegression().fit(x, y)
        floor = np.square(best.predict(run.test.inputs.double()) - run.test.targets.numpy()).mean()
        for error in (rows[-1][1].kernel_mse, rows[-1][1].test_mse):
            assert error > 0.5 * floor  # 64 held-out points know their noise to about 18 %
    for small, large in zip(*rows, strict=True):
        assert large.test_mse == pytest.approx(1e6 * small.test_mse, rel=0.05)
        assert large.kernel_mse == pytest.approx(1e6 * small.kernel_mse, rel=0.02)
        assert small.steps == large.steps <= MOST_STEPS and small.test_accuracy is None


def test_training_lowers_the_error(report: ForecastReport) -> None:
    assert [(row.width, row.n) for row in report.training] == [(24, 12), (24, 48), (12, 48)]
    longer = make_run(training_seconds=3.0)
    gram = longer.train.inputs.flatten(1).double()
    rows, _ = training_rows(longer, fit_task(gram @ gram.T, longer.targets, 0))
    assert all(after.train_mse < before.train_mse for after, before in zip(rows, report.training, strict=True))
    assert rows[1].train_mse < 0.1 * report.task.target_power


ROW = TrainingRow(64, 1000, 100, 50, 1e-3, 0.01, 0.5, 0.9, 0.5, 0.9, False, 1.0)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ((), "not trained"),
        ((replace(ROW, diverged=True),), "diverged"),
        ((replace(ROW, test_mse=0.51),), "about the error"),
        ((replace(ROW, test_mse=0.25),), "50 % less error.*gains"),
        ((replace(ROW, test_mse=0.75),), "50 % more error.*do not pay"),
        ((replace(ROW, test_mse=0.75, train_mse=0.4),), "50 % more error.*budget ended before.*0.4 of 0.9"),
        ((replace(ROW, n=50, test_mse=9.0), replace(ROW, test_mse=0.25, width=32), ROW), "100 examples.*about"),
    ],
)
def test_the_sentence(rows: tuple[TrainingRow, ...], words: str) -> None:
    assert re.search(words, training_note(rows, 0.9))


HALVES = [(0.01, "high"), (0.05, "high"), (0.1, "medium"), (0.15, "medium"), (0.2, "low")]


@pytest.mark.parametrize(("half", "word"), HALVES)
def test_confidence_is_the_half_width_of_the_interval(half: float, word: str) -> None:
    assert confidence(2 * (1 - half) + 1e-12, 2 * (1 + half) - 1e-12, 2.0) == word


def test_advice_comes_greatest_gain_first(report: ForecastReport) -> None:
    gains = [row.after / row.before for row in report.advice]
    assert gains == sorted(gains)
    actions = " ".join(row.action for row in report.advice)
    assert "twice the data (192" in actions and "twice the width (96" in actions
    zero, best = (next(p for p in report.learning_curve if p.n == 96 and p.ridge == k) for k in ("zero", "optimal"))
    ridge = next(row for row in report.advice if "ridge" in row.action)
    assert (ridge.before, ridge.after) == (zero.predicted_mse, best.predicted_mse)
