"""Files in the real formats, written by other libraries and read back."""

import string

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from widthwise.core import DataError
from widthwise.data import load

round_trip = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
tables = hnp.arrays(np.float64, st.tuples(st.integers(2, 20), st.integers(1, 5)), elements=st.floats(-1e5, 1e5)).filter(
    lambda table: table.min() != table.max()
)
labels = st.lists(st.text(string.ascii_letters, min_size=1), min_size=2, max_size=5, unique=True)


def labelled(table: np.ndarray, names: list[str]) -> np.ndarray:
    return np.array([names[i % 2] for i in range(len(table))])


@round_trip
@given(tables, labels)
def test_npz_round_trip(tmp_path, table, names):
    np.savez(tmp_path / "a.npz", inputs=table, labels=labelled(table, names))
    data = load(tmp_path / "a.npz", standardise=None)
    np.testing.assert_allclose(data.inputs.numpy(), table.astype(np.float32))
    assert [data.classes[i] for i in data.targets] == labelled(table, names).tolist()


@round_trip
@given(tables, labels, st.sampled_from(["csv", "tsv", "parquet"]))
def test_table_round_trip(tmp_path, table, names, suffix):
    frame = pd.DataFrame(table, columns=[f"feature {i}" for i in range(table.shape[1])])
    frame.insert(0, "label", ["_" + label for label in labelled(table, names)])
    path = tmp_path / f"a.{suffix}"
    if suffix == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="," if suffix == "csv" else "\t")
    data = load(str(path), standardise=None)
    np.testing.assert_allclose(data.inputs.numpy(), table.astype(np.float32), rtol=1e-6)
    assert [data.classes[i] for i in data.targets] == ["_" + label for label in labelled(table, names)]
    assert "target column 'label'" in data.source


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {"age": rng.integers(20, 60, 30), "fit": rng.random(30) > 0.5, "y": rng.random(30), "z": rng.random(30)}
    )


def test_the_target_column_is_the_named_one_or_y_or_the_last(tmp_path):
    path, other = tmp_path / "a.csv", tmp_path / "b.csv"
    frame().to_csv(path, index=False)
    frame().drop(columns="y").to_csv(other, index=False)
    np.testing.assert_allclose(load(path).targets[:, 0].numpy(), frame()["y"], rtol=1e-6)
    np.testing.assert_allclose(load(other).targets[:, 0].numpy(), frame()["z"], rtol=1e-6)
    assert load(path, target="fit").classes == ("False", "True")
    assert load(path, target="fit").input_shape == (3,)


def test_a_csv_without_header_keeps_its_first_row(tmp_path):
    values = np.column_stack([np.arange(6.0), np.arange(6.0) ** 2, np.arange(6) % 2])
    np.savetxt(tmp_path / "a.csv", values, delimiter=",", fmt=["%g", "%g", "%d"])
    data = load(tmp_path / "a.csv", standardise=None)
    np.testing.assert_allclose(data.inputs.numpy(), values[:, :2])
    assert data.classes == ("0", "1") and "without a header" in data.source


def test_the_index_that_pandas_writes_is_no_feature(tmp_path):
    frame().iloc[::2].to_parquet(tmp_path / "a.parquet")
    assert load(tmp_path / "a.parquet").input_shape == (3,)


def test_categories_are_labels(tmp_path):
    table = frame().assign(y=pd.Categorical(["low", "high"] * 15))
    table.to_parquet(tmp_path / "a.parquet")
    assert load(tmp_path / "a.parquet").classes == ("high", "low")


def test_keras_style_npz_has_a_held_out_part(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 6, 6), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", x_train=pixels, y_train=np.arange(20) % 4, x_test=pixels[:8], y_test=np.arange(8) % 4)
    data = load(tmp_path / "a.npz", standardise=None)
    np.testing.assert_allclose(data.test.inputs[:, 0].numpy(), pixels[:8] / 255, atol=1e-7)
    assert data.input_shape == (1, 6, 6)


