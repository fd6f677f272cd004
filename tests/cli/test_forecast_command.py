"""The forecast command: what it writes, and how it goes on after an interruption."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.cli.conftest import Command
from widthwise.report import json_schema

QUICK = ("--samples", "96", "--held-out", "48", "--draws", "3", "--training-seconds", "0.1", "--quiet")


def comparable(folder: Path) -> dict[str, Any]:
    """The forecast without wall times and without the note on what was reused."""
    found = json.loads((folder / "forecast.json").read_text())
    jsonschema.validate(found, json_schema())
    del found["seconds"]
    for row in found["training"]:
        del row["seconds"]
    found["notes"] = [note for note in found["notes"] if "earlier run" not in note]
    return found


def test_it_writes_the_report_and_leaves_nothing_else(command: Command, folder: Path) -> None:
    found = command("forecast", "--model", "net.py:build", "--out", "made/report", *QUICK)
    assert found.code == 0 and found.err == ""
    assert "The report is at made/report/index.html" in found.out
    assert sorted(path.name for path in (folder / "made/report").iterdir()) == [
        "figures",
        "forecast.json",
        "index.html",
    ]


def test_stages_survive_until_the_report_is_saved(
    command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full when the page is written: the same command then goes on from all that was computed."""

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    whole = ("forecast", "--model", "net.py:build", "--out", "report", *QUICK)
    with monkeypatch.context() as patched:
        patched.setattr("widthwise.core._files.os.replace", full)
        found = command(*whole)
        assert found.code == 2 and "No space left on device" in found.err and found.err.count("\n") == 1
    with monkeypatch.context() as patched:
        patched.setattr("widthwise.report._save.write_html", full)
        with pytest.raises(OSError, match="No space"):
            command(*whole)
    assert list((folder / "report/.stages").glob("*/kernel.safetensors"))
    assert command(*whole).code == 0
    notes = json.loads((folder / "report/forecast.json").read_text())["notes"]
    assert "kernel" in notes[-1] and "training" in notes[-1] and "reused" in notes[-1]
    assert not (folder / "report/.stages").exists()


def test_a_keyboard_interrupt_says_what_is_kept(
    command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["widthwise.forecast._forecast"], "width_curve", interrupt)
    found = command("forecast", "--model", "net.py:build", "--out", "report", *QUICK)
    assert found.code == 130 and found.err.count("\n") == 1 and "what is finished is kept" in found.err
    assert list((folder / "report/.stages").glob("*/kernel.safetensors"))


def start(folder: Path, out: str) -> subprocess.Popen:
    code = "from widthwise.cli import main; main()"
    arguments = ["forecast", "--model", "net.py:build", "--out", out, *QUICK, "--training-seconds", "3"]
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_an_interrupted_run_goes_on_and_ends_the_same(folder: Path, sent: signal.Signals, code: int) -> None:
    process = start(folder, "broken")
    deadline = time.monotonic() + 120
    while not list((folder / "broken").glob(".stages/*/kernel.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code and "Traceback" not in err
    assert (folder / "broken/.stages").is_dir() and not (folder / "broken/forecast.json").exists()
    for out in ("broken", "whole"):
        _, err = (process := start(folder, out)).communicate(timeout=180)
        assert process.returncode == 0, err
    assert "earlier run were reused: kernel" in (folder / "broken/forecast.json").read_text()
    assert not (folder / "broken/.stages").exists()
    assert comparable(folder / "broken") == comparable(folder / "whole")


def test_trace_and_version(command: Command) -> None:
    found = command("trace", "--model", "net.py:build")
    assert found.code == 0 and "relu" in found.out
    assert command("version").out.strip()
