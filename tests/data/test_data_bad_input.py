"""Bad input: one sentence that names the value, the place and the mend."""

import numpy as np
import pandas as pd
import pytest
import torch

from widthwise.core import DataError
from widthwise.data import load

X, Y = np.random.default_rng(0).normal(size=(20, 3)), np.arange(20) % 2


def refused(source, words, **options) -> None:
    with pytest.raises(DataError) as error:
        load(source, **options)
    message = str(error.value)
    assert all(word in message for word in words), message
    assert "\n" not in message and message.endswith(".")


def spoiled(*places, value=np.nan, array=X) -> np.ndarray:
    array = array.astype(float)
    for place in places:
        array[place] = value
    return array


ARRAYS = {
    "nan input": ((spoiled((4, 2), (7, 0)), Y), ["2 NaN or infinite inputs", "index (4, 2)", "remove or fill"]),
    "infinite input": ((spoiled((0, 1), value=np.inf), Y), ["1 NaN or infinite", "index (0, 1)"]),
    "too large for float32": ((spoiled((0, 1), value=1e300), Y), ["1 NaN or infinite", "index (0, 1)"]),
    "nan target": ((X, spoiled(5, 9, array=Y)), ["2 NaN or infinite targets", "index 5", "remove or fill"]),
    "empty": ((X[:0], Y[:0]), ["arrays is empty", "(0, 3)"]),
    "no features": ((X[:, :0], Y), ["is empty", "(20, 0)"]),
    "one class": ((X, np.full(20, 7)), ["one class only ('7', 20 examples)", "at least two classes"]),
    "one label": ((X, np.full(20, "cat")), ["one class only ('cat'", "at least two classes"]),
    "one number": ((X, np.full(20, 1.5)), ["all 20 targets", "1.5", "targets that differ"]),
    "wrong length": ((X, Y[:17]), ["20 inputs and 17 targets", "one target for each input"]),
    "scalar target": ((X, 3), ["20 inputs and 1 targets"]),
    "constant inputs": ((np.full((20, 3), 2.5), Y), ["equal 2.5 (zero variance)", "inputs that differ"]),
    "constant tokens": ((np.full((20, 3), 2), Y), ["equal 2", "inputs that differ"]),
    "negative token": (
        (np.arange(60).reshape(20, 3) - 4, Y),
        ["token -4", "index (0, 0)", "convert the inputs to float"],
    ),
    "objects": ((np.array([[1, None]] * 20, dtype=object), Y), ["inputs are an object array", "numeric array"]),
    "ragged": (([[1.0], [1.0, 2.0]], [0, 1]), ["inputs do not form one array", "same shape"]),
    "text inputs": ((np.array([["a", "b"]] * 20), Y), ["are text", "token numbers"]),
    "complex": ((X + 1j, Y), ["complex128", "real numbers"]),
    "sparse": ((torch.eye(20).to_sparse(), Y), ["sparse", ".to_dense()"]),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays(case):
    refused(*ARRAYS[case])


@pytest.mark.parametrize(
    ("targets", "task", "words"),
    [
        (np.full(20, "cat"), "regression", ["are text", "'cat'", "task='classification'"]),
        (np.linspace(0, 1, 20).round(2), "classification", ["target 0.05 at index 1", "task='regression'"]),
        (X, "classification", ["(20, 3)", "one-hot", "task='regression'"]),
        (Y, "ranking", ["task 'ranking'", "'classification' or 'regression'"]),
    ],
)
def test_targets_that_do_not_fit_the_task(targets, task, words):
    refused((X, targets), words, task=task)


def test_more_samples_than_there_are():
    refused("iris", ["151 samples of iris", "it has 150", "at most 150"], samples=151)
    refused((X, Y), ["21 samples", "it has 20"], samples=21)
    refused("iris", ["0 samples", "at least 1"], samples=0)
    refused("iris", ["1 samples drawn", "one class", "more samples"], samples=1)


def test_unknown_standardisation():
    refused("iris", ["'minmax'", "'global', 'feature'"], standardise="minmax")


def test_unknown_names_show_near_matches_and_the_list():
    refused("digit", ["'digit'", "did you mean digits", "fashion-mnist", "hf:name"])
    refused("mnist-fashion", ["mnist-fashion", "did you mean", "gaussian-classes"])
    refused("hf:", ["names no data set", "hf:name"])


def test_missing_files_show_near_matches(tmp_path):
    (tmp_path / "measurements.csv").write_text("a,b\n1,2\n")
    refused(tmp_path / "measurement.csv", ["measurement.csv does not exist", "did you mean measurements.csv"])
    refused(str(tmp_path / "other.npz"), ["other.npz does not exist", "another path"])
    refused(tmp_path / "no" / "a.csv", ["a.csv does not exist", "nor does its folder"])


def test_unknown_suffix_and_folders_without_data(tmp_path):
    (tmp_path / "a.xlsx").write_bytes(b"")
    refused(tmp_path / "a.xlsx", ["'.xlsx'", ".npz, .csv, .tsv, .parquet"])
    refused(tmp_path, ["holds no images", "one subfolder of images for each class"])


@pytest.mark.parametrize("suffix", ["npz", "parquet", "csv"])
def test_torn_files(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    frame = pd.DataFrame(X).add_prefix("f").assign(y=Y)
    if suffix == "npz":
        np.savez(path, x=X, y=Y)
    elif suffix == "parquet":
        frame.to_parquet(path)
    torn = path.read_bytes()[:-40] if path.exists() else b"a,b\n1,2\n3\n"
    for content in (torn, b"", b"\x80\x04nonsense\xff"):
        path.write_bytes(content)
        refused(path, [f"a.{suffix}", "again"])


def test_bytes_flipped_inside_an_npz_are_found(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=X, y=Y)
    content = bytearray(path.read_bytes())
    content[120] ^= 0xFF
    path.write_bytes(bytes(content))
    refused(path, ["a.npz", "again"])


def test_a_lone_array_is_no_npz(tmp_path):
    np.save(tmp_path / "a.npy", X)
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    refused(tmp_path / "a.npz", ["a.npz is torn or not an .npz file", "numpy.savez"])


def test_pickles_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array([{"a": 1}, None], dtype=object), y=Y)
    refused(tmp_path / "a.npz", ["a.npz", "pickle", "plain numeric arrays"])


def test_npz_keys(tmp_path):
    np.savez(tmp_path / "a.npz", features=X, y=Y)
    refused(tmp_path / "a.npz", ["no inputs under x, inputs", "its arrays are features, y"])
    np.savez(tmp_path / "b.npz", x=X, y=Y, x_test=X)
    refused(tmp_path / "b.npz", ["x_test without its partner", "y_test"])


def test_parts_that_do_not_match(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=X, y=Y, x_test=X[:, :2], y_test=Y)
    refused(path, ["(2,)", "(3,)", "same shape"])
    np.savez(path, x=X, y=Y, x_test=X[:4], y_test=Y[:3])
    refused(path, ["test part", "4 inputs and 3 targets"])
    np.savez(path, x=X, y=Y, x_test=X[:4], y_test=Y[:4] + 1)
    refused(path, ["test part", "label '2'", "no training example has"])
    np.savez(path, x=X, y=Y, x_test=spoiled((2, 1)), y_test=Y)
    refused(path, ["test part", "1 NaN", "index (2, 1)"])


def write(tmp_path, text: str):
    path = tmp_path / "a.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "target", "words"),
    [
        ("age,price,b\n1,2,3\n4,5,6\n", "prize", ["no column 'prize'", "did you mean 'price'", "age, price, b"]),
        ("age,town,y\n1,Rome,3\n4,Oslo,6\n", None, ["'town'", "string", "'Rome'", "encode it as numbers"]),
        ("age,y\n1,3\n,6\n", None, ["1 NaN", "row 1", "column 'age'"]),
        ("a,b,y\n1,,3\n4,,6\n", None, ["2 NaN", "row 0", "column 'b'", "missing cells"]),
        ("age,y\n1,3\n2,\n3,\n", None, ["'y'", "2 missing values", "row 1"]),
        ("age,y\n1,cat\n2,\n3,dog\n", None, ["'y'", "1 missing values", "row 1"]),
        ("age,y\n", None, ["is empty", "at least two examples"]),
        ("y\n1\n2\n", None, ["'y' alone", "at least one feature"]),
        ("when,y\n2020-01-01,3\n2020-01-02,6\n", None, ["'when'", "date", "encode it"]),
    ],
)
def test_tables(tmp_path, text, target, words):
    refused(write(tmp_path, text), words, target=target)
