"""Write the whole report into a folder."""

from pathlib import Path

from widthwise.core import check_writable
from widthwise.forecast._types import Forecast
from widthwise.report._forecast_figures import figures
from widthwise.report._html import write_html
from widthwise.report._json import write_json
from widthwise.report._png import to_png


def save(forecast: Forecast, folder: str | Path) -> Path:
    """Write ``forecast.json``, ``figures/*.png`` and ``index.html`` into `folder`; return the path of the page.

    Each file is written in one step, the page last: a page that exists has everything beside it.

    Raises:
        OutputError: the folder cannot be written.
    """
    folder = check_writable(folder)
    write_json(forecast, folder / "forecast.json")
    for name, figure in figures(forecast).items():
        to_png(figure, folder / "figures" / f"{name}.png")
    return write_html(forecast, folder / "index.html")
