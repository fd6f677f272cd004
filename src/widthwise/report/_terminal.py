"""The summary of a forecast for a terminal, and as plain text."""

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from widthwise.forecast._types import Forecast, LearningPoint
from widthwise.report import _tables as tables
from widthwise.report import _words as words
from widthwise.report._numbers import MISSING, count, interval, number, percent, with_error
from widthwise.report._select import curve
from widthwise.report._tables import Table, table


def summary(forecast: Forecast) -> Group:
    """The forecast in about fifty lines, for `rich.print`."""
    parts: list[RenderableType] = [Text(f"{words.title(forecast)}: {words.size(forecast)}", style="bold")]
    parts += _block("Network", words.network(forecast))
    parts += _block("Task", words.task(forecast))
    parts += _block("Learning curve", [*words.learning_curve(forecast), *_star(forecast)], _learning(forecast))
    parts += _block("Width", words.width(forecast), tables.width(forecast))
    parts += _block("Ridge and overfitting", words.overfitting(forecast))
    parts += _block("Training check", words.training(forecast))
    parts += _block("Advice", [] if forecast.advice else words.advice(forecast), tables.advice(forecast))
    parts += _block("Keep in mind", list(forecast.notes))
    return Group(*parts)


def summary_text(forecast: Forecast, width: int = 100) -> str:
    """The same summary as plain text of at most `width` columns, without colours."""
    console = Console(width=width, color_system=None, force_terminal=False, legacy_windows=False, emoji=False)
    with console.capture() as captured:
        console.print(summary(forecast))
    return "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"


def _block(title: str, sentences: list[str], numbers: Table | None = None) -> list[RenderableType]:
    has_rows = numbers is not None and bool(numbers.rows)
    if not sentences and not has_rows:
        return []
    parts: list[RenderableType] = [Text(), Text(title, style="bold cyan")]
    if sentences:
        parts.append(Padding(Text("\n".join(filter(None, sentences))), (0, 0, 0, 2)))
    if numbers is not None and has_rows:
        parts.append(Padding(_draw(numbers), (0, 0, 0, 2)))
    return parts


def _draw(numbers: Table) -> RichTable:
    drawn = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1))
    for place, name in enumerate(numbers.columns):
        numeric = place in numbers.numeric
        drawn.add_column(Text(name), justify="right" if numeric else "left", no_wrap=numeric)
    for row in numbers.rows:
        drawn.add_row(*(Text(cell) for cell in row))
    return drawn


def _star(forecast: Forecast) -> list[str]:
    beyond = any(point.extrapolated for point in forecast.learning_curve)
    return ["Sizes marked * are extrapolated beyond the sample."] if beyond else []


def _learning(forecast: Forecast) -> Table:
    zero = {point.n: point for point in curve(forecast, "zero")}
    best = {point.n: point for point in curve(forecast, "optimal")}
    accurate = any(point.predicted_accuracy is not None for point in forecast.learning_curve)
    names = ["n", "zero\nridge", "measured", "optimal\nridge", "interval", "measured"] + ["accuracy"] * accurate
    rows = [_learning_row(n, zero.get(n), best.get(n), accurate) for n in sorted({*zero, *best})]
    return table("Learning curve", [*names, ""], "n" * len(names) + "t", rows)


def _learning_row(n: int, zero: LearningPoint | None, best: LearningPoint | None, accurate: bool) -> tuple[str, ...]:
    cells = [count(n), *_predicted(zero), *(_predicted(best)[:1])]
    cells.append(interval(best.predicted_mse_low, best.predicted_mse_high) if best else MISSING)
    cells += _predicted(best)[1:]
    if accurate:
        cells.append(percent(best.predicted_accuracy) if best else MISSING)
    known = best or zero
    return (*cells, "*" if known is not None and known.extrapolated else "")


def _predicted(point: LearningPoint | None) -> list[str]:
    if point is None:
        return [MISSING, MISSING]
    return [number(point.predicted_mse), with_error(point.measured_mse, point.measured_mse_stderr)]
