"""Write tests/kernels/oracles/neural_tangents.json: kernels by another library, on fixed small inputs.

Run inside the environment that make_env.sh builds:

    bash benchmarks/peers/neural_tangents/make_env.sh
    benchmarks/.peers/neural-tangents/bin/python benchmarks/peers/neural_tangents/oracle_values.py

neural-tangents keeps channels last: inputs are turned from N C H W (as stored in the file) before each call.
Its SAME padding agrees with PyTorch's symmetric padding for stride 1 and odd kernels, and for stride 2 on odd
sizes; where the two differ (stride 2 on even sizes), the first layer's inputs are zero-padded here and the layer
is VALID. An assertion guards every other use.
"""

import json
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.modules["neural_tangents.experimental"] = types.ModuleType("neural_tangents.experimental")

import jax  # noqa: E402
import neural_tangents as nt  # noqa: E402
import numpy as np  # noqa: E402
from _cases import Case, Layer, cases  # noqa: E402
from neural_tangents import stax  # noqa: E402

TARGET = Path(__file__).resolve().parents[3] / "tests/kernels/oracles/neural_tangents.json"
SHAPES = {"vectors": (6,), "sequences": (3, 8), "sequences_odd": (3, 9), "images": (2, 6, 6), "images_odd": (2, 5, 5)}
ACTIVATIONS: dict[str, Callable[[Layer], Any]] = {
    "relu": lambda layer: stax.Relu(),
    "erf": lambda layer: stax.Erf(),
    "gelu": lambda layer: stax.Gelu(approximate=False),
    "leaky_relu": lambda layer: stax.LeakyRelu(layer["negative_slope"]),
    "sin": lambda layer: stax.Sin(),
    "abs": lambda layer: stax.Abs(),
}
NOTES = {
    "layout": "inputs are channels first: [n, features], [n, channels, length], [n, channels, height, width]",
    "points": "x1[3] = -x1[0]; x2[0] = x1[1]; the rest are independent standard normals rounded to 3 decimals",
    "ntk": "parametrization 'ntk': each weight is weight_std / sqrt(fan_in) * w and each bias bias_std * b, with "
    "w, b ~ N(0, 1) trained; fan_in counts kernel taps (and positions after flatten)",
    "standard": "parametrization 'standard': weights ~ N(0, weight_std^2 / fan_in) and biases ~ N(0, bias_std^2) are "
    "trained as they are, so a layer adds fan_in * K of its normalised inputs and 1 for its bias to the NTK; "
    "widths as written in the layers",
    "bias_std": "null: the layer has no bias",
    "norms": "layer_norm normalises the features, group_norm with one group the channels and positions; no affine part",
    "residual": "x + branch(x)",
    "concat": "branches joined along the features or channels",
    "gelu": "exact (erf) form",
    "kernels": "nngp[i][j] and ntk[i][j] belong to x1[i], x1[j]; nngp_12 and ntk_12 to x1[i], x2[j]; "
    "the last layer is the output, and the kernels are those of the output",
}


def build(layers: list[Layer], parametrization: str, size: int | None) -> tuple[Any, int]:
    """The stax network and the zero padding that its inputs need on each side."""
    parts, padding = [], 0
    for index, layer in enumerate(layers):
        part, extra, size = _layer(layer, parametrization, size, first=index == 0)
        parts.append(part)
        padding += extra
    return stax.serial(*parts), padding


def _layer(layer: Layer, parametrization: str, size: int | None, first: bool) -> tuple[Any, int, int | None]:
    kind = layer["type"]
    if kind in ACTIVATIONS:
        return ACTIVATIONS[kind](layer), 0, size
    if kind == "linear":
        weights = {"W_std": layer["weight_std"], "b_std": layer["bias_std"]}
        return stax.Dense(layer["width"], parameterization=parametrization, **weights), 0, size
    if kind.startswith("conv"):
        return _conv(layer, parametrization, size, first)
    if kind.startswith("avg_pool"):
        window = (layer["kernel_size"],) * int(kind[-2])
        return stax.AvgPool(window, window, "VALID"), 0, size // layer["kernel_size"]
    if kind == "residual":
        branch, _ = build(layer["branch"], parametrization, size)
        return stax.serial(stax.FanOut(2), stax.parallel(stax.Identity(), branch), stax.FanInSum()), 0, size
    if kind == "concat":
        branches = [build(branch, parametrization, size)[0] for branch in layer["branches"]]
        return stax.serial(stax.FanOut(len(branches)), stax.parallel(*branches), stax.FanInConcat()), 0, size
    if kind == "layer_norm":
        return stax.LayerNorm(axis=-1, eps=layer["eps"]), 0, size
    if kind == "group_norm":
        return stax.LayerNorm(axis=(1, 2, 3), eps=layer["eps"]), 0, size
    return {"flatten": stax.Flatten, "global_avg_pool": stax.GlobalAvgPool}[kind](), 0, None


