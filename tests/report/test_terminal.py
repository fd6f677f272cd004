"""The terminal summary."""

import re
from dataclasses import replace

import pytest
from rich.console import Console

from tests.report.report_cases import bare, error_at, make_forecast
from widthwise.report import summary, summary_text
from widthwise.report._numbers import number, percent


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_summary_has_no_missing_numbers_and_fits(case, width):
    text = summary_text(case, width)
    assert not re.search(r"\b(nan|NaN|None|inf)\b", text)
    assert max(map(len, text.splitlines())) <= width
    assert "\x1b" not in text and "\N{HORIZONTAL ELLIPSIS}" not in text


def test_narrow_tables_leave_out_columns_and_keep_the_numbers():
    rows = {width: line(summary_text(make_forecast(), width), "1000 ") for width in (60, 80, 120)}
    zero, optimal, share = (error_at(1000, "zero"), error_at(1000, "optimal"), 1 - 0.62 * error_at(1000, "optimal"))
    for text in rows.values():
        assert text[:2] == ["1000", number(zero)] and number(optimal) in text
    accuracy = percent(share).split()[0]
    assert accuracy in rows[80] and accuracy in rows[120] and accuracy not in rows[60]
    assert len(rows[60]) < len(rows[80]) < len(rows[120])


def line(text, start):
    return next(row for row in text.splitlines() if row.strip().startswith(start)).split()


def test_summary_says_the_main_things():
    text = summary_text(make_forecast())
    assert line(text, "1000 ")[:2] == ["1000", "0.339"] and line(text, "8000*")
    flat = " ".join(text.split())
    for part in ("cnn on fashion-mnist", "With twice the data", "tempered", "Double the data", "the best of three"):
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
