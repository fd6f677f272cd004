"""`forecast.json`: the forecast as strict JSON, with its schema."""

import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from widthwise.core import write_text
from widthwise.forecast._types import Forecast


def write_json(forecast: Forecast, path: str | Path) -> Path:
    """Write `forecast` as JSON (schema version 1); numbers that are not finite become null.

    Raises:
        OutputError: the file cannot be written.
    """
    write_text(path, json.dumps(forecast.to_dict(), indent=1, allow_nan=False, ensure_ascii=False) + "\n")
    return Path(path)


@cache
def _schema_text() -> str:
    return files("widthwise.report").joinpath("templates", "forecast.schema.json").read_text(encoding="utf-8")


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of `forecast.json`."""
    return json.loads(_schema_text())
