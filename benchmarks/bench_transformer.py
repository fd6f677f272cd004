"""A stack of attention blocks against the closest network of neural-tangents, in one run.

    bash benchmarks/peers/neural_tangents/make_env.sh
    python benchmarks/bench_transformer.py

The peer's softmax attention exists with scores over the head size and tied queries and keys, without residual sums:
so that is the network here, written as an ordinary module. Both are compiled before they are timed. Times are minima
over repeats and rounds; only their ratio means anything on a shared machine.
"""

import argparse
import json
import subprocess
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import widthwise as ww

PEER = Path(__file__).parent / ".peers/neural-tangents/bin/python"
SCRIPT = Path(__file__).parent / "peers/neural_tangents/time_attention.py"
WIDTH = 32
Kernels = tuple[Tensor, ...]


class Block(nn.Module):
    """Attention with tied queries and keys over the head size, and a perceptron."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.key, self.value = (nn.Linear(inputs, WIDTH, bias=False) for _ in range(2))
        self.out, self.up, self.down = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        key = self.key(x)
        weights = torch.softmax(key @ key.transpose(1, 2) / WIDTH, -1)
        return self.down(torch.relu(self.up(self.out(weights @ self.value(x)))))


class Stack(nn.Module):
    """Blocks, mean over tokens, readout."""

    def __init__(self, features: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*[Block(WIDTH if index else features) for index in range(blocks)])
        self.readout = nn.Linear(WIDTH, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.blocks(x).mean(1))


def peer_times(sizes: list[str]) -> dict[str, list]:
    """What the peer finds, in a process of its own: kernels, seconds and processor seconds of each repeat."""
    answer = subprocess.run([str(PEER), str(SCRIPT), *sizes], capture_output=True, text=True, check=True)
    found: dict[str, list] = json.loads(answer.stdout.splitlines()[-1])
    return found


def own_times(limit: ww.Limit, inputs: Tensor, dtype: torch.dtype, repeats: int) -> list[tuple[float, float]]:
    """Seconds and processor seconds of each repeat, after one that loads the engine."""
    limit(inputs, dtype=dtype)
    found = []
    for _ in range(repeats):
        start = time.perf_counter(), time.process_time()
        limit(inputs, dtype=dtype)
        found.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return found


def main() -> None:
    """Both on the same inputs, in turns; the largest relative difference and the ratio of times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    features = 24
    sizes = [str(size) for size in (given.inputs, given.tokens, features, given.blocks, given.repeats)]
    x = np.random.default_rng(0).standard_normal((given.inputs, given.tokens, features)).astype(np.float32)
    inputs = torch.from_numpy(x)
    program = ww.trace(Stack(features, given.blocks), inputs[:2])
    scales = {"*.up.weight": 2**0.5, "*": 1.0}
    limit, plain = (ww.infinite(program, weight_std=scales, engine=engine) for engine in ("numba", "torch"))
    times: dict[tuple[str, str], list[tuple[float, float]]] = {}
    kernels: dict[tuple[str, str], Kernels] = {}
    for _ in range(given.rounds):
        for name, dtype in (("float32", torch.float32), ("float64", torch.float64)):
            answer = peer_times([*sizes, name])
            kernels["neural-tangents", name] = tuple(torch.tensor(answer[kernel]) for kernel in ("nngp", "ntk"))
            seconds = zip(answer["seconds"], answer["processor_seconds"], strict=True)
            times.setdefault(("neural-tangents", name), []).extend(seconds)
            times.setdefault(("widthwise", name), []).extend(own_times(limit, inputs, dtype, given.repeats))
            kernels["widthwise", name] = limit(inputs, dtype=dtype)
    exact = plain(inputs)
    for name in ("float32", "float64"):
        ours, theirs = kernels["widthwise", name], kernels["neural-tangents", name]
        print(f"{name}, largest relative differences of NNGP and NTK: from neural-tangents {relative(ours, theirs)}; ")
        print(f"    from PyTorch's engine in float64 {relative(ours, exact)}; the peer's {relative(theirs, exact)}")
    threads = torch.get_num_threads()
    print(f"{given.blocks} attention blocks, {given.tokens} tokens, {given.inputs} inputs, {threads} threads:")
    for name in ("float32", "float64"):
        for place, what in enumerate(("seconds", "processor seconds")):
            best = [min(one[place] for one in times[who, name]) for who in ("neural-tangents", "widthwise")]
            print(
                f"{name}, {what}: neural-tangents {best[0]:.4f}, widthwise {best[1]:.4f}, {best[0] / best[1]:.1f} times"
            )


def relative(found: Kernels, expected: Kernels) -> str:
    """Largest relative difference of each kernel."""
    worst = [float(((one - other) / other).abs().max()) for one, other in zip(found, expected, strict=True)]
    return ", ".join(f"{value:.1e}" for value in worst)


if __name__ == "__main__":
    main()