def cifar_file(path, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Records as the data set's page describes: label, then 1024 red, 1024 green, 1024 blue bytes in row order."""
    rng = np.random.default_rng(seed)
    marks, pixels = rng.integers(0, 10, count), rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    with path.open("wb") as out:
        for mark, picture in zip(marks, pixels, strict=True):
            out.write(bytes([mark]) + b"".join(picture[:, :, plane].tobytes() for plane in range(3)))
    return marks, pixels


def test_cifar10_binary_files(tmp_path):
    first, second = cifar_file(tmp_path / "data_batch_1.bin", 12, 0), cifar_file(tmp_path / "data_batch_2.bin", 9, 1)
    held_out = cifar_file(tmp_path / "test_batch.bin", 5, 2)
    data = load(tmp_path, standardise=None)
    assert data.targets.tolist() == [*first[0], *second[0]] and data.test.targets.tolist() == list(held_out[0])
    expected = np.concatenate([first[1], second[1]]) / 255
    np.testing.assert_allclose(data.inputs.permute(0, 2, 3, 1).numpy(), expected, atol=1e-7)
    assert data.classes[3] == "cat"


def test_torn_cifar10_files_are_refused(tmp_path):
    path = tmp_path / "data_batch_1.bin"
    cifar_file(path, 3, 0)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"9218 bytes long.*3073.*again"):
        load(tmp_path)
    path.write_bytes(bytes([11]) + bytes(3072))
    with pytest.raises(DataError, match="label 11 in record 0"):
        load(tmp_path)


def picture_folder(root, colour: bool = True, size=(5, 4)) -> dict[str, np.ndarray]:
    rng, written = np.random.default_rng(0), {}
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for i in range(3):
            pixels = rng.integers(0, 256, (size[1], size[0], 3) if colour else (size[1], size[0]), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
            written[f"{name}/{i}"] = pixels
    return written


@pytest.mark.parametrize("colour", [True, False])
def test_image_folder(tmp_path, colour):
    written = picture_folder(tmp_path, colour)
    data = load(tmp_path, standardise=None)
    expected = np.stack(list(written.values())) / 255
    expected = np.moveaxis(expected, -1, 1) if colour else expected[:, None]
    np.testing.assert_allclose(data.inputs.numpy(), expected, atol=1e-7)
    assert data.classes == ("cat", "dog") and data.targets.tolist() == [0, 0, 0, 1, 1, 1]


def test_image_folder_with_official_parts(tmp_path):
    picture_folder(tmp_path / "train")
    picture_folder(tmp_path / "test")
    data = load(tmp_path)
    assert len(data) == len(data.test) == 6 and data.test.classes == ("cat", "dog")


def test_grey_images_among_coloured_ones_get_three_channels(tmp_path):
    picture_folder(tmp_path)
    Image.new("L", (5, 4), 51).save(tmp_path / "dog" / "grey.png")
    data = load(tmp_path, standardise=None)
    assert data.input_shape == (3, 4, 5) and data.inputs[-1].unique().tolist() == [pytest.approx(0.2)]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda root: Image.new("RGB", (7, 4)).save(root / "dog" / "1.png"), ["dog/1.png is 7x4", "5x4", "one size"]),
        (lambda root: (root / "cat" / "2.png").write_bytes(b"nothing"), ["cat/2.png cannot be read", "remove it"]),
        (lambda root: (root / "eel").mkdir(), ["eel holds no images", "subfolder"]),
        (lambda root: Image.new("I;16", (5, 4)).save(root / "cat" / "0.png"), ["cat/0.png", "8 bits"]),
    ],
)
def test_images_that_cannot_be_used_are_named(tmp_path, spoil, words):
    picture_folder(tmp_path)
    spoil(tmp_path)
    with pytest.raises(DataError) as error:
        load(tmp_path)
    assert all(word in str(error.value) for word in words), error.value


def test_torn_pixels_behind_a_good_header_are_found(tmp_path):
    picture_folder(tmp_path, size=(60, 50))
    path = tmp_path / "dog" / "2.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"dog/2\.png cannot be read"):
        load(tmp_path)
