"""Defaults and limits of what can be asked for."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from widthwise.core import DataError
from widthwise.data import DataSet
from widthwise.forecast._settings import FEWEST_SAMPLES, default_sizes, one_pool, read_settings, split_sizes


def data_set(count: int, test: int | None = None) -> DataSet:
    held_out = None if test is None else data_set(test)
    return DataSet("made", torch.zeros(count, 2), torch.arange(count) % 2, ("a", "b"), test=held_out)


@given(st.integers(8, 100_000))
def test_sizes_rise_to_half_of_the_samples(samples: int) -> None:
    sizes = default_sizes(samples)
    assert list(sizes) == sorted(set(sizes))
    assert 2 <= sizes[0] <= 30 and sizes[-1] == samples // 2
    assert all(after / before < 3.1 for before, after in pairwise(sizes))


@pytest.mark.parametrize(
    ("total", "test", "samples", "held_out", "expected"),
    [
        (1797, None, None, None, (1198, 599)),  # two thirds
        (60_000, None, None, None, (4000, 2000)),
        (60_000, 10_000, None, None, (4000, 2000)),
        (3000, 500, None, None, (3000, 500)),  # an official test part leaves the rest to learn from
        (80, None, None, None, (64, 16)),
        (66, None, None, None, (64, 2)),
        (1000, None, 200, None, (200, 800)),
        (1000, None, None, 900, (100, 900)),
        (1000, None, 998, None, (998, 2)),
    ],
)
def test_split(total: int, test: int | None, samples: int | None, held_out: int | None, expected: tuple) -> None:
    assert split_sizes(data_set(total, test), samples, held_out) == expected


COUNTS = st.none() | st.integers(0, 9000)


@given(st.integers(2, 9000), st.none() | st.integers(2, 9000), COUNTS, COUNTS)
def test_every_split_can_be_made_or_is_refused(
    total: int, test: int | None, samples: int | None, held_out: int | None
) -> None:
    data = data_set(total, test)
    try:
        found = split_sizes(data, samples, held_out)
    except DataError as error:
        assert str(error).endswith(".")
        return
    assert found[0] >= FEWEST_SAMPLES and found[1] >= 2
    assert found[0] == (samples or found[0]) and found[1] == (held_out or found[1])
    assert [len(part) for part in data.split(*found)] == list(found)


GOOD: dict[str, Any] = {
    "samples": 100, "held_out": 50, "sizes": None, "draws": 1, "kernel": "auto", "parametrization": "ntk",
    "training_seconds": 0.0, "seed": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"samples": 63}, "at least 64"),
        ({"samples": 951}, "at most 950"),
        ({"samples": 100, "held_out": 901}, "at most 99 samples"),
        ({"held_out": 1}, "at least 2"),
        ({"samples": None, "held_out": 990}, "990 of them held out"),
        ({"sizes": []}, "empty"),
        ({"sizes": [10, 101]}, "size 101"),
        ({"sizes": [1]}, "size 1"),
        ({"draws": 0}, "draws is 0"),
        ({"draws": -1}, "draws is -1"),
        ({"kernel": "infinit"}, "kernel 'infinit'"),
        ({"parametrization": "mup"}, "parametrization 'mup'"),
        ({"training_seconds": -1.0}, "-1"),
        ({"training_seconds": float("inf")}, "inf"),
        ({"seed": -2}, "seed is -2"),
    ],
)
def test_refused_with_the_value(change: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_settings(data_set(1000), **(GOOD | change))


def test_sizes_are_sorted_without_the_whole_sample() -> None:
    assert read_settings(data_set(1000), **(GOOD | {"sizes": [50, 10, 100, 50]})).sizes == (10, 50)


@pytest.mark.parametrize(
    ("total", "test", "samples", "held_out", "uses_official"),
    [
        (100, None, 64, 30, False),  # there is none
        (7000, 500, None, None, False),  # 4000 and 2000 fit in the pool
        (5000, 500, None, None, True),  # they do not
        (100, 50, 70, 30, False),
        (100, 50, 71, 30, True),
    ],
)
def test_held_out_comes_from_the_pool_where_it_is_large_enough(
    total: int, test: int | None, samples: int | None, held_out: int | None, uses_official: bool
) -> None:
    whole = data_set(total, test)
    chosen = one_pool(whole, samples, held_out)
    assert (chosen.test is not None) == uses_official
    assert torch.equal(chosen.inputs, whole.inputs)
