"""Threads that stay: starting one takes as long as a small matrix."""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock, local

import numpy as np

from widthwise.kernels.engines._tokens_blocks import REGISTER_BYTES

KEPT_BYTES = 1 << 24

_lock, _rooms = Lock(), local()
_pools: list[tuple[int, ThreadPoolExecutor]] = []


def together(work: Callable[[], None], threads: int) -> None:
    """Call `work` in so many threads at once, this one among them; what one raises is raised."""
    others = _start(work, threads - 1) if threads > 1 else []
    try:
        work()
    finally:
        for other in others:
            if not other.cancel():
                other.result()


def _start(work: Callable[[], None], count: int) -> list[Future]:
    with _lock:
        if not _pools or _pools[-1][0] < count:
            while _pools:
                _pools.pop()[1].shutdown(wait=False)
            _pools.append((count, ThreadPoolExecutor(count, "widthwise-tokens")))
        return [_pools[-1][1].submit(work) for _ in range(count)]


def _after_fork() -> None:
    """A child process has none of its parent's threads."""
    global _lock
    _lock = Lock()
    _pools.clear()


os.register_at_fork(after_in_child=_after_fork)


def room(count: int, real: np.dtype) -> np.ndarray:
    """Space for `count` numbers that begins where a vector register's worth of memory does; a thread keeps its own."""
    kept: dict[str, np.ndarray] = _rooms.__dict__
    found = kept.get(real.str)
    if found is None or found.size < count:
        found = aligned(count, real)
        if found.nbytes <= KEPT_BYTES:
            kept[real.str] = found
    return found[:count]


def aligned(count: int, real: np.dtype) -> np.ndarray:
    """New space that begins where a vector register's worth of memory does."""
    spare = REGISTER_BYTES // real.itemsize
    found = np.empty(count + spare, real)
    start = (-found.ctypes.data % REGISTER_BYTES) // real.itemsize
    return found[start : start + count]
