"""Deep recursion: a long sequence is a deep expression."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

DEPTH = 1_000_000
"""Frames allowed while an expression is evaluated: about ten for each layer or time step."""


@contextmanager
def deep_recursion() -> Iterator[None]:
    """Allow as many frames as a long sequence needs: calls between Python functions take no C stack."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, DEPTH))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)
