"""Draw a figure with Plotly, for the page."""

import html
import math
from collections.abc import Sequence
from typing import Any, Literal

import plotly.graph_objects as go

from widthwise.core import Axis, Band, Bars, Figure, Guide, Heatmap, Line, Points
from widthwise.report._figure import PALETTE, SYMBOLS, extent, segments, tick_label, ticks
from widthwise.report._numbers import number, shorten, wrap

GUIDE = "#7A828C"
"""Reference lines and grid: legible on both backgrounds."""


def to_plotly(figure: Figure) -> go.Figure:
    """`figure` as a Plotly figure: transparent background, no title (the page writes it), no zoom (phones scroll).

    Ink and grid colours are left to the page, which sets them for its light and its dark scheme.
    """
    traces = [trace for item in figure.series for trace in _traces(item, figure)]
    guides = [item for item in figure.series if isinstance(item, Guide)]
    layout: dict[str, Any] = {
        "template": {},
        "xaxis": _axis(figure, "x"),
        "yaxis": _axis(figure, "y"),
        "shapes": [_guide_line(guide) for guide in guides],
        "annotations": [_guide_label(guide, figure) for guide in guides],
        "legend": {
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1.02,
            "yanchor": "bottom",
            "traceorder": "normal",
        },
        "margin": {"l": 56, "r": 14, "t": 16, "b": 52},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"size": 13, "family": "system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif"},
        "hovermode": "closest",
        "dragmode": False,
        "barmode": "group",
        "bargap": 0.35,
        "bargroupgap": 0.08,
        "height": _height(figure),
    }
    return go.Figure({"data": traces, "layout": layout})


def _height(figure: Figure) -> int:
    if not any(isinstance(item, Bars) for item in figure.series):
        return 400
    lines = max((len(wrap(name)) for name in figure.y.categories), default=1)
    return max(220, 110 + max(62, 19 * lines) * len(figure.y.categories))


def _axis(figure: Figure, which: Literal["x", "y"]) -> dict[str, Any]:
    axis = figure.x if which == "x" else figure.y
    common = {
        "title": {"text": html.escape(axis.label), "standoff": 10, "font": {"size": 13}},
        "automargin": True,
        "fixedrange": True,
        "zeroline": False,
        "ticks": "outside",
        "ticklen": 4,
    }
    if axis.scale == "category":
        places, labels = ticks(axis, 0, 0)
        span = [-0.5, len(axis.categories) - 0.5]
        names = [_label(label, wrapped=which == "y") for label in labels]
        reverse = which == "y" and any(isinstance(item, Bars) for item in figure.series)
        return common | {"tickvals": places, "ticktext": names, "range": span[::-1] if reverse else span}
    low, high = extent(figure, which)
    places, labels = ticks(axis, low, high)
    log = axis.scale == "log"
    limits = [math.log10(low), math.log10(high)] if log else [low, high]
    return common | {"type": axis.scale, "range": limits, "tickvals": places, "ticktext": labels}


def _label(text: str, wrapped: bool) -> str:
    lines = wrap(text) if wrapped else [shorten(text, 22)]
    return "<br>".join(html.escape(line) for line in lines)


def _traces(item: Any, figure: Figure) -> list[dict[str, Any]]:
    match item:
        case Line():
            return [_line(item, figure)]
        case Points():
            return [_points(item, figure)]
        case Band():
            return [_band(item, figure)]
        case Bars():
            return [_bars(item, figure)]
        case Heatmap():
            return [_heatmap(item, figure)]
    return []


def _named(name: str, slot: int) -> dict[str, Any]:
    return {"name": html.escape(name), "showlegend": bool(name), "legendgroup": f"slot {slot}"}


def _hover(x_axis: Axis, rows: Sequence[tuple[float, ...]]) -> list[str]:
    places = (x_axis.categories[int(row[0])] if x_axis.scale == "category" else tick_label(row[0]) for row in rows)
    return [html.escape(f"{place}: {number(row[1])}") for place, row in zip(places, rows, strict=True)]


def _line(item: Line, figure: Figure) -> dict[str, Any]:
    rows = segments(item.x, item.y, axes=(figure.x, figure.y))
    return _named(item.name, item.slot) | {
        "type": "scatter",
        "mode": "lines+markers" if item.markers else "lines",
        "x": [row[0] for row in rows],
        "y": [row[1] for row in rows],
        "line": {"color": _colour(item.slot), "width": 2.2, "dash": "6px,4px" if item.dashed else "solid"},
        "marker": {"symbol": _symbol(item.slot), "size": 6},
        "hovertext": _hover(figure.x, rows),
        "hoverinfo": "text+name" if item.name else "text",
    }


