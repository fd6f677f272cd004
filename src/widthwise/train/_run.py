"""A training run under way: steps, evaluations, checkpoints."""

import time
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from widthwise.core import Advance
from widthwise.data import DataSet
from widthwise.train._checkpoint import Checkpoint, pack_module, pack_optimizer, unpack_module, unpack_optimizer
from widthwise.train._evaluate import Loss, evaluate, on_module, resolve_loss
from widthwise.train._schedule import Batches, evaluation_steps
from widthwise.train._types import Callback, Evaluation, TrainingHistory, TrainingRun, TrainingState

_NAN = float("nan")


class Store:
    """Where and how often to write."""

    def __init__(self, path: Path | None, seconds: float, settings: dict[str, Any]) -> None:
        self.path = path
        self.seconds = seconds
        self.settings = settings
        self.last = time.monotonic()

    def due(self) -> bool:
        return self.path is not None and time.monotonic() - self.last >= self.seconds

    def write(self, checkpoint: Checkpoint) -> None:
        if self.path is not None:
            checkpoint.plain["settings"] = self.settings
            checkpoint.save(self.path)
            self.last = time.monotonic()


class Run:
    """A run under way."""

    store: Store

    def __init__(
        self,
        state: TrainingState,
        data: DataSet,
        test: DataSet | None,
        batches: Batches,
        loss: Loss,
        callbacks: Sequence[Callback],
        until: float | None,
        lr: float | None,
    ) -> None:
        self.state, self.data, self.test, self.batches, self.loss = state, data, test, batches, loss
        self.callbacks, self.until, self.lr = callbacks, until, lr
        self.function, targets = resolve_loss(loss, data)
        self.inputs, self.targets = on_module(data.inputs, state.module), on_module(targets, state.module)
        self.frequencies = data.class_frequencies()
        self.rows: list[list[float]] = []
        self.resumed_from = 0
        self.before = 0.0
        self.started = time.perf_counter()

    def go(self, total: int, per_decade: int, advance: Advance) -> TrainingRun:
        state = self.state
        advance(float(state.step))
        schedule = evaluation_steps(total, per_decade)
        if not self.rows:
            self._evaluate()
        while state.step < total and not state.reason and self._step():
            advance(1.0)
            if state.step in schedule:
                self._evaluate()
            self._check_stop()
            if self.store.due():
                self.store.write(self._checkpoint())
        if self.rows[-1][0] != state.step:
            self._evaluate()
        self.store.write(self._checkpoint())
        return self._result()

    def restore(self, saved: Checkpoint) -> None:
        """Take everything from the checkpoint."""
        state, plain = self.state, saved.plain
        unpack_module(state.module, saved)
        unpack_optimizer(state.module, state.optimizer, saved)
        torch.set_rng_state(saved.tensors["rng.cpu"])
        if "rng.cuda" in saved.tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(saved.tensors["rng.cuda"], self.inputs.device)
        for callback, memory in zip(self.callbacks, plain["callbacks"], strict=False):
            callback.load_state_dict(memory)
        self.rows = saved.tensors["history"].tolist()
        self.before, state.step, state.loss = plain["seconds"], plain["step"], plain["loss"]
        state.reason = plain["reason"]
        self.resumed_from = state.step
        state.train, state.test = self._last()

    def _step(self) -> bool:
        """One optimiser step; False if it was not taken."""
        state, rows = self.state, self.batches.rows(self.state.step)
        inputs, targets = self.inputs, self.targets
        if rows is not None:
            rows = rows.to(inputs.device)
            inputs, targets = inputs[rows], targets[rows]
        state.optimizer.zero_grad(set_to_none=True)
        loss: Tensor = self.function(state.module(inputs), targets)
        state.loss = float(loss.detach())
        if not isfinite(state.loss):
            state.reason = "diverged"
        elif rows is None and self.until is not None and state.loss <= self.until:
            state.reason = "train-loss"
        if state.reason:
            return False
        loss.backward()
        state.optimizer.step()
        state.step += 1
        for callback in self.callbacks:
            callback.on_step_end(state)
        return True

    def _evaluate(self) -> None:
        state = self.state
        state.train = evaluate(state.module, self.data, self.frequencies, loss=self.loss)
        state.test = None
        if self.test is not None:
            state.test = evaluate(state.module, self.test, self.frequencies, loss=self.loss)
        self.rows.append([float(state.step), *_numbers(state.train), *_numbers(state.test)])
        for callback in self.callbacks:
            callback.on_evaluate(state)
        if not isfinite(state.train.loss):
            state.reason = "diverged"
        elif state.stop and not state.reason:
            state.reason = "callback"

    def _check_stop(self) -> None:
        state = self.state
        epoch_ends = self.batches.size is not None and state.step % self.batches.per_epoch == 0
        if not state.reason and self.until is not None and epoch_ends:
            current = evaluate(state.module, self.data, self.frequencies, loss=self.loss)
            if current.loss <= self.until:
                state.reason = "train-loss"
        if not state.reason and state.stop:
            state.reason = "callback"

    def _checkpoint(self) -> Checkpoint:
        state, checkpoint = self.state, Checkpoint()
        pack_module(state.module, checkpoint)
        pack_optimizer(state.module, state.optimizer, checkpoint)
        checkpoint.tensors["rng.cpu"] = torch.get_rng_state()
        if self.inputs.is_cuda:
            checkpoint.tensors["rng.cuda"] = torch.cuda.get_rng_state(self.inputs.device)
        checkpoint.tensors["history"] = torch.tensor(self.rows, dtype=torch.float64)
        checkpoint.plain |= {
            "step": state.step,
            "loss": state.loss,
            "reason": state.reason,
            "lr": self.lr,
            "seconds": self._seconds(),
            "callbacks": [callback.state_dict() for callback in self.callbacks],
        }
        return checkpoint

    def _seconds(self) -> float:
        return self.before + time.perf_counter() - self.started

    def _last(self) -> tuple[Evaluation, Evaluation | None]:
        _, *numbers = self.rows[-1]
        train, test = (_evaluation(part, self.data.is_classification) for part in (numbers[:3], numbers[3:]))
        return train, None if self.test is None else test

    def _result(self) -> TrainingRun:
        columns = torch.tensor(self.rows, dtype=torch.float64).T
        history = TrainingHistory(columns[0].long(), *columns[1:])
        reason = self.state.reason or "steps"
        return TrainingRun(history, *self._last(), self.state.step, self.lr, reason, self._seconds(), self.resumed_from)


def _numbers(evaluation: Evaluation | None) -> list[float]:
    if evaluation is None:
        return [_NAN] * 3
    return [evaluation.loss, evaluation.mse, _NAN if evaluation.accuracy is None else evaluation.accuracy]


def _evaluation(numbers: list[float], classification: bool) -> Evaluation:
    loss, mse, accuracy = numbers
    return Evaluation(mse, accuracy if classification else None, loss)
