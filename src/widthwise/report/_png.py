"""Draw a figure with Matplotlib, for PNG files."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas

from widthwise.core import Axis, Band, Bars, Figure, Guide, Heatmap, Line, Points, atomic_path
from widthwise.report._figure import PALETTE, extent, segments, ticks
from widthwise.report._numbers import number, shorten, wrap

MARKERS = ("o", "s", "D", "^", "X", "*")
INK, GRID, GUIDE = "#1B1F24", "#E3E6EA", "#7A828C"
LEGEND_CHARACTERS, MARKER_CHARACTERS = 100, 6  # what a row of the legend holds; what a marker and its gap take


def to_png(figure: Figure, path: str | Path, *, dpi: int = 150) -> Path:
    """Draw `figure` into a PNG file of about 1200 x 750 pixels; nothing global in Matplotlib is touched.

    Raises:
        OutputError: the file cannot be written.
    """
    bars = [item for item in figure.series if isinstance(item, Bars)]
    lines = max((len(wrap(name)) for name in figure.y.categories), default=1)
    height = max(3.0, 1.6 + max(0.62, 0.19 * lines) * len(figure.y.categories)) if bars else 5.0
    canvas = Canvas(figsize=(8.0, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(canvas)
    axes = canvas.add_subplot()
    _frame(axes, figure, bool(bars))
    for place, item in enumerate(figure.series):
        _draw(axes, item, figure, zorder=2 + place, rank=bars.index(item) if item in bars else 0, of=len(bars))
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        columns = legend_columns([str(label) for label in labels])
        canvas.legend(handles, labels, loc="outside lower left", ncols=columns, frameon=False, fontsize=9.5)
    with atomic_path(path) as temporary:
        canvas.savefig(
            temporary, dpi=dpi, format="png", metadata={"Title": figure.title, "Description": figure.caption}
        )
    return Path(path)


def legend_columns(labels: list[str]) -> int:
    """As many columns as fit side by side, in rows of equal length where that takes no more rows."""
    fitting = max(1, min(len(labels), LEGEND_CHARACTERS // (max(map(len, labels)) + MARKER_CHARACTERS)))
    rows = -(-len(labels) // fitting)
    return -(-len(labels) // rows)


def _plain(text: str) -> str:
    return text.replace("$", r"\$")


def _frame(axes: Axes, figure: Figure, bars: bool) -> None:
    axes.set_title(_plain(figure.title), loc="left", fontsize=12.5, fontweight="bold", color=INK, pad=10)
    axes.set_xlabel(_plain(figure.x.label), color=INK)
    axes.set_ylabel(_plain(figure.y.label), color=INK)
    _scale(axes, figure, "x")
    _scale(axes, figure, "y")
    if bars:
        axes.invert_yaxis()
    if not any(isinstance(item, Heatmap) for item in figure.series):
        axes.grid(True, color=GRID, linewidth=0.8, axis="x" if bars else "both")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK, labelsize=9.5)


def _scale(axes: Axes, figure: Figure, which: str) -> None:
    axis: Axis = figure.x if which == "x" else figure.y
    handle = axes.xaxis if which == "x" else axes.yaxis
    set_limits = axes.set_xlim if which == "x" else axes.set_ylim
    if axis.scale == "category":
        places, labels = ticks(axis, 0, 0)
        long = which == "x" and max((len(label) for label in labels), default=0) * len(labels) > 70
        handle.set_ticks(
            places, [_plain(shorten(label, 26) if which == "x" else "\n".join(wrap(label))) for label in labels]
        )
        if long:
            axes.tick_params(axis="x", rotation=38)
            for text in axes.get_xticklabels():
                text.set_horizontalalignment("right")
                text.set_rotation_mode("anchor")
        set_limits(-0.5, max(len(axis.categories), 1) - 0.5)
        return
    low, high = extent(figure, "x" if which == "x" else "y")
    (axes.set_xscale if which == "x" else axes.set_yscale)(axis.scale)
    places, labels = ticks(axis, low, high)
    handle.set_ticks(places, labels)
    handle.set_ticks([], minor=True)
    set_limits(low, high)


def _draw(axes: Axes, item: Any, figure: Figure, zorder: int, rank: int, of: int) -> None:
    match item:
        case Line():
            rows = segments(item.x, item.y, axes=(figure.x, figure.y))
            marker = MARKERS[item.slot % len(MARKERS)] if item.markers else None
            style = (0, (4, 2.6)) if item.dashed else "-"
            axes.plot(
                [row[0] for row in rows],
                [row[1] for row in rows],
                color=_colour(item.slot),
                linestyle=style,
                linewidth=1.9,
                marker=marker,
                markersize=4.5,
                zorder=zorder,
                label=_plain(item.name) or None,
            )
        case Points():
            _draw_points(axes, item, figure, zorder)
        case Band():
            rows = segments(item.x, item.low, item.high, axes=(figure.x, figure.y, figure.y))
            x, low, high = ([row[place] for row in rows] for place in range(3))
            opacity = 0.18 if item.light else 0.32
            axes.fill_between(x, low, high, color=_colour(item.slot), alpha=opacity, linewidth=0, zorder=zorder)
        case Bars():
            _draw_bars(axes, item, zorder, rank, of)
        case Heatmap():
            _draw_heatmap(axes, item)
        case Guide():
            _draw_guide(axes, item, figure)


def _draw_points(axes: Axes, item: Points, figure: Figure, zorder: int) -> None:
    errors = item.error or (0.0,) * len(item.x)
    error_at = dict(zip(zip(item.x, item.y, strict=True), errors, strict=True))
    rows = [(x, y) for x, y in segments(item.x, item.y, axes=(figure.x, figure.y))]
    bars = [error_at[row] if math.isfinite(error_at[row]) else 0.0 for row in rows]
    axes.errorbar(
        [row[0] for row in rows],
        [row[1] for row in rows],
        yerr=bars,
        color=_colour(item.slot),
        linestyle="none",
        marker=MARKERS[item.slot % len(MARKERS)],
        markersize=6,
        capsize=2.5,
        elinewidth=1.2,
        zorder=zorder,
        label=_plain(item.name) or None,
    )


def _draw_bars(axes: Axes, item: Bars, zorder: int, rank: int, of: int) -> None:
    thickness = 0.68 / max(of, 1)
    offset = (rank - (of - 1) / 2) * thickness
    values = [value if math.isfinite(value) else 0.0 for value in item.values]
    places = [place + offset for place in range(len(values))]
    drawn = axes.barh(
        places, values, height=thickness * 0.92, color=_colour(item.slot), zorder=zorder, label=_plain(item.name)
    )
    axes.bar_label(drawn, [number(value) for value in item.values], padding=3, fontsize=9, color=INK)


def _draw_heatmap(axes: Axes, item: Heatmap) -> None:
    z = np.array(item.z, dtype=float)
    if item.log:
        z = np.where(z > 0, z, np.nan)
        z = np.log10(z)
    image = axes.imshow(z, cmap="cividis", aspect="auto", origin="lower")
    low, high = (float(np.nanmin(z)), float(np.nanmax(z))) if np.isfinite(z).any() else (0.0, 1.0)
    bar = axes.figure.colorbar(image, ax=axes, label=_plain(item.label), pad=0.02)
    if item.log:
        places, labels = ticks(Axis("", "log"), 10**low, 10**high)
        bar.set_ticks([math.log10(place) for place in places], labels=labels)
        bar.ax.minorticks_off()
    bar.outline.set_visible(False)
    middle = (low + high) / 2
    for i, row in enumerate(item.z):
        for j, value in enumerate(row):
            if math.isfinite(z[i, j]):
                ink = "black" if z[i, j] > middle else "white"
                axes.text(j, i, number(value, 2), ha="center", va="center", fontsize=8.5, color=ink)


def _draw_guide(axes: Axes, guide: Guide, figure: Figure) -> None:
    label = _plain(guide.label)
    if guide.direction == "horizontal":
        axes.axhline(guide.at, color=GUIDE, linewidth=1.1, linestyle=":", zorder=1.5)
        where = axes.get_yaxis_transform()
        axes.text(0.992, guide.at, label, transform=where, ha="right", va="top", fontsize=9, color=INK)
        return
    axes.axvline(guide.at, color=GUIDE, linewidth=1.1, linestyle=":", zorder=1.5)
    low, high = extent(figure, "x")
    log = figure.x.scale == "log"
    middle = math.sqrt(low * high) if log else (low + high) / 2
    side = "right" if guide.at > middle else "left"
    text = f"{label} " if side == "right" else f" {label}"
    axes.text(guide.at, 0.015, text, transform=axes.get_xaxis_transform(), ha=side, va="bottom", fontsize=9, color=INK)


def _colour(slot: int) -> str:
    return PALETTE[slot % len(PALETTE)]
