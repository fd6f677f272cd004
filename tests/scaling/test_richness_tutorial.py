"""Every code block of docs/tutorial/richness.md runs, in order, as a reader would type it."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

PAGE = Path(__file__).parents[2] / "docs" / "tutorial" / "richness.md"


@pytest.mark.slow
def test_the_code_of_the_tutorial_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 6
    names: dict[str, Any] = {"__name__": "tutorial"}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert abs(names["sweep"].lazy.value - 2) < 0.2 and names["found"].verdict == "lazy"
    assert float((names["net"](names["x"]) - names["before"]).abs().max()) < 1e-5
    assert (tmp_path / "richness.json").exists()
