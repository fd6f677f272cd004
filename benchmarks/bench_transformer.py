"""A stack of attention blocks against the closest network of neural-tangents, in one run.

    bash benchmarks/peers/neural_tangents/make_env.sh
    python benchmarks/bench_transformer.py

The peer's softmax attention exists with scores over the head size and tied queries and keys, without residual sums:
so that is the network here, written as an ordinary module. Times are minima over repeats; only their ratio means
anything on a shared machine.
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


def main() -> None:
    """Both on the same inputs; the largest relative difference and the ratio of times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    features = 24
    sizes = [str(size) for size in (given.inputs, given.tokens, features, given.blocks, given.repeats)]
    answer = subprocess.run([str(PEER), str(SCRIPT), *sizes], capture_output=True, text=True, check=True)
    peer = json.loads(answer.stdout.splitlines()[-1])
    x = np.random.default_rng(0).standard_normal((given.inputs, given.tokens, features)).astype(np.float32)
    inputs = torch.from_numpy(x)
    program = ww.trace(Stack(features, given.blocks), inputs[:2])
    limit = ww.infinite(program, weight_std={"*.up.weight": 2**0.5, "*": 1.0})
    seconds = []
    for _ in range(given.repeats):
        start = time.perf_counter()
        found = limit(inputs, dtype=torch.float32)
        seconds.append(time.perf_counter() - start)
    for name in ("nngp", "ntk"):
        expected = torch.tensor(peer[name])
        difference = float(((getattr(found, name) - expected) / expected).abs().max())
        print(f"{name}: largest relative difference {difference:.1e}")
    print(
        f"{given.blocks} attention blocks, {given.tokens} tokens, {given.inputs} inputs, float32: neural-tangents "
        f"{min(peer['seconds']):.3f} s, widthwise {min(seconds):.3f} s, ratio {min(peer['seconds']) / min(seconds):.2f}"
    )


if __name__ == "__main__":
    main()