def _conv(layer: Layer, parametrization: str, size: int, first: bool) -> tuple[Any, int, int]:
    kernel, stride, padding = layer["kernel_size"], layer["stride"], layer["padding"]
    after = (size + 2 * padding - kernel) // stride + 1
    mode, extra = "VALID", 0
    if layer["padding_mode"] == "circular":
        assert stride == 1 and 2 * padding == kernel - 1
        mode = "CIRCULAR"
    elif padding and _same_is_symmetric(size, kernel, stride, padding):
        mode = "SAME"
    elif padding:
        assert first, "padding differs from PyTorch's inside the network"
        extra = padding
    dims = int(layer["type"][-2])
    weights = {"W_std": layer["weight_std"], "b_std": layer["bias_std"]}
    network = stax.Conv(
        layer["width"], (kernel,) * dims, (stride,) * dims, mode, parameterization=parametrization, **weights
    )
    return network, extra, after


def _same_is_symmetric(size: int, kernel: int, stride: int, padding: int) -> bool:
    outputs = -(-size // stride)
    return max((outputs - 1) * stride + kernel - size, 0) == 2 * padding


def inputs() -> dict[str, dict[str, np.ndarray]]:
    """Fixed points of every shape, channels first."""
    generator = np.random.default_rng(0)
    found = {}
    for name, shape in SHAPES.items():
        x1 = generator.standard_normal((4, *shape)).round(3)
        x2 = generator.standard_normal((3, *shape)).round(3)
        x1[3] = -x1[0]
        x2[0] = x1[1]
        found[name] = {"x1": x1, "x2": x2}
    return found


def evaluate(case: Case, points: dict[str, np.ndarray]) -> dict[str, list[list[float]]]:
    """Both kernels of one case, as nested lists of float64."""
    shape = SHAPES[case["inputs"]]
    (_, _, kernel_fn), padding = build(case["layers"], case["parametrization"], shape[-1] if len(shape) > 1 else None)
    x1, x2 = (_channels_last(points[name], padding) for name in ("x1", "x2"))
    same, cross = kernel_fn(x1, None, ("nngp", "ntk")), kernel_fn(x1, x2, ("nngp", "ntk"))
    found = {"nngp": same.nngp, "ntk": same.ntk, "nngp_12": cross.nngp, "ntk_12": cross.ntk}
    for name, value in found.items():
        assert value.dtype == np.float64 and np.isfinite(value).all(), (case["name"], name)
    return {name: np.asarray(value).tolist() for name, value in found.items()}


def _channels_last(points: np.ndarray, padding: int) -> np.ndarray:
    moved = np.moveaxis(points, 1, -1)
    return np.pad(moved, [(0, 0), *[(padding, padding)] * (moved.ndim - 2), (0, 0)]) if padding else moved


def main() -> None:
    """Evaluate every case and write the file."""
    points = inputs()
    found = []
    for case in cases():
        print(case["name"], flush=True)
        found.append({**case, **evaluate(case, points[case["inputs"]])})
    document = {
        "source": f"neural-tangents {nt.__version__}, jax {jax.__version__}, float64, CPU",
        "notes": NOTES,
        "inputs": {name: {key: value.tolist() for key, value in pair.items()} for name, pair in points.items()},
        "cases": found,
    }
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(case) for case in document.pop("cases"))
    head = json.dumps(document, indent=None)[:-1]
    TARGET.write_text(f'{head}, "cases": [\n{lines}\n]}}\n', encoding="utf-8")
    print(f"{len(found)} cases, {TARGET.stat().st_size / 1024:.0f} kB: {TARGET}")


if __name__ == "__main__":
    main()
