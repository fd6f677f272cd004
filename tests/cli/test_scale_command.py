"""`widthwise scale`: files, resumption, and refusals in one sentence with exit code 2."""

import json

import pytest

from tests.cli.conftest import Command
from widthwise.cli import _scale
from widthwise.cli._scale import parse_widths
from widthwise.core import DataError

SMALL = ("--data", "digits", "--widths", "8:32", "--steps", 3, "--seeds", 1, "--lr", 0.01, "--quiet")

MODELS = """
from torch import nn

def same(width):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))

def deeper(width):
    return nn.Sequential(nn.Flatten(), *[nn.Linear(64, 64) for _ in range(width // 8)], nn.Linear(64, 10))

def broken(width):
    if width > 8:
        raise ValueError("no luck")
    return nn.Linear(64, width)
"""


def test_settings_figures_and_page_are_written(command: Command, folder):
    ended = command("scale", "--model", "net.py:build", *SMALL, "--target-width", 256)
    assert ended.code == 0, ended.err
    held = json.loads((folder / "scale" / "scale.json").read_text())
    assert held["target_width"] == 256 and held["base_width"] == 8
    assert {row["name"] for row in held["weights"]} == {"1.weight", "1.bias", "3.weight", "3.bias"}
    assert (folder / "scale" / "figures" / "transfer.png").stat().st_size > 1000
    page = (folder / "scale" / "index.html").read_text()
    assert "What to set at width 256" in page and "<script src=" not in page
    assert "scale.json" in ended.out


def test_an_interruption_says_what_is_kept(command: Command, folder, monkeypatch):
    def stop(*arguments, **options):  # type: ignore[no-untyped-def]
        kept = folder / "scale" / "sweeps.json"
        kept.write_text('{"key": "", "losses": {"8/0/0.1": 1.0, "8/0/0.2": null}}')
        raise KeyboardInterrupt

    monkeypatch.setattr(_scale, "run_scale", stop)
    ended = command("scale", "--model", "mlp", *SMALL)
    assert ended.code == 130
    assert "the 2 finished runs are kept in scale/sweeps.json" in ended.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "more.py:same"), "must use it"),
        (("--model", "more.py:deeper"), "may not change the depth"),
        (("--model", "more.py:broken"), "raised ValueError: no luck"),
        (("--model", "net.py:plain"), "takes no width"),
        (("--model", "mlp", "--widths", "8,16"), "2 widths are too few"),
        (("--model", "mlp", "--widths", "wide"), "cannot be read"),
        (("--model", "mlp", "--widths", "64:8"), "rising range"),
        (("--model", "mlp", "--scheme", "mupp"), "is not one of"),
        (("--model", "mlp", "--optimizer", "sgd", "--lr", "1e30"), "diverged"),
        (("--model", "mlp", "--steps", "0"), "at least 1"),
        (("--model", "nosuch"), "is not known"),
    ],
)
def test_refusals(command: Command, folder, arguments, message):
    (folder / "more.py").write_text(MODELS)
    given = {str(SMALL[i]): SMALL[i + 1] for i in range(0, len(SMALL) - 1, 2)}
    given |= {arguments[i]: arguments[i + 1] for i in range(0, len(arguments), 2)}
    ended = command("scale", "--quiet", *[part for pair in given.items() for part in pair])
    assert ended.code == 2
    assert message in ended.err and ended.err.count("\n") == 1 and "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("text", "found"), [("64:512", (64, 128, 256, 512)), ("48:100", (48, 96, 100)), ("96, 64,64", (64, 96))]
)
def test_widths(text, found):
    assert parse_widths(text) == found


def test_too_many_widths_are_refused():
    with pytest.raises(DataError, match="at most 16"):
        parse_widths(",".join(map(str, range(1, 30))))
