"""`DataSet`: disjoint splits that depend on the seed alone, and encoded targets."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from widthwise.core import DataError
from widthwise.data import DataSet, load


def numbered(samples: int, name: str = "numbered", test: DataSet | None = None, offset: int = 0) -> DataSet:
    """Inputs that carry their own index, so that a part can be traced back."""
    inputs = torch.arange(offset, offset + samples, dtype=torch.float32)[:, None]
    targets = torch.arange(samples) % 3
    return DataSet(name, inputs, targets, ("a", "b", "c"), test=test)


def ids(data: DataSet) -> list[int]:
    return data.inputs[:, 0].int().tolist()


@given(st.integers(3, 60), st.data(), st.integers(0, 2**31))
def test_split_is_disjoint_and_of_the_sizes_asked(samples, data, seed):
    train = data.draw(st.integers(1, samples - 1))
    test = data.draw(st.integers(1, samples - train))
    first, second = numbered(samples).split(train, test, seed=seed)
    assert (len(first), len(second)) == (train, test)
    assert len(set(ids(first)) | set(ids(second))) == train + test


def test_split_keeps_inputs_with_their_targets():
    first, second = numbered(30).split(20, 10)
    for part in (first, second):
        assert part.targets.tolist() == [i % 3 for i in ids(part)]


def test_split_depends_on_the_seed_alone():
    data = numbered(50)
    torch.manual_seed(1)
    once = [ids(part) for part in data.split(20, 10, seed=3)]
    torch.manual_seed(2)
    assert [ids(part) for part in data.split(20, 10, seed=3)] == once
    assert [ids(part) for part in data.split(20, 10, seed=4)] != once


def test_split_draws_the_held_out_part_from_the_official_one():
    data = numbered(10, test=numbered(5, offset=100))
    train, test = data.split(10, 5)
    assert sorted(ids(train)) == list(range(10))
    assert sorted(ids(test)) == list(range(100, 105))


@pytest.mark.parametrize(
    ("train", "test", "official", "words"),
    [
        (8, 3, None, ["10 examples", "8 to train on and 3 held out", "fewer samples"]),
        (11, 1, 5, ["10 examples", "11 to train on", "fewer samples"]),
        (5, 6, 5, ["5 examples", "6 held out", "fewer"]),
        (0, 3, None, ["0 examples to train on", "at least 1"]),
    ],
)
def test_split_that_does_not_fit_is_refused(train, test, official, words):
    data = numbered(10, test=None if official is None else numbered(official))
    with pytest.raises(DataError) as error:
        data.split(train, test)
    assert all(word in str(error.value) for word in words), error.value


def test_encoded_targets_are_centred_one_hot_rows():
    data = numbered(31)
    encoded = data.encoded()
    torch.testing.assert_close(encoded.mean(0), torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(encoded.sum(1), torch.zeros(31, dtype=torch.float64))
    assert encoded.argmax(1).tolist() == data.targets.tolist()
    torch.testing.assert_close(encoded + data.class_frequencies(), torch.eye(3, dtype=torch.float64)[data.targets])


def test_encoded_regression_targets_are_as_they_were():
    data = load("diabetes")
    assert torch.equal(data.encoded(), data.targets.double())
    assert data.class_frequencies().tolist() == [0.0]


def test_plain_form_holds_sizes_and_no_tensors():
    plain = load("digits", samples=100).to_dict()
    assert plain["samples"] == 100 and plain["input_shape"] == [1, 8, 8] and plain["outputs"] == 10
    assert "100 of 1797 drawn with seed 0" in plain["source"]
