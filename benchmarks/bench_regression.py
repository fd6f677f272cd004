"""Kernel regression with the NTK of an infinitely wide dense ReLU network on Fashion-MNIST.

    python benchmarks/bench_regression.py                    # 10 000 images
    python benchmarks/bench_regression.py --full             # all 60 000: about 7 GB of disk for the tiles

The Gram matrix goes to a store on disk (float32, half of it), conjugate gradients read it from there. Beside it: the
package's Cholesky, scikit-learn's KernelRidge and SciPy's conjugate gradients on the same matrix, each in a process of
its own under a memory limit. Writes benchmarks/results/regression.json.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import torch

import widthwise as ww
from widthwise.kernels import GramStore

RESULTS = Path(__file__).with_name("results") / "regression.json"
LIMIT_BYTES = 20e9
PEER_SECONDS = 1800


class Memory:
    """The largest amount of anonymous memory of this process (file pages of the store do not count)."""

    def __init__(self) -> None:
        self.peak, self._stop = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.2):
            lines = Path("/proc/self/status").read_text().splitlines()
            line = next((line for line in lines if line.startswith("RssAnon")), "RssAnon 0")
            self.peak = max(self.peak, float(line.split()[1]) * 1024)


def data(options: argparse.Namespace) -> tuple[torch.Tensor, np.ndarray, torch.Tensor, np.ndarray]:
    """Training and test images as rows, with labels."""
    loaded = ww.data.load("fashion-mnist", samples=options.samples, seed=options.seed)
    assert loaded.test is not None
    test = loaded.test.subset(torch.arange(options.test))
    return loaded.inputs.flatten(1), loaded.targets.numpy(), test.inputs.flatten(1), test.targets.numpy()


def ours(options: argparse.Namespace, folder: Path) -> dict:
    """Gram store, conjugate gradients, prediction."""
    x, y, x_test, y_test = data(options)
    part = torch.randperm(len(x), generator=torch.Generator().manual_seed(options.seed))[:2000]
    ridge = float(ww.KernelClassifier("mlp", ridge="loo").fit(x[part], y[part.numpy()]).ridge_)
    limit = ww.KernelClassifier("mlp", ridge=1.0).fit(x[:10], np.arange(10) % 2).source_.limit
    with Memory() as memory:
        start = time.perf_counter()
        store = GramStore.create(folder / "gram.zarr", limit, x, dtype="float32")
        filled = store.fill(show_progress=True)
        gram_seconds = time.perf_counter() - start
        test_store = GramStore.create(folder / "gram.zarr" / "test", limit, x_test, x, dtype="float32")
        test_seconds = test_store.fill(show_progress=True).seconds
        rows = {}
        for solver in ("cg", "cholesky") if options.samples <= 20_000 else ("cg",):
            start = time.perf_counter()
            model = ww.KernelClassifier(
                store, ridge=ridge, solver=solver, dtype="float32", tol=options.tol, progress=True, max_iter=500,
                workdir=folder, checkpoint=folder / "cg.npz" if solver == "cg" else None,
            )  # fmt: skip
            model.fit(None, y)
            seconds = time.perf_counter() - start
            accuracy = float((model.predict(test_store) == y_test).mean())
            rows[solver] = {
                "seconds": seconds,
                "residual": model.residual_,
                "iterations": model.n_iter_,
                "test_accuracy": accuracy,
            }
    return {
        "samples": options.samples,
        "test": options.test,
        "ridge": ridge,
        "gram_seconds": gram_seconds,
        "tiles_kept": filled.kept,
        "test_gram_seconds": test_seconds,
        "peak_anonymous_gb": memory.peak / 1e9,
        "disk_gb": sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e9,
        "solvers": rows,
    }


def peer(name: str, options: argparse.Namespace, folder: Path, ridge: float) -> dict:
    """One peer in a process of its own; what it said, or how it failed."""
    command = [sys.executable, __file__, "--peer", name, "--folder", str(folder), "--ridge", repr(ridge)]
    command += [
        "--samples",
        str(options.samples),
        "--seed",
        str(options.seed),
        "--test",
        str(options.test),
        "--tol",
        repr(options.tol),
    ]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=PEER_SECONDS)
    except subprocess.TimeoutExpired:
        return {"failed": f"stopped after {PEER_SECONDS} s"}
    if ended.returncode == 0:
        return json.loads(ended.stdout.splitlines()[-1])
    last = (ended.stderr.strip().splitlines() or ["killed"])[-1]
    return {"failed": last}


def run_peer(options: argparse.Namespace) -> None:
    """The body of a peer's process: the same matrix, read whole."""
    from scipy.sparse.linalg import cg
    from sklearn.kernel_ridge import KernelRidge

    resource.setrlimit(resource.RLIMIT_AS, (int(LIMIT_BYTES), int(LIMIT_BYTES)))
    _, y, _, y_test = data(options)
    store, test_store = GramStore.open(options.folder / "gram.zarr"), GramStore.open(options.folder / "gram.zarr/test")
    onehot = np.eye(10)[y]
    targets = onehot - onehot.mean(0)
    if options.peer == "scikit-learn KernelRidge":
        matrix = np.empty(store.shape)
        for rows, columns, block in store.blocks():
            matrix[rows, columns], matrix[columns, rows] = block, block.T
        start = time.perf_counter()
        found = KernelRidge(alpha=options.ridge, kernel="precomputed").fit(matrix, targets).dual_coef_
    else:
        matrix = np.asarray(store)
        matrix[np.diag_indices(len(y))] += options.ridge
        start = time.perf_counter()
        columns = [cg(matrix, column, rtol=options.tol, maxiter=2000)[0] for column in targets.T.astype(np.float32)]
        found = np.stack(columns, 1)
    seconds = time.perf_counter() - start
    scores = test_store @ found + onehot.mean(0)
    residual = np.linalg.norm(targets - store @ found - options.ridge * found, axis=0) / np.linalg.norm(targets, axis=0)
    accuracy = float((scores.argmax(1) == y_test).mean())
    print(json.dumps({"seconds": seconds, "residual": float(residual.max()), "test_accuracy": accuracy}))


def main() -> None:
    """Run, print one line each, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--test", type=int, default=10_000, help="test images")
    parser.add_argument("--full", action="store_true", help="all 60 000 images")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--tol", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keep tiles here, and go on from them")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    parser.add_argument("--ridge", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        run_peer(options)
        return
    options.samples = 60_000 if options.full else options.samples
    warnings.simplefilter("always")
    with tempfile.TemporaryDirectory(prefix="widthwise-bench-") as temporary:
        folder = options.folder or Path(temporary)
        result = ours(options, folder) | {"threads": torch.get_num_threads(), "load": os.getloadavg()[0]}
        print(json.dumps(result, indent=2), flush=True)
        if not options.no_peers:
            names = ("scikit-learn KernelRidge", "SciPy conjugate gradients")
            result["peers"] = {name: peer(name, options, folder, result["ridge"]) for name in names}
            print(json.dumps(result["peers"], indent=2))
    kept = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(kept | {str(options.samples): result}, indent=2) + "\n")


if __name__ == "__main__":
    main()
