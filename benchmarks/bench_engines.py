"""The fused engine against neural-tangents and against the machine's matrix product, in one run.

    bash benchmarks/peers/neural_tangents/make_env.sh
    python benchmarks/bench_engines.py

Times are minima over repeats; on a machine that is shared, only ratios within one run mean anything.
"""

import argparse
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

import widthwise as ww
from widthwise.kernels.engines import compile_plan

PEER = Path(__file__).parent / ".peers/neural-tangents/bin/python"
SCRIPT = Path(__file__).parent / "peers/neural_tangents/time_kernels.py"
RELU_LAYER_FLOPS = 54
"""Additions and multiplications per covariance and layer (a fused one counts two, a square root one; absolute values,
signs and comparisons none) that the machine executes on average: window sums 8, scales and constants 6, products of
deviations 1, correlation 2, distance from one and its root 2, two polynomials 28, both transforms 8; the first layer
has no tangents (6 less), the last is added up (2 more)."""
EARLIER_FLOPS = 59
"""What the engine executed before its angle became one polynomial: the figures of earlier versions are counted so."""


def best(run: Callable[[], object], repeats: int) -> float:
    """Smallest time of several calls."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def convolutional(head: str, size: int) -> nn.Module:
    layers: list[nn.Module] = []
    for index in range(4):
        layers += [nn.Conv2d(16 if index else 1, 16, 3, padding=1), nn.ReLU()]
    pool = [nn.AdaptiveAvgPool2d(1)] if head == "gap" else []
    return nn.Sequential(*layers, *pool, nn.Flatten(), nn.Linear(16 if head == "gap" else 16 * size * size, 1))


def peak(repeats: int) -> float:
    """Floating-point operations per second of a float32 matrix product."""
    a = torch.randn(2048, 2048)
    return 2 * 2048**3 / best(lambda: a @ a, repeats)


def limit_of(head: str, size: int) -> ww.Limit:
    program = ww.trace(convolutional(head, size), torch.zeros(2, 1, size, size))
    return ww.infinite(program, weight_std=2**0.5, bias_std=0.1, engine="numba")


def convolutions(head: str, size: int, count: int, repeats: int = 5) -> float:
    """Seconds per computed pair of inputs, printed beside the fraction of the matrix product's rate."""
    limit = limit_of(head, size)
    x = torch.randn(count, 1, size, size)
    limit(x[:2], dtype=torch.float32)
    turns = [(1 / peak(2), best(lambda: limit(x, dtype=torch.float32), 1)) for _ in range(repeats)]
    flop, seconds = np.array(turns).T
    plan = compile_plan(limit.output, contribution=lambda _, variance, fan_in: variance)
    assert plan is not None
    pairs = count * (count + 1) / 2
    whole, median = plan.work * pairs * flop.min() / seconds.min(), np.median(plan.work * pairs * flop / seconds)
    print(
        f"{head} {size}x{size}: {1e3 * seconds.min() / pairs:.4g} ms per computed pair ({count} inputs), "
        f"{100 * whole * RELU_LAYER_FLOPS:.0f} % of the matrix product's {1e-9 / flop.min():.0f} GFLOP/s (best over "
        f"best; median of turns {100 * median * RELU_LAYER_FLOPS:.0f} %), counting the {RELU_LAYER_FLOPS} operations "
        f"per covariance and layer that are executed; {100 * whole * EARLIER_FLOPS:.0f} % counting {EARLIER_FLOPS}",
        flush=True,
    )
    return seconds.min() / pairs


def against_peer(head: str, size: int, count: int, peer_count: int) -> None:
    """Seconds per pair of inputs of both, where either computes what its own symmetry leaves to compute."""
    answer = subprocess.run(
        [str(PEER), str(SCRIPT), str(peer_count), str(size), head, "2"], capture_output=True, text=True, check=True
    )
    peer = json.loads(answer.stdout.splitlines()[-1])
    per_pair = min(peer["seconds"]) / peer_count**2
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((peer_count, size, size, 1)).astype(np.float32))
    found = limit_of(head, size)(x.permute(0, 3, 1, 2), dtype=torch.float32).ntk
    expected = torch.tensor(peer["ntk"])
    own = convolutions(head, size, count)
    print(
        f"  neural-tangents {1e3 * per_pair:.4g} ms per pair ({peer_count} inputs): {per_pair / own:.0f} times as long "
        f"per computed pair, {per_pair / own * 2 * count / (count + 1):.0f} per entry of the matrix; "
        f"largest relative difference {float(((found - expected) / expected).abs().max()):.1e}"
    )


def clocked(run: Callable[[], object]) -> np.ndarray:
    """Wall and processor seconds of a call."""
    before = time.perf_counter(), time.process_time()
    run()
    return np.array([time.perf_counter() - before[0], time.process_time() - before[1]])


def dense(count: int, repeats: int = 7) -> None:
    """Both kernels of dense ReLU networks over the time of X X^T, one after the other in turn."""
    x = torch.randn(count, 784)
    for depth in (3, 30):
        layers: list[nn.Module] = [nn.Linear(784, 16, bias=False), nn.ReLU()]
        for _ in range(depth - 2):
            layers += [nn.Linear(16, 16, bias=False), nn.ReLU()]
        module = nn.Sequential(*layers, nn.Linear(16, 1, bias=False))
        limit = ww.infinite(ww.trace(module, x[:2]), weight_std=2**0.5, engine="numba")
        limit(x[:64], dtype=torch.float32)
        pairs = [(clocked(lambda: x @ x.T), clocked(lambda: limit(x, dtype=torch.float32))) for _ in range(repeats)]  # noqa: B023
        products, kernels = (np.stack(found) for found in zip(*pairs, strict=True))
        ratios = kernels / products
        print(
            f"dense, depth {depth}, {count} inputs, both kernels over the matrix product X X^T: "
            f"wall {ratios[:, 0].min():.2f} (best), {np.median(ratios[:, 0]):.2f} (median), "
            f"processor {ratios[:, 1].min():.2f}, {np.median(ratios[:, 1]):.2f}, of {repeats} in turn; best of the one "
            f"over best of the other: wall {kernels[:, 0].min() / products[:, 0].min():.2f}, processor "
            f"{kernels[:, 1].min() / products[:, 1].min():.2f}; X X^T takes {products[:, 0].min():.2f} s wall, "
            f"{products[:, 1].min():.2f} s processor",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dense", action="store_true", help="dense networks alone, which need no peer")
    parser.add_argument("--convolutions", action="store_true", help="convolutional networks alone, without the peer")
    options = parser.parse_args()
    print(f"{torch.get_num_threads()} threads")
    if options.convolutions:
        convolutions("gap", 28, 24)
        convolutions("gap", 28, 64)
        convolutions("flatten", 28, 600)
    elif not options.dense:
        against_peer("gap", 28, 24, 2)
        against_peer("flatten", 28, 600, 100)
    if not options.convolutions:
        dense(10_000)
