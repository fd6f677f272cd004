"""Figures, the self-contained HTML page, `forecast.json`, and the terminal summary."""

from widthwise.core import Axis, Band, Bars, Figure, Guide, Heatmap, Line, Points, Series
from widthwise.report._forecast_figures import figures
from widthwise.report._html import write_html
from widthwise.report._json import json_schema, write_json
from widthwise.report._plotly import to_plotly
from widthwise.report._png import to_png
from widthwise.report._result import ForecastReport
from widthwise.report._richness_section import Richness
from widthwise.report._save import save
from widthwise.report._scale_page import save_scale, scale_page
from widthwise.report._terminal import summary, summary_text

__all__ = [
    "Axis",
    "Band",
    "Bars",
    "Figure",
    "ForecastReport",
    "Guide",
    "Heatmap",
    "Line",
    "Points",
    "Richness",
    "Series",
    "figures",
    "json_schema",
    "save",
    "save_scale",
    "scale_page",
    "summary",
    "summary_text",
    "to_plotly",
    "to_png",
    "write_html",
    "write_json",
]
