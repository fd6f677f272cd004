"""The training check: the real network trained for a short budget, beside the kernel's prediction."""

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from widthwise.data import DataSet
from widthwise.forecast._cost import training_steps
from widthwise.forecast._run import Run
from widthwise.forecast._types import TrainingRow
from widthwise.theory import TaskSpectrum
from widthwise.train import Callback, TrainingState, fit

BATCH = 64
MOST_STEPS = 3000
RATE = 1e-3
STOP_AT = 0.01  # share of the error of predicting the mean: the training error at which a run ends
FITTED = 0.1  # the same: above it, the run has not fitted its examples
PATIENCE = 4.0  # times its budget that a run may take on a slow machine


class Deadline(Callback):
    """Stops a run so many seconds after its first step."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.start: float | None = None
        self.passed = False

    def on_step_end(self, state: TrainingState) -> None:
        """Ask to stop once the time is over."""
        self.start = self.start or time.perf_counter()
        self.passed = time.perf_counter() - self.start > self.seconds
        state.stop = state.stop or self.passed


@dataclass(frozen=True)
class Plan:
    """One training run: width (None: the model's own), number of examples, seconds."""

    width: int | None
    n: int
    seconds: float


def _plans(run: Run) -> list[Plan]:
    """Two sizes at the model's width, and the larger one at half the width."""
    width, samples = run.source.width, run.settings.samples
    runs = [(width, samples // 8), (width, samples // 2)]
    if run.source.scales and width is not None and width >= 4:
        runs.append((width // 2, samples // 2))
    return [Plan(width, n, run.settings.training_seconds / len(runs)) for width, n in runs]


def training_rows(run: Run, task: TaskSpectrum) -> tuple[tuple[TrainingRow, ...], bool]:
    """Train at a couple of sizes (and of widths, where the model has one); whether the clock had to stop a run."""
    if run.settings.training_seconds <= 0:
        return (), False
    found = [(plan, run.stages.plain(_name(plan), partial(_train, run, plan))) for plan in _plans(run)]
    return tuple(_row(run, task, plan, part) for plan, part in found), any(part["cut"] for _, part in found)


def _name(plan: Plan) -> str:
    return f"training {plan.width or 'own'} {plan.n}"


def _row(run: Run, task: TaskSpectrum, plan: Plan, found: dict[str, Any]) -> TrainingRow:
    kernel = task.risk(plan.n, "zero")
    return TrainingRow(
        width=plan.width,
        parameters=found["parameters"],
        n=plan.n,
        steps=found["steps"],
        lr=RATE,
        train_mse=_number(found["train_mse"]),
        test_mse=_number(found["test_mse"]),
        test_accuracy=found["test_accuracy"],
        kernel_mse=float(kernel.test),
        kernel_accuracy=float(kernel.accuracy) if run.train.is_classification else None,
        diverged=found["diverged"],
        seconds=found["seconds"],
    )


def _number(mse: float | None) -> float:
    return float("inf") if mse is None else mse


def _scale(run: Run) -> float:
    """Spread of regression targets, by which they are divided for training; 1 for classes."""
    return 1.0 if run.train.is_classification else float(run.targets.train.square().mean().sqrt())


def _scaled(run: Run, data: DataSet) -> DataSet:
    """Regression targets centred by the samples' mean and divided by their spread; classes as they are."""
    if data.is_classification:
        return data
    return replace(data, targets=((data.targets.double() - run.targets.mean) / _scale(run)).float())


def _train(run: Run, plan: Plan) -> dict[str, Any]:
    """Train one network; errors are in the targets' own units."""
    module = run.source.build(plan.width, seed=run.settings.seed, draw="training")
    subset, unit = _scaled(run, run.train).subset(torch.arange(plan.n)), _scale(run) ** 2
    batch = min(BATCH, plan.n)
    deadline = Deadline(PATIENCE * plan.seconds)
    done = fit(
        module,
        subset,
        test=_scaled(run, run.test),
        steps=min(MOST_STEPS, training_steps(module, run.train.inputs[:2], batch, plan.seconds)),
        optimizer="adam",
        lr=RATE,
        batch_size=batch,
        loss="mse",
        seed=run.settings.seed,
        callbacks=[deadline],
        evaluations_per_decade=2,
        until_train_loss=STOP_AT * run.targets.power / unit,
        progress=run.show,
    )
    assert done.test is not None
    return {
        "parameters": sum(p.numel() for p in module.parameters()),
        "steps": done.steps,
        "train_mse": done.train.mse * unit,
        "test_mse": done.test.mse * unit,
        "test_accuracy": done.test.accuracy,
        "diverged": done.diverged,
        "cut": deadline.passed,
        "seconds": done.seconds,
    }


def largest_run(rows: tuple[TrainingRow, ...]) -> TrainingRow | None:
    """The widest network trained on the most examples, of those that did not diverge."""
    finished = [row for row in rows if not row.diverged]
    return max(finished, key=lambda row: (row.n, row.width or 0), default=None)


def has_fitted(row: TrainingRow, power: float) -> bool:
    """Whether a run came far enough to say something about the network rather than about its budget."""
    return row.train_mse <= FITTED * power


def training_note(rows: tuple[TrainingRow, ...], power: float) -> str:
    """The gain or loss from learning features, in a sentence; `power` is the error of predicting the mean."""
    if not rows:
        return "The network was not trained."
    row = largest_run(rows)
    if row is None:
        return f"Every training run diverged at learning rate {RATE:g}."
    change = 100 * (1 - row.test_mse / row.kernel_mse)
    if abs(change) < 5:
        verdict = "about the error that its kernel predicts: it learns little beyond the kernel"
    elif change > 0:
        verdict = f"{change:.0f} % less error than its kernel predicts: the network gains from learning features"
    elif has_fitted(row, power):
        verdict = f"{-change:.0f} % more error than its kernel predicts: trained like this, its features do not pay"
    else:
        verdict = (
            f"{-change:.0f} % more error than its kernel predicts, but its budget ended before it had fitted its "
            f"examples (training error {row.train_mse:.2g} of {power:.2g})"
        )
    return f"Trained on {row.n} examples for {row.steps} steps, the network has {verdict}."
