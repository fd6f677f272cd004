"""Tiles on a Ray cluster: the same function as in one process, called by tasks; one process writes."""

import io
import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import torch

from widthwise.core import DataError, WidthwiseError
from widthwise.kernels.store._layout import Layout, Tile
from widthwise.kernels.store._source import Blocks

if TYPE_CHECKING:
    from widthwise.kernels.store._fill import Work


def ray_tiles(work: "Work", layout: Layout, todo: Sequence[Tile], threads: int) -> Iterator[tuple[Tile, Blocks]]:
    """Tiles in the order in which they are finished, at most two per worker under way.

    A cluster that is already connected (or named by RAY_ADDRESS) is used, else one on this machine. Its machines need
    widthwise installed.

    Raises:
        DataError: Ray is not installed.
    """
    try:
        import ray
    except ImportError:
        raise DataError(
            "engine 'ray' needs Ray, which is not installed; run pip install 'widthwise[ray]', or use engine 'local'."
        ) from None
    own = not ray.is_initialized()
    if own:
        ray.init(log_to_driver=False, include_dashboard=False, configure_logging=False)
    try:
        yield from _spread(ray, work, layout, todo, threads)
    finally:
        if own and "RAY_ADDRESS" not in os.environ:
            ray.shutdown()


def _spread(
    ray: Any, work: "Work", layout: Layout, todo: Sequence[Tile], threads: int
) -> Iterator[tuple[Tile, Blocks]]:
    largest = max((int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]), default=1)
    task = ray.remote(num_cpus=max(1, min(threads, largest)), max_retries=3)(_compute)
    payload = ray.put(_packed((work, layout), ray.cloudpickle))
    window = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    waiting = list(reversed(todo))
    running: dict[Any, Tile] = {}
    while waiting or running:
        while waiting and len(running) < window:
            tile = waiting.pop()
            running[task.remote(payload, tile, threads)] = tile
        ready, _ = ray.wait(list(running), num_returns=1)
        for reference in ready:
            tile = running.pop(reference)
            try:
                yield tile, ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                cause = getattr(error, "cause", None)
                raise cause if isinstance(cause, WidthwiseError) else error from None


def _compute(payload: bytes, tile: Tile, threads: int) -> Blocks:
    """What a worker does: one tile, with as many threads as in one process, so that the numbers are the same."""
    torch.set_num_threads(threads)
    work, layout = _unpacked(payload)
    return work.tile(layout, tile)


@lru_cache(maxsize=2)
def _unpacked(payload: bytes) -> Any:
    from ray import cloudpickle

    return cloudpickle.loads(payload)


def _packed(value: Any, cloudpickle: Any) -> bytes:
    """Bytes for workers of the same cluster; a traced program holds operators, which are sent by name."""

    class Pickler(cloudpickle.CloudPickler):
        def reducer_override(self, item: Any) -> Any:
            if isinstance(item, torch._ops.OpOverload):
                return _operator, (str(item),)
            return super().reducer_override(item)

    file = io.BytesIO()
    Pickler(file).dump(value)
    return file.getvalue()


def _operator(name: str) -> Any:
    return attrgetter(name)(torch.ops)
