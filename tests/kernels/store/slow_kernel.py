"""Run as a script: fills a store with a slow kernel that notes every tile it computes."""

import os
import sys
import time
from pathlib import Path

import numpy as np

from widthwise.kernels.store import GramStore

FOLDER, PAUSE = (Path(sys.argv[1]), float(sys.argv[2])) if __name__ == "__main__" else (Path(), 0.0)
X = np.random.default_rng(0).standard_normal((40, 3))
TILE = 5


def slow(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if len(a) == TILE and len(b) == TILE:
        with (FOLDER / "calls.txt").open("a") as calls:
            calls.write(f"{a[0, 0]} {b[0, 0]}\n")
            calls.flush()
            os.fsync(calls.fileno())
        time.sleep(PAUSE)
    return np.exp(a @ b.T)


if __name__ == "__main__":
    store = GramStore.create(FOLDER / "gram.zarr", slow, X, dtype="float64", tile=TILE)
    report = store.fill()
    print(report.kept, report.computed)
