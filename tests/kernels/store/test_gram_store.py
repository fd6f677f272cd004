"""The store is the matrix: every way of reading it agrees with the limit itself; damage and mixing are refused."""

import errno
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from torch import nn

import widthwise as ww
from widthwise.core import DataError, OutputError, ResourceError
from widthwise.kernels import GramStore
from widthwise.kernels.store import _fill, _format


def network(sigma: float = 1.0, depth: int = 1) -> nn.Sequential:
    torch.manual_seed(0)
    hidden = [layer for _ in range(depth) for layer in (nn.Linear(32, 32), nn.ReLU())]
    net = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), *hidden, nn.Linear(32, 1))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(sigma)
    return net


X = torch.randn(37, 6, generator=torch.Generator().manual_seed(1))
Z = torch.randn(11, 6, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def limit() -> ww.Limit:
    return ww.infinite(ww.trace(network(), X[:2]))


@pytest.fixture
def store(limit: ww.Limit, tmp_path: Path) -> GramStore:
    made = GramStore.create(tmp_path / "gram.zarr", limit, X, kernels=("ntk", "nngp"), dtype="float64", tile=10)
    made.fill()
    return made


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a @ b.T


def other_product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return 2.0 * a @ b.T


def test_every_way_of_reading_agrees_with_the_limit(store: GramStore, limit: ww.Limit) -> None:
    for name, whole in zip(("nngp", "ntk"), limit(X), strict=True):
        read, k = store.kernel(name), whole.numpy()
        assert np.allclose(np.asarray(read), k, rtol=1e-13)
        assert np.array_equal(np.asarray(read), np.asarray(read).T)
        full = np.asarray(read)
        for rows in (slice(None), slice(3, 25), slice(30, None, 2), [5, 36, 0], np.arange(37) % 3 == 0, -1):
            for columns in (slice(8, 12), [36, 2, 2], 7):
                part = full[rows][..., columns]
                assert np.array_equal(read[rows, columns], part)
        assert np.array_equal(read[4], full[4])
        assert np.array_equal(read.diagonal(), np.diagonal(full))
        for v in (np.ones(37), np.random.default_rng(0).standard_normal((37, 3))):
            assert np.allclose(read @ v, full @ v, rtol=1e-12)


def test_only_the_upper_half_is_on_disk_and_plain_zarr_reads_it(store: GramStore) -> None:
    chunks = {path.relative_to(store.path / "ntk" / "c").as_posix() for path in (store.path / "ntk" / "c").glob("*/*")}
    assert chunks == {f"{i}/{j}" for i in range(4) for j in range(i, 4)}
    plain = zarr.open_group(store.path, mode="r")["ntk"][:]
    upper = np.triu_indices(37)
    assert np.array_equal(plain[upper], np.asarray(store)[upper])
    assert np.isnan(plain[36, 0])


def test_rectangular_store(limit: ww.Limit, tmp_path: Path) -> None:
    made = GramStore.create(tmp_path / "test.zarr", limit, Z, X, dtype="float32", tile=8)
    assert made.fill().computed == 2 * 5
    whole = limit(Z, X).ntk.numpy()
    assert np.allclose(np.asarray(made), whole, rtol=1e-5)
    v = np.random.default_rng(0).standard_normal((37, 2))
    assert np.allclose(made @ v, whole @ v, atol=1e-5 * np.abs(whole).max() * 37)


def test_a_filled_store_computes_nothing_again(store: GramStore, limit: ww.Limit) -> None:
    again = GramStore.create(store.path, limit, X, kernels=("ntk", "nngp"), dtype="float64")
    assert again.complete and again.fill().computed == 0
    assert GramStore.open(store.path, "nngp").shape == (37, 37)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"kernel": network(sigma=2.0)}, "another model"),
        ({"kernel": network(depth=2)}, "another model"),
        ({"x1": X + 1e-3}, "another data set"),
        ({"x1": X[:30]}, "another data set"),
        ({"dtype": "float32"}, "another dtype"),
        ({"kernels": ("ntk",)}, "another choice of kernels"),
        ({"parametrization": "standard"}, "another model"),
        ({"tile": 7}, "tiles of side 10 and 7"),
    ],
)
def test_a_store_of_something_else_is_refused(store: GramStore, change: dict, what: str) -> None:
    options = {"kernel": network(), "x1": X, "kernels": ("ntk", "nngp"), "dtype": "float64"}
    GramStore.create(store.path, **options)
    with pytest.raises(OutputError, match=what):
        GramStore.create(store.path, **(options | change))


def test_a_store_of_another_version_is_refused(store: GramStore, limit: ww.Limit) -> None:
    file = store.path / "zarr.json"
    header = json.loads(file.read_text())
    header["attributes"]["widthwise"]["fingerprint"]["version"] = "0.0.1"
    file.write_text(json.dumps(header))
    with pytest.raises(OutputError, match=r"another version of widthwise \(0.0.1 there"):
        GramStore.create(store.path, limit, X, kernels=("ntk", "nngp"), dtype="float64")


def test_frozen_weights_are_another_model(store: GramStore) -> None:
    frozen = network()
    frozen[0].weight.requires_grad_(False)
    with pytest.raises(OutputError, match="another model"):
        GramStore.create(store.path, frozen, X, kernels=("ntk", "nngp"), dtype="float64")


def test_functions_are_told_apart_by_name_and_by_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, path = X.numpy(), tmp_path / "gram.zarr"
    made = GramStore.create(path, product, x, dtype="float64", tile=16)
    made.fill()
    assert np.allclose(np.asarray(made), x @ x.T, rtol=1e-6)
    with pytest.raises(OutputError, match="another model"):
        GramStore.create(path, other_product, x, dtype="float64")
    monkeypatch.setattr(other_product, "__qualname__", "product")
    with pytest.raises(OutputError, match="another kernel function"):
        GramStore.create(path, other_product, x, dtype="float64")


