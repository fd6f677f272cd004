"""Progress bars for long work, on standard error, silent where no terminal listens."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Advance = Callable[[float], None]
"""Called with the amount of work that has just been done."""

_active: list[Progress] = []


@contextmanager
def progress(description: str, total: float, *, show: bool = True) -> Iterator[Advance]:
    """Show a bar while the block runs; the block calls the yielded function with each amount done.

    Nested calls add a line to the bar that is already on screen.

    >>> with progress("tiles", 3, show=False) as advance:
    ...     advance(1)
    """
    if not show or not sys.stderr.isatty():
        yield lambda amount: None
        return
    if _active:
        bars = _active[-1]
        task = bars.add_task(description, total=total)
        try:
            yield lambda amount: bars.advance(task, amount)
        finally:
            bars.remove_task(task)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as bars:
        task = bars.add_task(description, total=total)
        _active.append(bars)
        try:
            yield lambda amount: bars.advance(task, amount)
        finally:
            _active.pop()
