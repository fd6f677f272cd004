"""Every code block of docs/tutorial/scaling.md runs, in order, as a reader would type it."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

PAGE = Path(__file__).parents[2] / "docs" / "tutorial" / "scaling.md"


@pytest.mark.slow
def test_the_code_of_the_tutorial_runs():
    torch.manual_seed(0)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 6
    names: dict[str, Any] = {"__name__": "tutorial"}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert names["sweep"].losses.shape == (3, 1, 6)
    assert names["check"].verdicts == ()
