"""`widthwise scale --gammas`: the plane of strength and learning rate beside the rest."""

import json

import pytest

from tests.cli.conftest import Command
from widthwise.cli._scale import parse_gammas
from widthwise.core import DataError

SMALL = ("--data", "digits", "--widths", "8:32", "--steps", 3, "--seeds", 1, "--lr", 0.01, "--quiet")


@pytest.mark.slow
def test_the_plane_is_written_and_kept(command: Command, folder):
    ended = command("scale", "--model", "net.py:build", *SMALL, "--gammas", "0.1,1,10")
    assert ended.code == 0, ended.err
    assert "exponent of the best rate" in ended.out
    assert (folder / "scale" / "figures" / "richness.png").stat().st_size > 1000
    assert (folder / "scale" / "richness.json").exists()
    page = (folder / "scale" / "index.html").read_text(encoding="utf-8")
    assert "How much it learns features" in page and 'id="chart-richness"' in page
    assert json.loads((folder / "scale" / "scale.json").read_text(encoding="utf-8"))["richness"]["depth"] == 2


def test_refusals_come_before_any_work(command: Command, folder):
    ended = command("scale", "--model", "net.py:build", *SMALL, "--gammas", "0,1")
    assert ended.code == 2 and "two numbers above zero" in ended.err and not (folder / "scale" / "scale.json").exists()
    with pytest.raises(DataError, match="cannot be read"):
        parse_gammas("a,b")
