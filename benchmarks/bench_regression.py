"""Kernel regression with the NTK of an infinitely wide dense ReLU network on Fashion-MNIST.

    python benchmarks/bench_regression.py                    # 10 000 images
    python benchmarks/bench_regression.py --full             # all 60 000: about 10 GB of disk for the tiles
    python benchmarks/bench_regression.py --eigenpro FOLDER  # with EigenPro, from a checkout of EigenPro-pytorch

The Gram matrix goes to a store on disk (float32, half of it), conjugate gradients read it from there. Beside it: the
package's Cholesky, scikit-learn's KernelRidge and SciPy's conjugate gradients on the same matrix and EigenPro with the
same kernel function, each in a process of its own under a memory limit. The ridge has the least squared error on
10 000 training images after a fit to 10 000 others; the test images have no part in it. Writes
benchmarks/results/regression.json.
"""

import argparse
import contextlib
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
from widthwise.kernels import GramStore, Limit

RESULTS = Path(__file__).with_name("results") / "regression.json"
LIMIT_BYTES = 20e9
PEER_SECONDS = 900
HELD_OUT = 10_000
RIDGES = (0.01, 0.03, 0.1, 0.3)  # with 60 000 images the rounding of float32 entries reaches a few thousandths
TILE = 2048
EPOCHS = (1, 5, 20)


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


def best_ridge(limit: Limit, seed: int) -> dict[str, float]:
    """Squared error on held-out training images for each ridge, and the ridge of the least."""
    loaded = ww.data.load("fashion-mnist", samples=60_000, seed=0)
    x, y = loaded.inputs.flatten(1), loaded.targets.numpy()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    ours, held = order[:HELD_OUT].numpy(), order[-HELD_OUT:].numpy()
    gram = limit(x[ours], dtype=torch.float32).ntk.numpy()
    cross = limit(x[held], x[ours], dtype=torch.float32).ntk.numpy()
    wanted, errors = np.eye(10)[y[held]], {}
    for ridge in RIDGES:
        model = ww.KernelClassifier("precomputed", ridge=ridge, solver="cholesky", dtype="float32").fit(gram, y[ours])
        scores = model.scores(cross)
        errors[repr(ridge)] = float(((scores - wanted) ** 2).sum(1).mean())
        accuracy = float((scores.argmax(1) == y[held]).mean())
        print(f"ridge {ridge:g}: held-out squared error {errors[repr(ridge)]:.5f}, accuracy {accuracy:.4f}", flush=True)
    return errors


