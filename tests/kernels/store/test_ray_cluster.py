"""Tiles from a cluster of two nodes are bit for bit those of one process."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.kernels.store.test_gram_store import X, Z, network
from widthwise.core import DataError
from widthwise.kernels import GramStore

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes.add_node(num_cpus=1)
    root = str(Path(__file__).parents[3])
    ray.init(address=nodes.address, runtime_env={"env_vars": {"PYTHONPATH": root}}, log_to_driver=False)
    yield ray
    ray.shutdown()
    nodes.shutdown()


def not_finite(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    raise DataError("these inputs have no kernel; give others.")


def test_same_numbers_bit_for_bit(cluster, tmp_path: Path) -> None:
    assert sum(node["Alive"] for node in cluster.nodes()) == 2
    conv = torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        torch.nn.Linear(16, 2),
    )  # fmt: skip
    images = torch.randn(23, 1, 6, 6, generator=torch.Generator().manual_seed(3))
    for name, kernel, x1, x2 in (("mlp", network(), X, None), ("test", network(), Z, X), ("conv", conv, images, None)):
        options = {"kernels": ("ntk", "nngp"), "dtype": "float32", "tile": 6}
        one = GramStore.create(tmp_path / f"{name}-local.zarr", kernel, x1, x2, **options)
        many = GramStore.create(tmp_path / f"{name}-ray.zarr", kernel, x1, x2, **options)
        assert one.fill("local").computed == many.fill("ray").computed == one.layout.count
        assert np.array_equal(np.asarray(one), np.asarray(many))
        assert one.ledger.done == many.ledger.done


def test_a_store_begun_by_one_engine_is_finished_by_the_other(cluster, tmp_path: Path) -> None:
    path = tmp_path / "gram.zarr"
    store = GramStore.create(path, network(), X, tile=8)
    store.fill()
    before = np.asarray(store)
    shutil.rmtree(path / "ntk" / "c" / "1")
    report = GramStore.create(path, network(), X).fill("ray")
    assert report.repaired == report.computed == 4
    assert np.array_equal(np.asarray(GramStore.open(path)), before)


def test_an_error_in_a_worker_is_the_users_sentence(cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = GramStore.create(tmp_path / "gram.zarr", lambda a, b: a @ b.T, X.numpy(), tile=8)
    store._work.source.function = not_finite
    with pytest.raises(DataError, match="these inputs have no kernel"):
        store.fill("ray")
