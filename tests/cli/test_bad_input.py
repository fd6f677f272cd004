"""Bad input: one sentence on standard error, exit code 2, no traceback."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import MODELS, Command
from widthwise.core import _memory

X = np.random.default_rng(0).standard_normal((100, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)


def spoiled(value: float) -> np.ndarray:
    inputs = X.copy()
    inputs[5, 2] = value
    return inputs


DATA = {
    "nan": (spoiled(np.nan), Y, "NaN"),
    "infinite": (spoiled(-np.inf), Y, "infinite"),
    "empty": (X[:0], Y[:0], "empty"),
    "one-class": (X, 0 * Y, "one class only"),
    "short": (X, Y[:-3], "100 inputs and 97 targets"),
    "few": (X[:50], Y[:50], "50 examples"),
}

CASES = {
    "unknown model": (["--model", "mpl"], "did you mean mlp"),
    "file without function": (["--model", "net.py"], "net.py:build"),
    "missing file": (["--model", "nowhere.py:build"], "nowhere.py does not exist"),
    "missing function": (["--model", "net.py:biuld"], "give net.py:build"),
    "raising factory": (["--model", "net.py:raises"], "raised RuntimeError: no luck"),
    "wrong arguments": (["--model", "net.py:two"], "needs the arguments a, b"),
    "no module": (["--model", "net.py:no_module"], "returned a int"),
    "other inputs": (["--model", "net.py:other_inputs"], r"does not accept .* inputs of shape \[1, 8, 8\]"),
    "other outputs": (["--model", "net.py:other_outputs"], r"outputs of shape \[7\]"),
    "width not taken": (["--model", "net.py:plain", "--width", 8], "takes no width"),
    "width zero": (["--width", 0], "width 0"),
    "no rule": (
        ["--model", "net.py:unruled", "--kernel", "infinite"],
        "softmax.* in module '1'.*kernel='empirical'",
    ),
    "unknown data": (["--data", "digts"], "did you mean digits"),
    "missing data": (["--data", "nowhere.npz"], "nowhere.npz does not exist"),
    "kernel": (["--kernel", "infinit"], "give one of auto, infinite"),
    "parametrization": (["--parametrization", "mup"], "give one of ntk, plain, standard"),
    "task": (["--data", "nan.npz", "--task", "clasification"], "task 'clasification'"),
    "too many samples": (["--samples", 5000], "at most 1795"),
    "too few samples": (["--samples", 20], "at least 64"),
    "too many held out": (["--samples", 100, "--held-out", 1790], "1790 of them held out"),
    "no draws": (["--draws", 0], "draws is 0"),
    "negative draws": (["--draws", -1], "draws is -1"),
    "negative budget": (["--training-seconds", -1], "training_seconds is -1"),
    "negative seed": (["--seed", -1], "seed is -1"),
    "folder below a file": (["--out", "net.py/report"], "cannot write to folder net.py/report"),
    "folder is a file": (["--out", "net.py"], "cannot write to folder net.py"),
}
CASES |= {name: (["--data", f"{name}.npz"], words) for name, (_, _, words) in DATA.items()}


def check_sentence(err: str, words: str) -> None:
    assert err.startswith("error: ") and err.endswith((".\n", "?\n"))
    assert err.count("\n") == 1 and "Traceback" not in err
    assert re.search(words, err), err


@pytest.mark.parametrize("name", list(CASES))
def test_one_sentence_and_code_two(name: str, command: Command, folder: Path) -> None:
    for key, (inputs, targets, _) in DATA.items():
        np.savez(folder / f"{key}.npz", x=inputs, y=targets)
    arguments, words = CASES[name]
    found = command("forecast", *arguments)
    assert found.code == 2 and found.out == ""
    check_sentence(found.err, words)


@pytest.mark.parametrize("arguments", [["--samples", "many"], ["--bogus", "1"], ["--width"]])
def test_usage_errors(arguments: list[str], command: Command) -> None:
    found = command("forecast", *arguments)
    assert found.code == 2 and "Traceback" not in found.err and arguments[0] in found.err


def test_memory_is_predicted(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_memory, "available_bytes", lambda: 2**22)
    found = command("forecast", "--model", "net.py:build", "--samples", 1000, "--held-out", 100)
    assert found.code == 2
    check_sentence(found.err, "1000 samples needs about .* GiB are available; ask for fewer samples")


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")]
)
def test_running_out_of_memory_all_the_same(
    error: Exception, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("widthwise.cli._app.run_forecast", fail)
    found = command("forecast")
    assert found.code == 2
    check_sentence(found.err, "out of memory")


def test_bad_scale_and_slug_of_a_study(command: Command) -> None:
    found = command("study", "run", "more-is-better-rf", "--scale", "huge")
    assert found.code == 2
    check_sentence(found.err, "scale 'huge' is not known")
    found = command("study", "run", "more-is-beter-rf")
    assert found.code == 2
    check_sentence(found.err, "more-is-better-rf")


def test_the_installed_command_does_the_same(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(MODELS)
    found = subprocess.run(
        [sys.executable, "-c", "from widthwise.cli import main; main()", "forecast", "--model", "net.py:raises"],
        cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=120,
    )  # fmt: skip
    assert found.returncode == 2 and found.stdout == ""
    check_sentence(found.stderr, "no luck")