class Clock:
    """Wall and processor seconds since it was made."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        return {"seconds": time.perf_counter() - self.wall, "cpu_seconds": time.process_time() - self.cpu}


def ours(options: argparse.Namespace, folder: Path) -> dict:
    """Gram store, conjugate gradients, prediction."""
    x, y, x_test, y_test = data(options)
    limit = ww.KernelClassifier("mlp", ridge=1.0).fit(x[:10], np.arange(10) % 2).source_.limit
    whole = Clock()
    with Memory() as memory:
        errors = {} if options.ridge else best_ridge(limit, options.seed)
        ridge = options.ridge or float(min(errors, key=lambda key: errors[key]))
        clock = Clock()
        store = GramStore.create(folder / "gram.zarr", limit, x, dtype="float32", tile=TILE)
        filled = store.fill(show_progress=True)
        gram = clock.read()
        print("Gram matrix", gram, flush=True)
        clock = Clock()
        test_store = GramStore.create(folder / "test.zarr", limit, x_test, x, dtype="float32", tile=TILE)
        test_store.fill(show_progress=True)
        test_gram = clock.read()
        print("test kernel", test_gram, flush=True)
        rows = {}
        for solver in ("cg", "cholesky") if options.samples <= 20_000 else ("cg",):
            clock = Clock()
            model = ww.KernelClassifier(
                store, ridge=ridge, solver=solver, dtype="float32", tol=options.tol, progress=True, max_iter=500,
                workdir=folder, checkpoint=folder / "cg.npz" if solver == "cg" else None,
            )  # fmt: skip
            model.fit(None, y)
            took = clock.read()
            clock = Clock()
            accuracy = float((model.predict(test_store) == y_test).mean())
            rows[solver] = {
                **took,
                "prediction_seconds": clock.read()["seconds"],
                "residual": model.residual_,
                "iterations": model.n_iter_,
                "test_accuracy": accuracy,
            }
            print(solver, rows[solver], flush=True)
    return {
        "samples": options.samples,
        "test": options.test,
        "ridge": ridge,
        "held_out_errors": errors,
        "whole": whole.read(),
        "gram": gram,
        "tiles_kept": filled.kept,
        "test_gram": test_gram,
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
    command += ["--eigenpro", str(options.eigenpro)] if options.eigenpro else []
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=PEER_SECONDS)
    except subprocess.TimeoutExpired:
        return {"failed": f"stopped after {PEER_SECONDS} s"}
    if ended.returncode == 0:
        return json.loads(ended.stdout.splitlines()[-1])
    last = (ended.stderr.strip().splitlines() or ["killed"])[-1]
    return {"failed": last}


def run_eigenpro(options: argparse.Namespace) -> None:
    """EigenPro's preconditioned stochastic steps, which have no ridge, after each count of epochs."""
    sys.path.insert(0, str(options.eigenpro))
    from eigenpro2 import KernelModel

    x, y, x_test, y_test = data(options)
    limit = ww.KernelClassifier("mlp", ridge=1.0).fit(x[:10], np.arange(10) % 2).source_.limit
    limit.engine = "numba"
    targets, rows = torch.eye(10)[torch.from_numpy(y)], {}
    for epochs in EPOCHS:
        torch.manual_seed(options.seed)
        clock = Clock()
        with contextlib.redirect_stdout(sys.stderr):
            model = KernelModel(lambda a, b: limit(a, b, dtype=torch.float32).ntk, x, 10, device="cpu")
            model.fit(x, targets, epochs=epochs, mem_gb=6, run_epoch_eval=False)
        took = clock.read()
        accuracy = float((model.forward(x_test).argmax(1).numpy() == y_test).mean())
        rows[f"{epochs} epochs"] = {**took, "test_accuracy": accuracy}
    print(json.dumps(rows))


def run_peer(options: argparse.Namespace) -> None:
    """The body of a peer's process: the same matrix, read whole."""
    if options.peer == "EigenPro":
        run_eigenpro(options)
        return
    from scipy.sparse.linalg import cg
    from sklearn.kernel_ridge import KernelRidge

    resource.setrlimit(resource.RLIMIT_AS, (int(LIMIT_BYTES), int(LIMIT_BYTES)))
    _, y, _, y_test = data(options)
    store, test_store = GramStore.open(options.folder / "gram.zarr"), GramStore.open(options.folder / "test.zarr")
    onehot = np.eye(10)[y]
    targets = onehot - onehot.mean(0)
    if options.peer == "scikit-learn KernelRidge":
        matrix = np.empty(store.shape)
        for rows, columns, block in store.blocks():
            matrix[rows, columns], matrix[columns, rows] = block, block.T
        clock = Clock()
        found = KernelRidge(alpha=options.ridge, kernel="precomputed").fit(matrix, targets).dual_coef_
    else:
        matrix = np.asarray(store)
        matrix[np.diag_indices(len(y))] += options.ridge
        clock = Clock()
        columns = [cg(matrix, column, rtol=options.tol, maxiter=2000)[0] for column in targets.T.astype(np.float32)]
        found = np.stack(columns, 1)
    took = clock.read()
    scores = test_store @ found + onehot.mean(0)
    residual = np.linalg.norm(targets - store @ found - options.ridge * found, axis=0) / np.linalg.norm(targets, axis=0)
    accuracy = float((scores.argmax(1) == y_test).mean())
    print(json.dumps({**took, "residual": float(residual.max()), "test_accuracy": accuracy}))


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
    parser.add_argument("--eigenpro", type=Path, help="folder with the package eigenpro2")
    parser.add_argument("--ridge", type=float, help="instead of the choice on held-out images")
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
        keep(result)
        names = ("scikit-learn KernelRidge", "SciPy conjugate gradients", *(["EigenPro"] if options.eigenpro else []))
        for name in () if options.no_peers else names:
            found = peer(name, options, folder, result["ridge"])
            print(name, json.dumps(found), flush=True)
            result["peers"] = result.get("peers", {}) | {name: found}
            keep(result)


def keep(result: dict) -> None:
    """Write what is known so far."""
    kept = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(kept | {str(result["samples"]): result}, indent=2) + "\n")


if __name__ == "__main__":
    main()
