"""The commands."""

from widthwise.cli._app import app, main

__all__ = ["app", "main"]
