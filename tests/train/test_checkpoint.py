"""Killed and resumed runs equal uninterrupted ones; damaged checkpoints are named."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from widthwise.core import seeded
from widthwise.data import DataSet
from widthwise.train import Callback, CheckpointError, TrainingRun, TrainingState, fit

# A network with dropout, batch statistics and Adam, in small batches: every kind of state there is.
SCRIPT = """
import os, signal, sys
import torch
from torch import nn
from widthwise.core import seeded
from widthwise.data import DataSet
from widthwise.train import Callback, fit

class Kill(Callback):
    def on_step_end(self, state):
        if state.step == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)

x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
data = DataSet("task", x, (x.sum(1) > 0).long(), ("no", "yes"))
with seeded(0):
    module = nn.Sequential(nn.Linear(4, 30), nn.BatchNorm1d(30), nn.ReLU(), nn.Dropout(0.2), nn.Linear(30, 2))
run = fit(module, data, steps=60, optimizer=sys.argv[4], lr=0.01, batch_size=16, loss="cross-entropy",
          checkpoint=sys.argv[1], checkpoint_seconds=0.0, callbacks=[Kill()], progress=False)
torch.save({"module": module.state_dict(), "history": run.history.train_loss, "from": run.resumed_from}, sys.argv[2])
"""


def script(checkpoint: Path, result: Path, kill_at: int, optimizer: str) -> int:
    command = [sys.executable, "-c", SCRIPT, str(checkpoint), str(result), str(kill_at), optimizer]
    return subprocess.run(command, capture_output=True, timeout=120).returncode


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_killed_and_resumed_is_bit_identical(tmp_path: Path, optimizer: str) -> None:
    assert script(tmp_path / "whole.safetensors", tmp_path / "whole.pt", -1, optimizer) == 0
    for kill_at in (7, 33):
        assert script(tmp_path / "cut.safetensors", tmp_path / "cut.pt", kill_at, optimizer) == -9
    assert script(tmp_path / "cut.safetensors", tmp_path / "cut.pt", -1, optimizer) == 0
    whole, cut = (torch.load(tmp_path / name, weights_only=True) for name in ("whole.pt", "cut.pt"))
    assert whole["from"] == 0 and cut["from"] == 32
    for key, value in whole["module"].items():
        assert torch.equal(value, cut["module"][key]), key
    assert torch.equal(whole["history"], cut["history"])


@pytest.mark.slow
def test_killed_from_outside_leaves_a_readable_checkpoint(tmp_path: Path) -> None:
    """Killed at an arbitrary moment while it writes after every step: the file is always whole."""
    path = tmp_path / "run.safetensors"
    endless = SCRIPT.replace("steps=60", "steps=10**7")
    process = subprocess.Popen([sys.executable, "-c", endless, str(path), str(tmp_path / "x"), "-1", "adam"])
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
    process.kill()
    process.wait()
    assert load_file(path)["history"].shape[1] == 7


X = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
DATA = DataSet("line", X, X[:, :1] - X[:, 1:2] ** 2)


def build() -> nn.Module:
    with seeded(0):
        return nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.1), nn.Linear(8, 1))


class Count(Callback):
    """A callback with memory: halves the learning rate every tenth step it has seen."""

    def __init__(self) -> None:
        self.seen = 0

    def on_step_end(self, state: TrainingState) -> None:
        self.seen += 1
        if self.seen % 10 == 0:
            for group in state.optimizer.param_groups:
                group["lr"] /= 2

    def state_dict(self) -> dict:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict) -> None:
        self.seen = state["seen"]


class Interrupt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, state: TrainingState) -> None:
        if state.step == self.step:
            raise KeyboardInterrupt


def train(path: Path | None, steps: int = 40, **options: object) -> tuple[Tensor, TrainingRun]:
    module = build()
    arguments = {"optimizer": "adam", "lr": 0.01, "batch_size": 7, "checkpoint_seconds": 0.0, "progress": False}
    run = fit(module, DATA, steps=steps, checkpoint=path, **(arguments | options))
    return torch.cat([value.detach().flatten() for value in module.parameters()]), run


def test_interrupted_run_with_callback_memory(tmp_path: Path) -> None:
    whole, run = train(None, callbacks=[Count()])
    path = tmp_path / "a" / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(path, callbacks=[Count(), Interrupt(25)])
    cut, resumed = train(path, callbacks=[Count()])
    assert resumed.resumed_from == 24 and torch.equal(whole, cut)
    assert torch.equal(run.history.train_loss, resumed.history.train_loss)


def test_longer_run_goes_on_and_finished_run_returns(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    whole, _ = train(None, steps=40)
    train(path, steps=15)
    longer, run = train(path, steps=40)
    assert run.resumed_from == 15 and torch.equal(whole, longer)
    again, finished = train(path, steps=40)
    assert finished.resumed_from == 40 and finished.steps == 40 and torch.equal(again, whole)
    assert finished.train == run.train
    fresh, restarted = train(path, steps=15, resume=False)
    assert restarted.resumed_from == 0 and not torch.equal(fresh, whole)


def test_automatic_rate_survives(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    whole, run = train(None, optimizer="sgd", lr="auto")
    train(path, steps=10, optimizer="sgd", lr="auto")
    cut, resumed = train(path, optimizer="sgd", lr="auto")
    assert resumed.lr == run.lr and torch.equal(whole, cut)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "text", "empty", "foreign"])
def test_damaged_checkpoint_is_one_sentence(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "run.safetensors"
    train(path, steps=3)
    content = bytearray(path.read_bytes())
    if damage == "foreign":
        save_file({"w": torch.ones(2)}, path)
    else:
        content[-20] ^= 1
        path.write_bytes({"truncated": content[:-50], "flipped": content, "text": b"hello", "empty": b""}[damage])
    with pytest.raises(CheckpointError) as caught:
        train(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value) and str(caught.value).endswith(".")
    train(path, steps=3, resume=False)


@pytest.mark.parametrize(
    "change, word",
    [
        ({"lr": 0.02}, "lr"),
        ({"seed": 1}, "seed"),
        ({"batch_size": 5}, "batch_size"),
        ({"optimizer": "adamw"}, "optimizer"),
        ({"loss": nn.functional.l1_loss}, "loss"),
        ({"until_train_loss": 1e-9}, "until_train_loss"),
    ],
)
def test_checkpoint_of_another_run_is_refused(tmp_path: Path, change: dict, word: str) -> None:
    path = tmp_path / "run.safetensors"
    train(path, steps=3)
    with pytest.raises(CheckpointError, match=f"another run: {word}"):
        train(path, **change)


def test_checkpoint_of_other_parameter_groups_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    for lr, words in ((0.1, None), (0.2, "another run: parameter_groups")):
        module = build()
        groups = [{"params": module[0].parameters(), "lr": lr}, {"params": module[2].bias}]
        options = {"parameter_groups": groups, "lr": 0.01, "checkpoint": path, "progress": False}
        if words is None:
            assert fit(module, DATA, steps=2, **options).lr == 0.01
        else:
            with pytest.raises(CheckpointError, match=words):
                fit(module, DATA, steps=2, **options)
