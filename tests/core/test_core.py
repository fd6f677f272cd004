"""Laws of the ground floor: plain values, atomic files, seeds, memory, errors."""

import json
import os
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from widthwise.core import (
    OutputError,
    ResourceError,
    UnsupportedOperation,
    Value,
    WidthwiseError,
    atomic_path,
    check_writable,
    derived_seed,
    generator,
    progress,
    require_memory,
    seeded,
    to_plain,
    write_text,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(JSON)
def test_plain_form_is_strict_json_and_stays_as_it_is(value):
    plain = to_plain(value)
    text = json.dumps(plain, allow_nan=False)
    assert to_plain(json.loads(text)) == json.loads(text)


def test_arrays_tensors_and_hidden_fields():
    @dataclass(frozen=True)
    class Result(Value):
        values: torch.Tensor
        error: float
        live: object = field(default=None, metadata={"plain": False})

    got = Result(torch.tensor([1.5, float("inf")]), np.float64("nan"), object()).to_dict()
    assert got == {"values": [1.5, None], "error": None}
    with pytest.raises(TypeError, match="plain"):
        to_plain(object())


def test_atomic_path_leaves_the_old_file_when_the_block_fails(tmp_path):
    path = tmp_path / "deep" / "result.json"
    write_text(path, "old")

    def fail_midway():
        with atomic_path(path) as temporary:
            temporary.write_text("torn")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        fail_midway()
    assert path.read_text() == "old"
    assert os.listdir(path.parent) == ["result.json"]


def test_disk_full_is_one_sentence_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "result.json"
    write_text(path, "old")

    def fill_the_disk():
        with atomic_path(path):
            raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space left on device"):
        fill_the_disk()
    assert path.read_text() == "old"


def test_unwritable_folder_names_itself(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(OutputError, match=str(blocked / "report")):
        check_writable(blocked / "report")


def test_derived_seeds_depend_on_every_name_and_on_nothing_else():
    seeds = {derived_seed(s, *names) for s in (0, 1) for names in (("a",), ("a", 1), ("a", 2), ("b",))}
    assert len(seeds) == 8
    assert all(0 <= seed < 2**63 for seed in seeds)
    a, b = (torch.rand(3, generator=generator(7, "use")) for _ in range(2))
    assert torch.equal(a, b)


def test_seeded_leaves_the_global_generator_as_it_was():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with seeded(0, "inside"):
        torch.rand(100)
    assert torch.equal(torch.rand(2), expected)


def test_memory_is_refused_before_the_work(monkeypatch):
    monkeypatch.setattr("widthwise.core._memory.available_bytes", lambda: 2**30)
    require_memory(0.8 * 2**30, "small work", "no mend needed")
    with pytest.raises(ResourceError, match=r"3\.0 GiB and 1\.0 GiB are available; ask for fewer"):
        require_memory(3 * 2**30, "big work", "ask for fewer.")


def test_unsupported_operation_names_operation_place_and_fallback():
    error = UnsupportedOperation("aten.topk.default", "head.pick")
    assert isinstance(error, WidthwiseError)
    for part in ("aten.topk.default", "head.pick", "empirical", "monte-carlo"):
        assert part in str(error)


def test_progress_is_silent_without_a_terminal(capsys):
    with progress("work", 2) as advance:
        advance(1)
    assert capsys.readouterr().err == ""
