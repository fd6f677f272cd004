"""Time one of neural-tangents' empirical kernels on a network saved by bench_empirical_ntk.py; prints a JSON line.

Usage: empirical_kernels.py '{"case": ..., "method": ..., "chunk": ..., "repeats": ..., "network": ..., "save": ...}'.
The network is written out in JAX with the parameters of the PyTorch one, batch normalisation with its running
statistics, so that the kernels can be compared.
"""

import json
import os
import resource
import sys
import time
import types
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.modules["neural_tangents.experimental"] = types.ModuleType("neural_tangents.experimental")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import neural_tangents as nt  # noqa: E402
import numpy as np  # noqa: E402

EPS = 1e-5
Arrays = dict[str, jax.Array]


def mlp(parameters: Arrays, x: jax.Array) -> jax.Array:
    """Linear layers of a `torch.nn.Sequential` at 0, 2 and 4, ReLU between."""
    for layer in (0, 2, 4):
        x = x @ parameters[f"{layer}.weight"].T + parameters[f"{layer}.bias"]
        x = jax.nn.relu(x) if layer < 4 else x
    return x


def resnet18(parameters: Arrays, x: jax.Array) -> jax.Array:
    """`widthwise.nn.resnet` of four stages of two blocks, evaluation mode at initial running statistics (0 and 1)."""

    def norm(name: str, x: jax.Array) -> jax.Array:
        gain, bias = (parameters[f"{name}.{part}"][None, :, None, None] for part in ("weight", "bias"))
        return jax.nn.relu(x / (1 + EPS) ** 0.5 * gain + bias)

    def conv(name: str, x: jax.Array, stride: int = 1) -> jax.Array:
        weight = parameters[f"{name}.weight"]
        margin = weight.shape[-1] // 2
        pads = [(margin, margin)] * 2
        axes = ("NCHW", "OIHW", "NCHW")
        return jax.lax.conv_general_dilated(x, weight, (stride, stride), pads, dimension_numbers=axes)

    x = conv("stem", x)
    for stage in range(1, 5):
        for block in (1, 2):
            name = f"stage{stage}_block{block}"
            stride = 2 if stage > 1 and block == 1 else 1
            branch = conv(f"{name}.conv1", norm(f"{name}.norm1", x), stride)
            branch = conv(f"{name}.conv2", norm(f"{name}.norm2", branch))
            x = (conv(f"{name}.shortcut", x, stride) if stride == 2 else x) + branch
    x = norm("norm", x).mean((2, 3))
    return x @ parameters["readout.weight"].T + parameters["readout.bias"]


def main() -> None:
    """Compile once, then time."""
    options = json.loads(sys.argv[1])
    apply = {"mlp": mlp, "resnet18": resnet18}[options["case"]]
    stored = np.load(options["network"], allow_pickle=False)
    parameters = {name.removeprefix("p:"): jnp.asarray(stored[name]) for name in stored.files if name != "x"}
    x = jnp.asarray(stored["x"])[: options["examples"]]
    method = nt.NtkImplementation[options["method"]]
    kernel = nt.empirical_ntk_fn(apply, trace_axes=(-1,), vmap_axes=0, implementation=method)
    whole = options["chunk"] >= len(x)
    compute = jax.jit(lambda x, p: kernel(x, None, p)) if whole else None
    batched = None if whole else nt.batch(kernel, batch_size=options["chunk"])
    before = _rss()
    times, busy = [], []
    for _ in range(1 + options["repeats"]):
        start, cpu = time.perf_counter(), time.process_time()
        found = compute(x, parameters) if compute else batched(x, None, parameters)
        found.block_until_ready()
        times.append(time.perf_counter() - start)
        busy.append(time.process_time() - cpu)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    if options["save"]:
        np.save(options["save"], np.asarray(found))
    print(json.dumps({"seconds": min(times), "cpu": min(busy), "mib": max(0.0, peak - before)}))


def _rss() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
