"""The summary of a forecast for a terminal, and as plain text."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from widthwise.forecast._types import Forecast, LearningPoint
from widthwise.report import _tables as tables
from widthwise.report import _tables_theory as theory
from widthwise.report import _words as words
from widthwise.report import _words_theory as tell
from widthwise.report import _words_training as outcome
from widthwise.report._numbers import MISSING, count, interval, number, percent, with_error
from widthwise.report._select import curve
from widthwise.report._tables import Table, table

INDENT = 2


@dataclass(frozen=True)
class Fitting:
    """The first of several tables, widest first, whose cells all fit the console; the last one where none does."""

    choices: tuple[Table, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Called by rich, which knows the width."""
        drawn = [_draw(choice) for choice in self.choices]
        wide = options.update(width=10_000)
        fitting = (t for t in drawn if console.measure(t, options=wide).maximum <= options.max_width)
        yield next(fitting, drawn[-1])


def summary(forecast: Forecast) -> Group:
    """The forecast in about fifty lines, for `rich.print`; tables have fewer columns where the console is narrow."""
    parts: list[RenderableType] = [Text(f"{words.title(forecast)}: {words.size(forecast)}", style="bold")]
    parts += _block("Network", [*words.network(forecast), *tell.depth(forecast)])
    parts += _block("Task", words.task(forecast))
    parts += _block("Learning curve", [*words.learning_curve(forecast), *_star(forecast)], *_learning(forecast))
    caveat = words.width_caveat(forecast) if forecast.width_curve else ""
    parts += _block("Width", [*words.width(forecast), caveat], tables.width(forecast), _narrow_width(forecast))
    parts += _block("Finite width", tell.finite_width(forecast) if forecast.fluctuations else [])
    parts += _block("Ridge and overfitting", outcome.overfitting(forecast))
    parts += _block("Training time", tell.dynamics(forecast) if forecast.dynamics else [])
    parts += _block("Training check", outcome.training(forecast))
    parts += _block(
        "How to scale it", tell.scaling(forecast) if forecast.scaling else [], theory.scaling(forecast, short=True)
    )
    parts += _advice(forecast)
    parts += _block("Keep in mind", list(forecast.notes))
    return Group(*parts)


def summary_text(forecast: Forecast, width: int = 100) -> str:
    """The same summary as plain text of at most `width` columns, without colours."""
    console = Console(width=width, color_system=None, force_terminal=False, legacy_windows=False, emoji=False)
    with console.capture() as captured:
        console.print(summary(forecast))
    return "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"


def _block(title: str, sentences: list[str], *choices: Table) -> list[RenderableType]:
    shown = tuple(choice for choice in choices if choice.rows)
    if not any(sentences) and not shown:
        return []
    parts: list[RenderableType] = [Text(), Text(title, style="bold cyan")]
    if any(sentences):
        parts.append(Padding(Text("\n".join(filter(None, sentences))), (0, 0, 0, INDENT)))
    if shown:
        parts.append(Padding(Fitting(shown), (0, 0, 0, INDENT)))
    return parts


def _draw(numbers: Table) -> RichTable:
    drawn = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for place, name in enumerate(numbers.columns):
        drawn.add_column(Text(name), justify="right" if place in numbers.numeric else "left", no_wrap=True)
    for row in numbers.rows:
        drawn.add_row(*(Text(cell) for cell in row))
    return drawn


def _star(forecast: Forecast) -> list[str]:
    beyond = any(point.extrapolated for point in forecast.learning_curve)
    return ["Sizes marked * are extrapolated beyond the sample."] if beyond else []


def _learning(forecast: Forecast) -> tuple[Table, Table, Table]:
    """All numbers; without the measurement at zero ridge and with fewer digits; only the errors."""
    zero = {point.n: point for point in curve(forecast, "zero")}
    best = {point.n: point for point in curve(forecast, "optimal")}
    sizes = sorted({*zero, *best})
    accurate = any(point.predicted_accuracy is not None for point in forecast.learning_curve)
    right = ("accuracy", "measured") if accurate else ()
    full = ("n", "zero\nridge", "measured", "optimal\nridge", "interval", "measured", *right)
    less = ("n", "zero\nridge", "optimal\nridge", "interval", "measured", *right)
    least = ("n", "zero\nridge", "optimal\nridge", "measured")
    rows = [(_size(n, zero.get(n) or best[n]), *_errors(zero.get(n), best.get(n))) for n in sizes]
    accuracies = [_accuracies(best.get(n)) if accurate else () for n in sizes]
    return (
        _numeric(full, [(*row, *(end[:1] + end[2:])) for row, end in zip(rows, accuracies, strict=True)]),
        _numeric(less, [(*_shorter(n, zero, best), *end[:2]) for n, end in zip(sizes, accuracies, strict=True)]),
        _numeric(least, [(row[0], row[1], row[3], row[5]) for row in rows]),
    )


def _numeric(names: Sequence[str], rows: list[tuple[str, ...]]) -> Table:
    return table("Learning curve", names, "n" * len(names), rows)


def _size(n: int, point: LearningPoint) -> str:
    return count(n) + ("*" if point.extrapolated else " ")


def _errors(zero: LearningPoint | None, best: LearningPoint | None) -> tuple[str, ...]:
    return (*_pair(zero), _pair(best)[0], _interval(best, 3), _pair(best)[1])


def _shorter(n: int, zero: dict[int, LearningPoint], best: dict[int, LearningPoint]) -> tuple[str, ...]:
    low, high = zero.get(n), best.get(n)
    size = _size(n, low or best[n])
    return (size, _pair(low)[0], _pair(high)[0], _interval(high, 2), _pair(high, digits=1)[1])


def _pair(point: LearningPoint | None, digits: int = 2) -> tuple[str, str]:
    if point is None:
        return MISSING, MISSING
    return number(point.predicted_mse), with_error(point.measured_mse, point.measured_mse_stderr, digits)


def _interval(point: LearningPoint | None, digits: int) -> str:
    return MISSING if point is None else interval(point.predicted_mse_low, point.predicted_mse_high, digits)


def _accuracies(best: LearningPoint | None) -> tuple[str, ...]:
    """Predicted, measured, and measured with its error."""
    if best is None:
        return MISSING, MISSING, MISSING
    full = tables.accuracy(best.measured_accuracy, best.measured_accuracy_stderr)
    return percent(best.predicted_accuracy), percent(best.measured_accuracy), full


def _narrow_width(forecast: Forecast) -> Table:
    full = tables.width(forecast)
    rows = [(row[0], row[3].split(",")[0], *row[4:]) for row in full.rows]
    return table(full.title, ("width", "ridge", "predicted", "measured"), "ntnn", rows)


def _advice(forecast: Forecast) -> list[RenderableType]:
    """Per step what to do; below it what it should bring, how surely, and why."""
    if not forecast.advice:
        return _block("Advice", outcome.advice(forecast))
    parts: list[RenderableType] = [Text(), Text("Advice", style="bold cyan")]
    for place, row in enumerate(forecast.advice, 1):
        change = f"{number(row.before)} to {number(row.after)} ({tables.change(row.before, row.after)})"
        parts.append(Padding(Text(f"{place}. {row.action}"), (0, 0, 0, INDENT)))
        parts.append(Padding(Text(f"{change}, {row.confidence} confidence: {row.because}"), (0, 0, 0, INDENT + 3)))
    return parts
