"""Kept stages: reused only by the same forecast, recomputed when damaged, never torn."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from tests.forecast.conftest import make_run, small_net
from widthwise.core import OutputError
from widthwise.forecast import _stages, discard_stages
from widthwise.forecast._stages import Stages, fingerprint

VALUE = {"a": torch.arange(6.0, dtype=torch.float64).reshape(2, 3)}
PLAIN = [[1.5, None], "text"]


class Counted:
    """A computation that says how often it ran."""

    def __init__(self, value: Any) -> None:
        self.value, self.runs = value, 0

    def __call__(self) -> Any:
        self.runs += 1
        return self.value


def test_a_second_run_reads_what_the_first_computed(tmp_path: Path) -> None:
    tensors, plain = Counted(VALUE), Counted(PLAIN)
    for turn in range(2):
        stages = Stages(tmp_path, "mark")
        assert torch.equal(stages.tensors("one", tensors)["a"], VALUE["a"])
        assert stages.plain("two", plain) == PLAIN
        assert stages.reused == ([] if turn == 0 else ["one", "two"])
    assert tensors.runs == plain.runs == 1
    Stages(tmp_path, "another mark").tensors("one", tensors)
    assert tensors.runs == 2
    discard_stages(tmp_path)
    assert not tmp_path.exists()


@pytest.mark.parametrize("damage", [b"", b"\xff" * 7, b"{"])
def test_damaged_files_are_recomputed(tmp_path: Path, damage: bytes) -> None:
    for name, kind, value in (("one", "tensors", VALUE), ("two", "plain", PLAIN)):
        compute = Counted(value)
        getattr(Stages(tmp_path, "mark"), kind)(name, compute)
        path = next((tmp_path / "mark").glob(f"{name}.*"))
        path.write_bytes(damage)
        getattr(Stages(tmp_path, "mark"), kind)(name, compute)
        assert compute.runs == 2
        getattr(Stages(tmp_path, "mark"), kind)(name, compute)
        assert compute.runs == 2


def test_nothing_is_written_without_a_folder() -> None:
    compute = Counted(PLAIN)
    stages = Stages(None, "mark")
    assert stages.plain("two", compute) == stages.plain("two", compute) == PLAIN
    assert compute.runs == 2


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("I/O error: disk is full")])
def test_a_full_disk_is_one_sentence_and_keeps_earlier_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    Stages(tmp_path, "mark").plain("two", lambda: PLAIN)

    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(_stages, "save_file", full)
    with pytest.raises(OutputError, match=r"cannot write .*one.safetensors"):
        Stages(tmp_path, "mark").tensors("one", lambda: VALUE)
    assert [path.name for path in (tmp_path / "mark").iterdir()] == ["two.json"]


def test_the_fingerprint_depends_on_weights_data_and_settings() -> None:
    run = make_run()
    module, parts, settings = run.source.build(seed=0), [run.train, run.test], {"seed": 0}
    marks = {
        fingerprint(module, parts, settings),
        fingerprint(run.source.build(seed=1), parts, settings),
        fingerprint(module, parts[:1], settings),
        fingerprint(module, parts, {"seed": 1}),
        fingerprint(small_net(25), parts, settings),
    }
    assert len(marks) == 5
    assert fingerprint(run.source.build(seed=0), parts, {"seed": 0}) in marks
