"""The architectures of the oracle, described in PyTorch's terms (channels first, symmetric integer padding)."""

from typing import Any

Layer = dict[str, Any]
Case = dict[str, Any]

ACTIVATIONS: list[Layer] = [
    {"type": "relu"},
    {"type": "erf"},
    {"type": "gelu"},
    {"type": "leaky_relu", "negative_slope": 0.1},
    {"type": "sin"},
    {"type": "abs"},
]


def linear(weight_std: float = 1.0, bias_std: float | None = None, width: int = 512) -> Layer:
    return {"type": "linear", "width": width, "weight_std": weight_std, "bias_std": bias_std}


def conv(
    dims: int,
    kernel_size: int = 3,
    stride: int = 1,
    padding: int = 0,
    weight_std: float = 1.4,
    bias_std: float | None = 0.1,
    width: int = 64,
    padding_mode: str = "zeros",
) -> Layer:
    return {
        "type": f"conv{dims}d",
        "width": width,
        "kernel_size": kernel_size,
        "stride": stride,
        "padding": padding,
        "padding_mode": padding_mode,
        "weight_std": weight_std,
        "bias_std": bias_std,
    }


def residual(*branch: Layer) -> Layer:
    return {"type": "residual", "branch": list(branch)}


def concat(*branches: list[Layer]) -> Layer:
    return {"type": "concat", "branches": list(branches)}


RELU: Layer = {"type": "relu"}
ERF: Layer = {"type": "erf"}
FLATTEN: Layer = {"type": "flatten"}
GLOBAL: Layer = {"type": "global_avg_pool"}
NORM: Layer = {"type": "layer_norm", "eps": 1e-5}


def pool(dims: int, kernel_size: int = 2) -> Layer:
    return {"type": f"avg_pool{dims}d", "kernel_size": kernel_size, "stride": kernel_size}


def cases() -> list[Case]:
    """Every case: name, name of its inputs, parametrisation, layers."""
    found: list[Case] = []

    def add(name: str, inputs: str, *layers: Layer, parametrization: str = "ntk") -> None:
        found.append({"name": name, "inputs": inputs, "parametrization": parametrization, "layers": list(layers)})

    _dense(add)
    _convolutions(add)
    _structure(add)
    _standard(add)
    return found


def _dense(add: Any) -> None:
    for activation in ACTIVATIONS:
        kind = activation["type"]
        for depth in (1, 2, 3):
            hidden = [linear(1.3, 0.2), activation] * depth
            add(f"dense-{kind}-{depth}", "vectors", *hidden, linear(0.9, 0.3, 1))
        add(f"dense-{kind}-no-bias", "vectors", linear(1.5), activation, linear(1.0, None, 1))
    add("dense-linear", "vectors", linear(1.2, 0.1), linear(0.8, 0.4), linear(1.1, None, 1))
    add("dense-relu-critical-6", "vectors", *[linear(2.0**0.5), RELU] * 6, linear(1.0, None, 1))


def _convolutions(add: Any) -> None:
    head = linear(1.0, 0.1, 1)
    add("conv1d-valid-flatten", "sequences", conv(1), RELU, conv(1), RELU, FLATTEN, head)
    add("conv1d-same-global", "sequences", conv(1, padding=1), ERF, conv(1, padding=1), ERF, GLOBAL, head)
    add("conv1d-kernel5-stride2", "sequences_odd", conv(1, 5, 2, 2), RELU, conv(1, padding=1), RELU, GLOBAL, head)
    add("conv1d-circular", "sequences", conv(1, padding=1, padding_mode="circular"), RELU, GLOBAL, head)
    add("conv2d-valid-flatten", "images", conv(2), RELU, conv(2), RELU, FLATTEN, head)
    add("conv2d-valid-global", "images", conv(2), RELU, conv(2), RELU, GLOBAL, head)
    add("conv2d-same-flatten", "images", conv(2, padding=1), RELU, conv(2, padding=1), RELU, FLATTEN, head)
    add("conv2d-same-global", "images", conv(2, padding=1), RELU, conv(2, padding=1), RELU, GLOBAL, head)
    add("conv2d-same-global-gelu", "images", conv(2, padding=1), {"type": "gelu"}, GLOBAL, head)
    add("conv2d-1x1", "images", conv(2, 1), ERF, conv(2, 1), ERF, GLOBAL, head)
    add("conv2d-kernel5", "images", conv(2, 5, padding=2), RELU, GLOBAL, head)
    stride_even = [conv(2, 3, 2, 1), RELU, conv(2, padding=1), RELU]
    add("conv2d-stride2-even-flatten", "images", *stride_even, FLATTEN, head)
    add("conv2d-stride2-even-global", "images", *stride_even, GLOBAL, head)
    stride_odd = [conv(2, 3, 2, 1), RELU, conv(2, 3, 2, 1), RELU]
    add("conv2d-stride2-odd-flatten", "images_odd", *stride_odd, FLATTEN, head)
    add("conv2d-stride2-odd-global", "images_odd", *stride_odd, GLOBAL, head)
    add("conv2d-stride2-valid", "images_odd", conv(2, 3, 2), ERF, GLOBAL, head)
    add("conv2d-circular", "images", conv(2, padding=1, padding_mode="circular"), RELU, FLATTEN, head)
    pooled = [conv(2, padding=1), RELU, pool(2), conv(2, padding=1), RELU]
    add("conv2d-avgpool-flatten", "images", *pooled, FLATTEN, head)
    add("conv2d-avgpool-global", "images", *pooled, GLOBAL, head)
    add("conv2d-avgpool-last", "images", conv(2, padding=1), RELU, pool(2), FLATTEN, head)
    add("conv2d-avgpool-first", "images", pool(2), conv(2, padding=1), RELU, FLATTEN, head)
    add("conv1d-avgpool", "sequences", conv(1, padding=1), RELU, pool(1), conv(1), RELU, FLATTEN, head)
    add("conv2d-dense-head", "images", conv(2, padding=1), RELU, FLATTEN, linear(1.3, 0.2), RELU, head)


