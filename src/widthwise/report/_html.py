"""The page: one self-contained HTML file that opens without a network."""

import base64
import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import plotly.offline
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from widthwise.core import Figure, write_text
from widthwise.forecast._types import Forecast
from widthwise.report._forecast_figures import figures
from widthwise.report._plotly import to_plotly
from widthwise.report._sections import sections, tiles
from widthwise.report._words import size, title


def write_html(forecast: Forecast, path: str | Path) -> Path:
    """Write the report of `forecast` as one HTML file (about 2 MB, most of it Plotly's own code, compressed).

    It loads nothing from the network, follows the reader's light or dark scheme, and fits a phone. Names in the
    forecast are escaped.

    Raises:
        OutputError: the file cannot be written.
    """
    text = render(
        kind="Widthwise forecast",
        generator=f"widthwise, forecast schema {forecast.schema_version}",
        title=title(forecast),
        tab=f"{title(forecast)}: forecast",
        size=size(forecast),
        tiles=tiles(forecast),
        sections=sections(forecast),
        figures=figures(forecast),
        beside="forecast.json",
    )
    write_text(path, text)
    return Path(path)


def render(*, figures: dict[str, Figure], **parts: Any) -> str:
    """A page of sections: kind of page, generator, title, tab, size (a sentence), tiles, sections, and `beside`, the
    file that holds the same numbers."""
    page = _environment().get_template("forecast.html.j2")
    return page.render(figures=figures, charts=charts_json(figures), plotly=plotly_code(), **parts)


def charts_json(drawn: dict[str, Figure]) -> Markup:
    """What the page hands to Plotly, safe inside a script element: no ``<``, no NaN."""
    specs: dict[str, Any] = {name: json.loads(to_plotly(figure).to_json()) for name, figure in drawn.items()}
    return Markup(script_json(specs))


def script_json(value: Any) -> str:
    """JSON that cannot end the script element it stands in.

    >>> script_json({"a": "</script>"})
    '{"a":"\\\\u003c/script\\\\u003e"}'
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def plotly_code() -> Markup:
    """Plotly's JavaScript, compressed and in base64: a third of the size of the plain text."""
    code = plotly.offline.get_plotlyjs().encode()
    return Markup(base64.b64encode(gzip.compress(code, compresslevel=9, mtime=0)).decode())


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("widthwise.report"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
