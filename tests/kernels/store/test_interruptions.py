"""A process that dies in the middle loses the tile in flight and nothing else."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.kernels.store import slow_kernel
from widthwise.kernels import GramStore

SCRIPT = Path(slow_kernel.__file__)
COUNT = 8 * 9 // 2


def start(folder: Path, pause: float) -> subprocess.Popen:
    command = [sys.executable, str(SCRIPT), str(folder), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def calls(folder: Path) -> list[str]:
    file = folder / "calls.txt"
    return file.read_text().splitlines() if file.is_file() else []


@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_resumes_with_nothing_recomputed_but_the_tile_in_flight(tmp_path: Path, how: signal.Signals) -> None:
    process = start(tmp_path, 0.05)
    deadline = time.monotonic() + 60
    while len(calls(tmp_path)) < 12 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, how)
    process.communicate()
    assert process.returncode != 0
    first = calls(tmp_path)
    assert 12 <= len(first) < COUNT
    kept = GramStore.open(tmp_path / "gram.zarr").finished
    assert kept >= len(first) - 1
    out, err = start(tmp_path, 0.0).communicate()
    assert out.split() == [str(kept), str(COUNT - kept)], err
    everything = calls(tmp_path)
    assert len(set(everything)) == COUNT
    assert len(everything) <= COUNT + 1
    store = GramStore.open(tmp_path / "gram.zarr")
    assert store.complete and not store.damaged()
    assert np.allclose(np.asarray(store), np.exp(slow_kernel.X @ slow_kernel.X.T), rtol=1e-13)
    assert not list(store.path.rglob("*.partial"))
