"""What both renderers need to know of a figure: colours, extents and ticks."""

import math
from typing import Literal

from widthwise.core import Axis, Band, Bars, Figure, Guide, Line, Points, Series

PALETTE = ("#0072B2", "#D55E00", "#00845F", "#AA4499", "#8A6A00", "#6B737D")
"""Series colours, in order of their slot (the last is a neutral grey): told apart under the common colour
blindnesses, and at least 3 to 1 against both the white and the dark background."""

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star")
"""Marker of each slot, so that colour is never the only difference."""


def drawable(axis: Axis, *values: float) -> bool:
    """Whether all `values` can be drawn on `axis`: finite, and positive on a logarithmic one."""
    return all(math.isfinite(value) and (axis.scale != "log" or value > 0) for value in values)


def extent(figure: Figure, which: Literal["x", "y"]) -> tuple[float, float]:
    """Lowest and highest drawable value on one axis, with a margin (a ratio on a logarithmic axis).

    Vertical guides count for x and horizontal ones for y; bars count from zero. An empty figure gives (0, 1), or
    (0.1, 1) where the axis is logarithmic.
    """
    axis = figure.x if which == "x" else figure.y
    if axis.limits is not None:
        return axis.limits
    values = [value for item in figure.series for value in _values(item, which) if drawable(axis, value)]
    if axis.scale == "log":
        low, high = (math.log10(min(values)), math.log10(max(values))) if values else (-1.0, 0.0)
        margin = max(0.05 * (high - low), 0.04)
        return 10 ** (low - margin), 10 ** (high + margin)
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    labelled = any(isinstance(item, Bars) for item in figure.series)
    margin = (0.12 if labelled else 0.05) * (high - low) or 0.5
    return low - (margin if low != 0 else 0), high + margin


def ticks(axis: Axis, low: float, high: float) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Positions and labels of about four to eight ticks between `low` and `high`.

    >>> ticks(Axis("n", "log"), 20, 40000)
    ((100.0, 1000.0, 10000.0), ('100', '1000', '10 000'))
    """
    if axis.scale == "category":
        return _category_ticks(axis)
    places = _log_ticks(low, high) if axis.scale == "log" else _linear_ticks(low, high)
    return tuple(places), tuple(tick_label(place) for place in places)


def tick_label(value: float) -> str:
    """A short label: plain digits between 0.001 and 999 999, else a power of ten.

    >>> tick_label(20000.0), tick_label(0.05), tick_label(1e-7)
    ('20 000', '0.05', '1e-7')
    """
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e6:
        text = f"{value:,.10g}".replace(",", " ") if abs(value) >= 1e4 else f"{value:.6g}"
        return text.replace("-", "\N{MINUS SIGN}")
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def segments(x: tuple[float, ...], *columns: tuple[float, ...], axes: tuple[Axis, ...]) -> list[tuple[float, ...]]:
    """The rows (x, column values...) that can be drawn: `axes` names the axis of x and of each column."""
    rows = zip(x, *columns, strict=True)
    return [row for row in rows if all(drawable(axis, value) for axis, value in zip(axes, row, strict=True))]


def _values(item: Series, which: str) -> tuple[float, ...]:
    match item:
        case Line():
            return item.x if which == "x" else item.y
        case Points(error=()):
            return item.x if which == "x" else item.y
        case Points():
            pairs = list(zip(item.y, item.error, strict=True))
            reach = tuple(y + e for y, e in pairs if math.isfinite(e)) + tuple(y - e for y, e in pairs)
            return item.x if which == "x" else item.y + reach
        case Band():
            return item.x if which == "x" else item.low + item.high
        case Bars():
            return (0.0, *item.values) if which == "x" else ()
        case Guide():
            return (item.at,) if (item.direction == "vertical") == (which == "x") else ()
        case _:
            return ()


def _category_ticks(axis: Axis, most: int = 16) -> tuple[tuple[float, ...], tuple[str, ...]]:
    step = max(1, math.ceil(len(axis.categories) / most))
    places = range(0, len(axis.categories), step)
    return tuple(float(place) for place in places), tuple(axis.categories[place] for place in places)


def _log_ticks(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    decades = range(first, last + 1)
    candidates = [
        [float(f"1e{power}") for power in decades if power % 3 == 0],
        [float(f"1e{power}") for power in decades if power % 2 == 0],
        [float(f"1e{power}") for power in decades],
        *([float(f"{m}e{power}") for power in decades for m in many] for many in ((1, 3), (1, 2, 5), range(1, 10))),
    ]
    inside = [[place for place in places if low <= place <= high] for places in candidates]
    return next((places for places in inside if 3 <= len(places) <= 7), _linear_ticks(low, high))


def _linear_ticks(low: float, high: float) -> list[float]:
    if not high > low:
        return [low]
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{k * step:.12g}") for k in range(first, last + 1)]
