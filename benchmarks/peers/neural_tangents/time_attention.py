"""Time the kernels of a stack of attention blocks with neural-tangents; prints one JSON line for bench_transformer.py.

Usage: time_attention.py INPUTS TOKENS FEATURES BLOCKS REPEATS PRECISION.
"""

import json
import os
import sys
import time
import types

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAX_ENABLE_X64"] = str(sys.argv[6] == "float64")
sys.modules["neural_tangents.experimental"] = types.ModuleType("neural_tangents.experimental")

import jax  # noqa: E402
import numpy as np  # noqa: E402
from neural_tangents import stax  # noqa: E402


def main() -> None:
    """Compile once, then time the whole matrix of all pairs of inputs."""
    count, tokens, features, blocks, repeats = map(int, sys.argv[1:6])
    layers = []
    for _ in range(blocks):
        layers += [
            stax.GlobalSelfAttention(1, 1, 1, 1, linear_scaling=True, W_out_std=1.0, W_value_std=1.0),
            stax.Dense(1, 2**0.5),
            stax.Relu(),
            stax.Dense(1, 1.0),
        ]
    _, _, kernel_fn = stax.serial(*layers, stax.GlobalAvgPool(), stax.Dense(1, 1.0))
    evaluate = jax.jit(lambda x: tuple(kernel_fn(x, None, ("nngp", "ntk"))))
    x = np.random.default_rng(0).standard_normal((count, tokens, features)).astype(np.float32).astype(sys.argv[6])
    result = jax.block_until_ready(evaluate(x))
    seconds, processor = [], []
    for _ in range(repeats):
        start = time.perf_counter(), time.process_time()
        jax.block_until_ready(evaluate(x))
        seconds.append(time.perf_counter() - start[0])
        processor.append(time.process_time() - start[1])
    times = {"seconds": seconds, "processor_seconds": processor}
    found = {**times, "nngp": np.asarray(result[0]).tolist(), "ntk": np.asarray(result[1]).tolist()}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
