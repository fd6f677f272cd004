"""Time NTKs of convolutional networks with neural-tangents; prints one JSON line for bench_engines.py.

Usage: time_kernels.py INPUTS SIZE HEAD REPEATS, with HEAD gap or flatten.
"""

import json
import os
import sys
import time
import types

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.modules["neural_tangents.experimental"] = types.ModuleType("neural_tangents.experimental")

import jax  # noqa: E402
import numpy as np  # noqa: E402
from neural_tangents import stax  # noqa: E402


def main() -> None:
    """Compile once, then time the whole matrix of all pairs of inputs."""
    count, size, head, repeats = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    layers = []
    for _ in range(4):
        layers += [stax.Conv(1, (3, 3), padding="SAME", W_std=2**0.5, b_std=0.1), stax.Relu()]
    layers += [stax.GlobalAvgPool() if head == "gap" else stax.Flatten(), stax.Dense(1, 2**0.5, 0.1)]
    _, _, kernel_fn = stax.serial(*layers)
    evaluate = jax.jit(lambda x: tuple(kernel_fn(x, None, ("nngp", "ntk"))))
    x = np.random.default_rng(0).standard_normal((count, size, size, 1)).astype(np.float32)
    result = jax.block_until_ready(evaluate(x))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(evaluate(x))
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"seconds": seconds, "ntk": np.asarray(result[1]).tolist()}))


if __name__ == "__main__":
    main()