def _structure(add: Any) -> None:
    head = linear(1.0, 0.1, 1)
    block = [linear(1.2, 0.1), RELU, linear(0.8, 0.2)]
    add("residual-dense-1", "vectors", linear(1.0, 0.1), residual(*block), RELU, head)
    add("residual-dense-3", "vectors", linear(1.0), *[residual(*block)] * 3, RELU, head)
    add("residual-preactivation", "vectors", linear(1.0, 0.1), *[residual(RELU, linear(1.2, 0.1))] * 3, RELU, head)
    conv_block = [RELU, conv(2, padding=1), RELU, conv(2, padding=1, weight_std=1.0)]
    stem = conv(2, padding=1)
    add("residual-conv-global", "images", stem, residual(*conv_block), RELU, GLOBAL, head)
    add("residual-conv-flatten", "images", stem, residual(*conv_block), RELU, FLATTEN, head)
    add("residual-conv-pool", "images", stem, residual(*conv_block), RELU, pool(2), conv(2), RELU, GLOBAL, head)
    add("layer-norm-dense", "vectors", linear(1.3, 0.2), NORM, RELU, linear(1.3, 0.2), NORM, RELU, head)
    add("layer-norm-gelu", "vectors", linear(1.3), NORM, {"type": "gelu"}, head)
    add("layer-norm-residual", "vectors", linear(1.0), *[residual(NORM, RELU, linear(1.0))] * 2, NORM, RELU, head)
    group_norm = {"type": "group_norm", "num_groups": 1, "eps": 1e-5}
    add("group-norm-conv-flatten", "images", conv(2), group_norm, RELU, FLATTEN, head)
    add("group-norm-conv-global", "images", conv(2, padding=1), group_norm, RELU, conv(2), RELU, GLOBAL, head)
    two = concat([linear(1.3, 0.2, 128), RELU], [linear(0.9, None, 384), ERF])
    add("concat-branches", "vectors", two, head)
    add("concat-then-dense", "vectors", linear(1.1), RELU, two, linear(1.2, 0.1), RELU, head)
    conv_two = concat([conv(2, 1, width=96), RELU], [conv(2, padding=1, width=32), RELU])
    add("concat-conv", "images", conv_two, conv(2, padding=1), RELU, GLOBAL, head)


def _standard(add: Any) -> None:
    head = linear(1.0, 0.1, 1)
    hidden = [linear(1.3, 0.2, 96), RELU, linear(1.2, 0.1, 64), RELU]

    def standard(name: str, inputs: str, *layers: Layer) -> None:
        add(f"standard-{name}", inputs, *layers, parametrization="standard")

    standard("dense-relu", "vectors", *hidden, head)
    standard("dense-no-bias", "vectors", linear(1.4, None, 96), ERF, linear(1.0, None, 1))
    standard("dense-gelu", "vectors", linear(1.3, 0.2, 200), {"type": "gelu"}, linear(1.0, None, 1))
    standard("conv2d-flatten", "images", conv(2, width=24), RELU, conv(2, width=40), RELU, FLATTEN, head)
    standard("conv2d-global", "images", conv(2, padding=1, width=24), RELU, conv(2, width=40), RELU, GLOBAL, head)
    standard("conv2d-no-bias", "images", conv(2, padding=1, width=24, bias_std=None), RELU, FLATTEN, linear(width=1))
    standard("conv1d-global", "sequences", conv(1, padding=1, width=24), RELU, GLOBAL, head)
    standard("avgpool", "images", conv(2, padding=1, width=24), RELU, pool(2), conv(2, width=16), RELU, FLATTEN, head)
    block = [linear(1.2, 0.1, 96), RELU, linear(0.8, 0.2, 96)]
    standard("residual", "vectors", linear(1.0, None, 96), residual(*block), RELU, head)
    standard("layer-norm", "vectors", linear(1.3, 0.2, 96), NORM, RELU, linear(1.1, 0.1, 48), NORM, RELU, head)
    standard("concat", "vectors", concat([linear(1.3, 0.2, 128), RELU], [linear(0.9, None, 384), ERF]), head)
