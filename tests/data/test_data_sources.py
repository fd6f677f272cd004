"""PyTorch data sets and Hugging Face data sets."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from widthwise.core import DataError
from widthwise.data import load

X, Y = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 4


class Pairs(Dataset):
    """A map-style data set that counts what is read from it."""

    def __init__(self, inputs, targets):
        self.inputs, self.targets, self.read = inputs, targets, 0

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, index):
        self.read += 1
        return self.inputs[index], self.targets[index]


def test_every_container_of_the_same_arrays_gives_the_same_data():
    expected = load((X, Y))
    for source in (TensorDataset(X, Y), Pairs(X, Y), Pairs(X.numpy(), Y.tolist()), Subset(Pairs(X, Y), range(40))):
        found = load(source)
        torch.testing.assert_close(found.inputs, expected.inputs)
        assert torch.equal(found.targets, expected.targets) and found.classes == expected.classes


def test_only_the_drawn_examples_are_read():
    source = Pairs(X, Y)
    data = load(source, samples=12)
    assert source.read == len(data) == 12
    assert len({row.numpy().tobytes() for row in data.inputs}) == 12


def test_pictures_and_class_names_of_a_data_set_are_kept():
    pictures = [Image.new("RGB", (6, 5), (i, 0, 255)) for i in range(8)]
    source = Pairs(pictures, [i % 2 for i in range(8)])
    source.classes = ["cat", "dog"]
    data = load(source, standardise=None)
    assert data.input_shape == (3, 5, 6) and data.classes == ("cat", "dog")
    torch.testing.assert_close(data.inputs[:, 0, 0, 0], torch.arange(8) / 255)


def test_string_labels_of_a_data_set_are_classes():
    assert load(Pairs(X, ["a", "b"] * 20)).classes == ("a", "b")


class Stream(IterableDataset):
    def __iter__(self):
        return iter([])


class Broken(Pairs):
    def __getitem__(self, index):
        raise OSError("disk gone") if index == 3 else None if index < 0 else OSError("disk gone")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (Stream(), ["Stream", "map-style"]),
        (Broken(X, Y), ["example 0 of Broken", "OSError: disk gone"]),
        (Pairs([], []), ["Pairs is empty", "at least two"]),
        (Pairs([np.zeros(3), np.zeros(4)], [0, 1]), ["example 1", "(4,)", "(3,)", "same shape"]),
        (TensorDataset(X), ["1 arrays", "pair"]),
        (3, ["int", "a name, a path"]),
        ((X, Y, Y), ["3 arrays", "pair"]),
    ],
)
def test_sources_that_cannot_be_used_are_named(source, words):
    with pytest.raises(DataError) as error:
        load(source)
    assert all(word in str(error.value) for word in words), error.value


class Feature:
    """Stands for `datasets.Value` and `datasets.ClassLabel`."""

    def __init__(self, names=None):
        self.names = names


class Columns:
    """The part of `datasets.Dataset` that is used."""

    def __init__(self, **columns):
        self.columns = columns
        self.features = {name: Feature() for name in columns}
        self.column_names = list(columns)

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __getitem__(self, key):
        if isinstance(key, str):
            return self.columns[key]
        return {name: values[key] for name, values in self.columns.items()}


def test_hugging_face_numbers_are_features():
    table = Columns(a=[1.0, 2.0, 4.0, 7.0], label=[0, 1, 0, 1], b=[3, 1, 4, 1])
    table.features["label"] = Feature(["no", "yes"])
    data = load(table, standardise=None)
    assert data.inputs.tolist() == [[1, 3], [2, 1], [4, 4], [7, 1]] and data.classes == ("no", "yes")


def test_hugging_face_pictures_and_parts():
    def part(count):
        return Columns(img=[Image.new("L", (4, 4), 10 * i) for i in range(count)], fine=[i % 2 for i in range(count)])

    train, test = part(6), part(4)
    train.features["fine"] = test.features["fine"] = Feature(["a", "b"])
    data = load({"train": train, "test": test}, standardise=None)
    assert data.input_shape == (1, 4, 4) and len(data.test) == 4 and data.classes == ("a", "b")
    torch.testing.assert_close(data.inputs[:, 0, 0, 0], 10 * torch.arange(6) / 255)


def test_small_coloured_pictures_keep_their_channels():
    pictures = [Image.new("RGB", (4, 4), (i, 100, 200)) for i in range(6)]
    for source in (Columns(img=pictures, label=[0, 1] * 3), Pairs(pictures, [0, 1] * 3)):
        data = load(source, standardise=None)
        assert data.input_shape == (3, 4, 4)
        torch.testing.assert_close(data.inputs[2, :, 3, 1] * 255, torch.tensor([2.0, 100, 200]))


def test_hugging_face_tokens():
    tokens = [[1, 2, 3], [4, 5, 6], [7, 8, 9], [1, 1, 1]]
    data = load(Columns(input_ids=tokens, attention_mask=[[1] * 3] * 4, labels=[0, 1, 0, 1]))
    assert data.inputs.tolist() == tokens and data.inputs.dtype == torch.int64 and data.outputs == 2


@pytest.mark.parametrize(
    ("table", "target", "words"),
    [
        (Columns(text=["a", "b"], label=[0, 1]), None, ["'text'", "str", "tokenise"]),
        (Columns(a=[1.0, 2.0], label=[0, 1]), "lable", ["'lable'", "did you mean 'label'", "a, label"]),
        (Columns(input_ids=[[1, 2], [3]], label=[0, 1]), None, ["row 1", "(1,)", "(2,)", "pad"]),
        (Columns(label=[0, 1]), None, ["'label'", "inputs and a target"]),
    ],
)
def test_hugging_face_sets_that_cannot_be_used_are_named(table, target, words):
    with pytest.raises(DataError) as error:
        load(table, target=target)
    assert all(word in str(error.value) for word in words), error.value


def test_hugging_face_without_its_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(DataError, match=r"hf:beans needs the package datasets.*pip install 'widthwise\[huggingface\]'"):
        load("hf:beans")


def test_a_real_hugging_face_set_made_in_memory():
    datasets = pytest.importorskip("datasets", reason="install it with pip install 'widthwise[huggingface]'")
    features = datasets.Features({"x": datasets.Value("float64"), "label": datasets.ClassLabel(names=["no", "yes"])})
    table = datasets.Dataset.from_dict({"x": [1.0, 2.0, 5.0], "label": [0, 1, 1]}, features=features)
    data = load(datasets.DatasetDict({"train": table, "test": table}), standardise=None)
    assert data.inputs.tolist() == [[1], [2], [5]] and data.targets.tolist() == [0, 1, 1]
    assert data.classes == ("no", "yes") and len(data.test) == 3


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch):
    class Offline:
        @staticmethod
        def load_dataset(name, config):
            raise ConnectionError(f"Couldn't reach {name}\nsecond line")

    monkeypatch.setitem(__import__("sys").modules, "datasets", Offline)
    with pytest.raises(DataError) as error:
        load("hf:beans:small")
    assert "hf:beans:small cannot be had (ConnectionError: Couldn't reach beans)" in str(error.value)
    assert "\n" not in str(error.value) and ".parquet" in str(error.value)
