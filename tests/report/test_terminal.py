"""The terminal summary."""

import re
from dataclasses import replace

from rich.console import Console

from tests.report.report_cases import bare, make_forecast
from widthwise.report import summary, summary_text


def test_summary_has_no_missing_numbers_and_fits(case):
    text = summary_text(case)
    assert not re.search(r"\b(nan|NaN|None|inf)\b", text)
    assert max(map(len, text.splitlines())) <= 100
    assert "\x1b" not in text


def test_summary_says_the_main_things():
    text = summary_text(make_forecast())
    row = next(line for line in text.splitlines() if line.strip().startswith("1000"))
    assert row.split()[:2] == ["1000", "0.339"] and row.split()[-1] == ["81.5", "%"][-1]
    assert next(line for line in text.splitlines() if line.strip().startswith("8000")).endswith("*")
    flat = " ".join(text.split())
    for part in ("cnn on fashion-mnist", "With twice the data", "tempered", "Double the data", "learning features"):
        assert part in flat


def test_summary_leaves_out_what_is_not_there():
    text = summary_text(bare())
    assert "*" not in text and "Keep in mind" not in text
    assert "Nothing was measured" in text


def test_markup_in_names_is_shown_as_it_is():
    base = make_forecast()
    odd = replace(base, network=replace(base.network, name="[red]net[/red] :smile:"), notes=("see [bold]x[/bold]",))
    assert "[red]net[/red] :smile:" in summary_text(odd) and "[bold]x[/bold]" in summary_text(odd)


def test_summary_is_a_rich_renderable_with_colour():
    console = Console(width=100, force_terminal=True, color_system="standard")
    with console.capture() as captured:
        console.print(summary(make_forecast()))
    assert "\x1b[" in captured.get()