def _points(item: Points, figure: Figure) -> dict[str, Any]:
    errors = item.error or (0.0,) * len(item.x)
    rows = [(x, y) for x, y in segments(item.x, item.y, axes=(figure.x, figure.y))]
    error_at = dict(zip(zip(item.x, item.y, strict=True), errors, strict=True))
    bars = [error_at[row] if math.isfinite(error_at[row]) else 0.0 for row in rows]
    hover = [
        f"{text} \N{PLUS-MINUS SIGN} {number(e, 2)}" if e else text
        for text, e in zip(_hover(figure.x, rows), bars, strict=True)
    ]
    return _named(item.name, item.slot) | {
        "type": "scatter",
        "mode": "markers",
        "x": [row[0] for row in rows],
        "y": [row[1] for row in rows],
        "error_y": {"type": "data", "array": bars, "color": _colour(item.slot), "thickness": 1.4, "width": 3},
        "marker": {"color": _colour(item.slot), "symbol": _symbol(item.slot), "size": 8},
        "hovertext": hover,
        "hoverinfo": "text+name",
    }


def _band(item: Band, figure: Figure) -> dict[str, Any]:
    rows = segments(item.x, item.low, item.high, axes=(figure.x, figure.y, figure.y))
    there, back = rows, rows[::-1]
    return _named("", item.slot) | {
        "type": "scatter",
        "mode": "lines",
        "x": [row[0] for row in there + back],
        "y": [row[1] for row in there] + [row[2] for row in back],
        "fill": "toself",
        "fillcolor": _rgba(item.slot, 0.18 if item.light else 0.32),
        "line": {"width": 0},
        "hoverinfo": "skip",
    }


def _bars(item: Bars, figure: Figure) -> dict[str, Any]:
    shown = [value if math.isfinite(value) else None for value in item.values]
    return _named(item.name, item.slot) | {
        "type": "bar",
        "orientation": "h",
        "x": shown,
        "y": list(range(len(shown))),
        "text": [number(value) for value in item.values],
        "textposition": "auto",
        "marker": {"color": _colour(item.slot)},
        "hoverinfo": "text+name",
        "hovertext": [number(value) for value in item.values],
    }


def _heatmap(item: Heatmap, figure: Figure) -> dict[str, Any]:
    cells = [[_cell(value, item.log) for value in row] for row in item.z]
    shown = [value for row in cells for value in row if value is not None]
    bar: dict[str, Any] = {
        "thickness": 12,
        "outlinewidth": 0,
        "title": {"text": html.escape(item.label), "side": "right", "font": {"size": 13}},
    }
    if item.log and shown:
        places, labels = ticks(Axis("", "log"), 10 ** min(shown), 10 ** max(shown))
        bar |= {"tickvals": [math.log10(place) for place in places], "ticktext": labels}
    return {
        "type": "heatmap",
        "x": list(range(len(figure.x.categories))),
        "y": list(range(len(figure.y.categories))),
        "z": cells,
        "colorscale": "Cividis",
        "colorbar": bar,
        "text": [[number(value, 2) for value in row] for row in item.z],
        "texttemplate": "%{text}",
        "textfont": {"size": 11},
        "xgap": 1,
        "ygap": 1,
        "hoverinfo": "text",
    }


def _cell(value: float, log: bool) -> float | None:
    if not math.isfinite(value) or (log and value <= 0):
        return None
    return math.log10(value) if log else value


def _guide_line(guide: Guide) -> dict[str, Any]:
    along = {"x0": guide.at, "x1": guide.at, "y0": 0, "y1": 1, "xref": "x", "yref": "paper"}
    across = {"y0": guide.at, "y1": guide.at, "x0": 0, "x1": 1, "xref": "paper", "yref": "y"}
    place = along if guide.direction == "vertical" else across
    return {"type": "line", "line": {"color": GUIDE, "width": 1.2, "dash": "dot"}} | place


def _guide_label(guide: Guide, figure: Figure) -> dict[str, Any]:
    axis = figure.x if guide.direction == "vertical" else figure.y
    at = math.log10(guide.at) if axis.scale == "log" and guide.at > 0 else guide.at
    common = {"text": html.escape(guide.label), "showarrow": False, "font": {"size": 11.5}}
    if guide.direction == "horizontal":
        return common | {"x": 0.995, "xref": "paper", "xanchor": "right", "y": at, "yref": "y", "yanchor": "top"}
    low, high = extent(figure, "x")
    span = (math.log10(low), math.log10(high)) if axis.scale == "log" else (low, high)
    anchor = "right" if at > sum(span) / 2 else "left"
    shift = -4 if anchor == "right" else 4
    return common | {
        "x": at,
        "xref": "x",
        "xanchor": anchor,
        "xshift": shift,
        "y": 0.01,
        "yref": "paper",
        "yanchor": "bottom",
    }


def _colour(slot: int) -> str:
    return PALETTE[slot % len(PALETTE)]


def _symbol(slot: int) -> str:
    return SYMBOLS[slot % len(SYMBOLS)]


def _rgba(slot: int, opacity: float) -> str:
    red, green, blue = (int(_colour(slot)[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"
