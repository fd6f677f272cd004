"""Run as a script: a local cluster of two nodes computes stores; prints what came out as JSON.

A script of its own, because the run-time type checks of the test process wrap functions in a way that cannot be sent.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import ray
import torch
from ray.cluster_utils import Cluster
from torch import nn

from widthwise.core import DataError
from widthwise.kernels import GramStore

FOLDER = Path(sys.argv[1]) if __name__ == "__main__" else Path()


def networks() -> dict[str, tuple[nn.Module, torch.Tensor, torch.Tensor | None]]:
    """Modules with their inputs."""
    draws = torch.Generator().manual_seed(3)
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 1))
    conv = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2))
    rows, others = torch.randn(37, 6, generator=draws), torch.randn(11, 6, generator=draws)
    images = torch.randn(23, 1, 6, 6, generator=draws)
    return {"dense": (dense, rows, None), "rectangle": (dense, others, rows), "conv": (conv, images, None)}


def both_engines(name: str, kernel: nn.Module, x1: torch.Tensor, x2: torch.Tensor | None) -> bool:
    """Whether both engines give the same bits."""
    options = {"kernels": ("ntk", "nngp"), "dtype": "float32", "tile": 6}
    one = GramStore.create(FOLDER / f"{name}-local.zarr", kernel, x1, x2, **options)
    many = GramStore.create(FOLDER / f"{name}-ray.zarr", kernel, x1, x2, **options)
    counts = one.fill("local").computed, many.fill("ray").computed
    same = np.array_equal(np.asarray(one), np.asarray(many)) and one.ledger.done == many.ledger.done
    return bool(same and counts == (one.layout.count,) * 2)


def finished_by_the_other(kernel: nn.Module, x: torch.Tensor) -> list:
    """Tiles repaired and computed by Ray in a store that was begun in one process, and whether nothing changed."""
    store = GramStore.create(FOLDER / "mixed.zarr", kernel, x, tile=8)
    store.fill()
    before = np.asarray(store)
    shutil.rmtree(store.path / "ntk" / "c" / "1")
    report = GramStore.create(store.path, kernel, x).fill("ray")
    return [report.repaired, report.computed, bool(np.array_equal(np.asarray(GramStore.open(store.path)), before))]


def worker_error(x: np.ndarray) -> str:
    """What the user reads when a kernel raises in a worker."""

    def raises(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        if len(a) == 8:
            raise DataError("these inputs have no kernel; give others.")
        return a @ b.T

    try:
        GramStore.create(FOLDER / "raises.zarr", raises, x, tile=8).fill("ray")
    except DataError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes.add_node(num_cpus=1)
    ray.init(address=nodes.address, log_to_driver=False)
    cases = networks()
    result = {"nodes": sum(node["Alive"] for node in ray.nodes())}
    result |= {name: both_engines(name, *case) for name, case in cases.items()}
    result["mixed"] = finished_by_the_other(*cases["dense"][:2])
    result["error"] = worker_error(cases["dense"][1].numpy())
    print(json.dumps(result))
    ray.shutdown()
    nodes.shutdown()
