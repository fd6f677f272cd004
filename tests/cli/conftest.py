"""The command line called in this process, in a folder with model files."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from widthwise.cli import main

MODELS = """
from torch import nn

def build(width=16):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))

def plain():
    return build()

def unruled(width=8):
    mixed = nn.Softmax2d()
    return nn.Sequential(nn.Conv2d(1, width, 3), mixed, nn.ReLU(), nn.Flatten(), nn.Linear(36 * width, 10))

def raises():
    raise RuntimeError("no luck")

def two(a, b):
    return nn.Linear(a, b)

def other_inputs():
    return nn.Linear(3, 10)

def other_outputs():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 7))

def no_module():
    return 3
"""


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(MODELS)
    return tmp_path


@pytest.fixture
def command(folder: Path, capsys: pytest.CaptureFixture) -> Command:
    def run(*arguments: object) -> Ended:
        capsys.readouterr()
        code = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = int(ended.code or 0)
        return Ended(code, *capsys.readouterr())

    return run
