"""Time one of neural-tangents' empirical kernels on a network saved by bench_empirical_ntk.py; prints a JSON line.

Usage: empirical_kernels.py '{"case": ..., "method": ..., "chunk": ..., "repeats": ..., "network": ..., "small": ...,
"save": ...}'; the method ``VECTOR`` is the product of the kernel with a vector.
The network is written out in JAX with the parameters of the PyTorch one, batch normalisation with its running
statistics, so that the kernels can be compared.
"""

import json
import os
import sys
import time
import types
from collections.abc import Callable
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


def stored(path: str) -> tuple[Arrays, jax.Array, jax.Array]:
    """Parameters, inputs and vector of a saved network."""
    arrays = np.load(path, allow_pickle=False)
    parameters = {name.removeprefix("p:"): jnp.asarray(part) for name, part in arrays.items() if name.startswith("p:")}
    return parameters, jnp.asarray(arrays["x"]), jnp.asarray(arrays["v"])


def method_of(apply: Callable, name: str, chunk: int) -> Callable[[Arrays, jax.Array, jax.Array], jax.Array]:
    """The kernel of all inputs in tiles of `chunk`, or the product, compiled at the first call."""
    if name == "VECTOR":
        return jax.jit(lambda parameters, x, v: nt.empirical_ntk_vp_fn(apply, x, None, parameters)(v))
    method = nt.NtkImplementation[name]
    kernel = nt.empirical_ntk_fn(apply, trace_axes=(-1,), vmap_axes=0, implementation=method)
    whole = jax.jit(lambda parameters, x: kernel(x, None, parameters))
    tiles = nt.batch(kernel, batch_size=chunk)
    return lambda parameters, x, v: whole(parameters, x) if chunk >= len(x) else tiles(x, None, parameters)


def main() -> None:
    """Call it on a small network, so that what is loaded once is loaded; then measure."""
    options = json.loads(sys.argv[1])
    compute = method_of({"mlp": mlp, "resnet18": resnet18}[options["case"]], options["method"], options["chunk"])
    parameters, x, v = stored(options["network"])
    x, v = x[: options["examples"]], v[: options["examples"]]
    compute(*stored(options["small"])).block_until_ready()
    found, kernel = measured(lambda: compute(parameters, x, v).block_until_ready(), options["repeats"])
    if options["save"]:
        np.save(options["save"], np.asarray(kernel))
    print(json.dumps(found))


def measured(compute: Callable[[], jax.Array], repeats: int) -> tuple[dict[str, float], jax.Array]:
    """As in `_empirical_ntk_methods.measured`, which this interpreter cannot import."""
    before = _memory("VmRSS")
    times, busy, peaks = [], [], []
    for _ in range(1 + repeats):
        Path("/proc/self/clear_refs").write_text("5")
        start, cpu = time.perf_counter(), time.process_time()
        result = compute()
        times.append(time.perf_counter() - start)
        busy.append(time.process_time() - cpu)
        peaks.append(_memory("VmHWM") - before)
    return {"seconds": min(times), "cpu": min(busy), "mib": peaks[0], "later": max(peaks[1:], default=0.0)}, result


def _memory(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 2**10


if __name__ == "__main__":
    main()