def test_a_damaged_tile_is_refused_in_reading_and_computed_again_in_filling(store: GramStore, limit: ww.Limit) -> None:
    before = np.asarray(store)
    file = store.path / "ntk" / "c" / "1" / "2"
    spoiled = bytearray(file.read_bytes())
    spoiled[100] ^= 1
    file.write_bytes(spoiled)
    fresh = GramStore.open(store.path)
    assert fresh.damaged() == [(1, 2)]
    assert fresh[0, 0] == before[0, 0]
    with pytest.raises(DataError, match=r"tile \(1, 2\) .* does not match its checksum"):
        np.asarray(fresh)
    (store.path / "ntk" / "c" / "0" / "3").write_bytes(b"short")
    (store.path / "nngp" / "c" / "3" / "3").unlink()
    again = GramStore.create(store.path, limit, X, kernels=("ntk", "nngp"), dtype="float64")
    report = again.fill()
    assert (report.computed, report.repaired, report.kept) == (3, 3, 7)
    assert np.array_equal(np.asarray(again), before)


def test_a_torn_ledger_line_costs_its_own_tile_only(store: GramStore, limit: ww.Limit) -> None:
    ledger = store.path / "ledger.jsonl"
    text = ledger.read_bytes()
    ledger.write_bytes(text[:-7])
    again = GramStore.create(store.path, limit, X, kernels=("ntk", "nngp"), dtype="float64")
    assert again.finished == 9
    assert again.fill().computed == 1
    assert ledger.read_bytes() == text


def test_a_full_disk_in_the_middle_keeps_what_is_finished(
    limit: ww.Limit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = GramStore.create(tmp_path / "gram.zarr", limit, X, tile=10)
    write, written = _format.Chunks.write, []

    def full_after_four(self: _format.Chunks, tile: tuple, values: np.ndarray) -> None:
        if len(written) == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(tile)
        write(self, tile, values)

    monkeypatch.setattr(_format.Chunks, "write", full_after_four)
    with pytest.raises(OutputError, match=r"the disk is full after 4 of 10 tiles .* free 0\.00 GiB and run the same"):
        made.fill()
    monkeypatch.undo()
    report = GramStore.create(tmp_path / "gram.zarr", limit, X).fill()
    assert (report.kept, report.computed) == (4, 6)


def test_too_small_a_disk_is_known_before_the_work(
    limit: ww.Limit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = GramStore.create(tmp_path / "gram.zarr", limit, X, tile=10)
    monkeypatch.setattr(_fill.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 999, 999))
    with pytest.raises(ResourceError, match="10 missing tiles"):
        made.fill()


def test_an_unfinished_store_says_so_when_read(limit: ww.Limit, tmp_path: Path) -> None:
    made = GramStore.create(tmp_path / "gram.zarr", limit, X, tile=10)
    with pytest.raises(DataError, match="0 of 10 tiles"):
        made[0, 0]
    with pytest.raises(DataError, match="opened to be read"):
        GramStore.open(tmp_path / "gram.zarr").fill()


def test_one_process_writes(store: GramStore, limit: ww.Limit) -> None:
    second = GramStore.create(store.path, limit, X, kernels=("ntk", "nngp"), dtype="float64")
    with store.ledger.writing(), pytest.raises(OutputError, match="another process is writing"):
        second.fill()


def test_other_folders_are_left_alone(limit: ww.Limit, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="is no Gram store"):
        GramStore.create(tmp_path, limit, X)
    with pytest.raises(DataError, match="is no Gram store"):
        GramStore.open(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        GramStore.open(tmp_path / "nowhere.zarr")


@pytest.mark.parametrize(
    ("kernel", "options", "what"),
    [
        (3, {}, "a int is no kernel"),
        (product, {"dtype": "float16"}, "dtype float16"),
        (product, {"kernels": ("ntkk",)}, "kernel 'ntkk' is not known"),
        (product, {"kernels": ("ntk", "nngp")}, "gives one kernel"),
        (product, {"tile": 0}, "tile of side 0"),
        (lambda a, b: a, {}, r"shape \[37, 6\]|of shape \[2, 6\]"),
    ],
)
def test_bad_requests_are_one_sentence(kernel: object, options: dict, what: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=what) as caught:
        GramStore.create(tmp_path / "gram.zarr", kernel, X.numpy(), **options)
    assert not re.search(r"\n", str(caught.value))


def test_entries_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    made = GramStore.create(tmp_path / "gram.zarr", lambda a, b: product(a, b) * np.inf, X.numpy(), tile=10)
    with pytest.raises(DataError, match="not finite in tile"):
        made.fill()


def test_ray_that_is_missing_is_one_sentence(limit: ww.Limit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = GramStore.create(tmp_path / "gram.zarr", limit, X, tile=10)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DataError, match=r"pip install 'widthwise\[ray\]'"):
        made.fill("ray")
    with pytest.raises(DataError, match="engine 'spark' is not known"):
        made.fill("spark")


def test_the_diagonal_of_a_source_is_that_of_its_matrix(limit: ww.Limit) -> None:
    from widthwise.kernels.store import as_source

    for kernel in (limit, lambda a, b: limit(a, b)):
        for name in ("ntk", "nngp"):
            source = as_source(kernel, X, (name,), torch.float64)
            assert np.allclose(source.diagonal(X)[name], np.diagonal(source(X, None)[name]), rtol=1e-12)
