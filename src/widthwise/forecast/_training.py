"""The training check: the real network trained for a short budget, beside the kernel's prediction."""

import time
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from widthwise.data import DataSet
from widthwise.forecast._curves import Targets
from widthwise.forecast._model import ModelSource
from widthwise.forecast._settings import Settings
from widthwise.forecast._stages import Stages
from widthwise.forecast._types import TrainingRow
from widthwise.theory import TaskSpectrum
from widthwise.train import Callback, TrainingState, fit

BATCH = 256
STEPS = 3000
RATE = 1e-3
FITTED = 0.01  # of the error of predicting the mean: the training error at which a run counts as finished


class Deadline(Callback):
    """Stops a run so many seconds after its first step."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.start: float | None = None

    def on_step_end(self, state: TrainingState) -> None:
        """Ask to stop once the time is over."""
        self.start = self.start or time.perf_counter()
        if time.perf_counter() - self.start > self.seconds:
            state.stop = True


def scaled(data: DataSet, mean: torch.Tensor, scale: float) -> DataSet:
    """Regression targets centred and divided by `scale`; classes as they are."""
    if data.is_classification:
        return data
    return replace(data, targets=((data.targets.double() - mean) / scale).float())


def training_rows(
    task: TaskSpectrum, source: ModelSource, train: DataSet, test: DataSet, targets: Targets, settings: Settings,
    stages: Stages, show: bool,
) -> tuple[TrainingRow, ...]:  # fmt: skip
    """Train at a couple of sizes (and of widths, where the model has one) within the budget."""
    if settings.training_seconds <= 0:
        return ()
    half = source.width // 2 if source.scales and source.width else None
    sizes = sorted({max(2, settings.samples // 8), max(2, settings.samples // 2)})
    plans = [(source.width, n) for n in sizes] + ([(half, sizes[-1])] if half else [])
    seconds = settings.training_seconds / len(plans)
    scale = 1.0 if train.is_classification else float(targets.train.square().mean().sqrt()) or 1.0
    mean = train.targets.double().mean(0) if not train.is_classification else torch.zeros(1)
    inner, outer = scaled(train, mean, scale), scaled(test, mean, scale)
    rows = []
    for width, n in plans:
        run = partial(_train, source, width, n, inner, outer, seconds, settings, show)
        found = stages.plain(f"training {width or 'own'} {n}", run)
        kernel = task.risk(n, "zero")
        accuracy = float(kernel.accuracy)
        rows.append(
            TrainingRow(
                width=width,
                parameters=found["parameters"],
                n=n,
                steps=found["steps"],
                lr=found["lr"],
                train_mse=_scaled(found["train_mse"], scale),
                test_mse=_scaled(found["test_mse"], scale),
                test_accuracy=found["test_accuracy"],
                kernel_mse=float(kernel.test),
                kernel_accuracy=accuracy if train.is_classification else None,
                diverged=found["diverged"],
                seconds=found["seconds"],
            )
        )
    return tuple(rows)


def _scaled(mse: float | None, scale: float) -> float:
    return float("inf") if mse is None else mse * scale**2


def _train(
    source: ModelSource, width: int | None, n: int, train: DataSet, test: DataSet, seconds: float, settings: Settings,
    show: bool,
) -> dict[str, Any]:  # fmt: skip
    module = source.build(width, seed=settings.seed, draw="training")
    subset = train.subset(torch.arange(n))
    power = float(subset.encoded().square().sum(1).mean())
    run = fit(
        module,
        subset,
        test=test,
        steps=STEPS,
        optimizer="adam",
        lr=RATE,
        batch_size=min(BATCH, n),
        loss="mse",
        seed=settings.seed,
        callbacks=[Deadline(seconds)],
        until_train_loss=FITTED * power,
        progress=show,
    )
    assert run.test is not None
    return {
        "parameters": sum(p.numel() for p in module.parameters()),
        "steps": run.steps,
        "lr": run.lr,
        "train_mse": run.train.mse,
        "test_mse": run.test.mse,
        "test_accuracy": run.test.accuracy,
        "diverged": run.diverged,
        "seconds": run.seconds,
    }


def training_note(rows: tuple[TrainingRow, ...]) -> str:
    """The gain or loss from learning features, in a sentence."""
    finished = [row for row in rows if not row.diverged]
    if not finished:
        return "The network was not trained." if not rows else "Every training run diverged."
    row = max(finished, key=lambda r: (r.n, r.width or 0))
    change = 100 * (1 - row.test_mse / row.kernel_mse)
    if abs(change) < 5:
        verdict = "about the error that its kernel predicts: it learns little beyond the kernel"
    elif change > 0:
        verdict = f"{change:.0f} % less error than its kernel predicts: the network gains from learning features"
    else:
        verdict = f"{-change:.0f} % more error than its kernel predicts: in this budget the network does not reach it"
    return f"Trained on {row.n} examples for {row.steps} steps, the network has {verdict}."
