"""Time the kernels of a stack of attention blocks with neural-tangents; prints one JSON line for bench_transformer.py.

Usage: time_attention.py INPUTS TOKENS FEATURES BLOCKS REPEATS.
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
    count, tokens, features, blocks, repeats = map(int, sys.argv[1:])
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
    x = np.random.default_rng(0).standard_normal((count, tokens, features)).astype(np.float32)
    result = jax.block_until_ready(evaluate(x))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(evaluate(x))
        seconds.append(time.perf_counter() - start)
    found = {"seconds": seconds, "nngp": np.asarray(result[0]).tolist(), "ntk": np.asarray(result[1]).tolist()}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
