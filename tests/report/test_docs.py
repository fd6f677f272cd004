"""The documentation says what is there: operations and studies."""

import re
from pathlib import Path

from widthwise import studies
from widthwise.kernels import RULES

DOCS = Path(__file__).parents[2] / "docs"


def test_every_rule_is_listed_and_nothing_else():
    page = (DOCS / "reference" / "operations.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^aten\.\S+$", page, re.MULTILINE)) == set(RULES)


def test_every_study_that_works_is_listed_and_nothing_else():
    page = (DOCS / "studies" / "index.md").read_text(encoding="utf-8")
    ready = {row.slug: row.state for row in studies.available() if row.state != "not yet"}
    assert dict(re.findall(r"^\| `([a-z0-9-]+)` \| ([a-z ]+) \|", page, re.MULTILINE)) == ready
