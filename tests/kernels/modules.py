"""Ordinary modules from the neutral layer lists of the oracle file."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ORACLE = Path(__file__).parent / "oracles" / "neural_tangents.json"


def load_cases() -> tuple[dict[str, dict[str, Tensor]], list[dict[str, Any]]]:
    """Inputs by name and cases of the oracle file."""
    content = json.loads(ORACLE.read_text())
    inputs = {
        name: {side: torch.tensor(values, dtype=torch.float64) for side, values in sides.items()}
        for name, sides in content["inputs"].items()
    }
    return inputs, content["cases"]


class Erf(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.erf(x)


class Sin(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x)


class Abs(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.abs(x)


class GlobalAverage(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=tuple(range(2, x.dim())))


class Residual(nn.Module):
    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class Concat(nn.Module):
    def __init__(self, branches: list[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class Builder:
    """Builds a module and remembers the scales that its weights are meant to have."""

    def __init__(self) -> None:
        self.stds: dict[int, tuple[float, float | None]] = {}

    def sequence(self, layers: list[dict[str, Any]], shape: tuple[int, ...]) -> tuple[nn.Sequential, tuple[int, ...]]:
        modules = []
        for layer in layers:
            module = self.module(layer, shape)
            modules.append(module)
            shape = tuple(module(torch.zeros(2, *shape)).shape[1:])
        return nn.Sequential(*modules), shape

    def module(self, layer: dict[str, Any], shape: tuple[int, ...]) -> nn.Module:
        kind = layer["type"]
        simple = {
            "relu": nn.ReLU,
            "erf": Erf,
            "gelu": nn.GELU,
            "sin": Sin,
            "abs": Abs,
            "flatten": nn.Flatten,
            "global_avg_pool": GlobalAverage,
        }
        if kind in simple:
            return simple[kind]()
        if kind == "leaky_relu":
            return nn.LeakyReLU(layer["negative_slope"])
        if kind == "residual":
            return Residual(self.sequence(layer["branch"], shape)[0])
        if kind == "concat":
            return Concat([self.sequence(branch, shape)[0] for branch in layer["branches"]])
        if kind == "layer_norm":
            return nn.LayerNorm(shape[-1], eps=layer["eps"], elementwise_affine=False)
        if kind == "group_norm":
            return nn.GroupNorm(layer["num_groups"], shape[0], eps=layer["eps"], affine=False)
        if kind.startswith("avg_pool"):
            pools = {"avg_pool1d": nn.AvgPool1d, "avg_pool2d": nn.AvgPool2d}
            return pools[kind](layer["kernel_size"], layer["stride"])
        bias = layer["bias_std"] is not None
        if kind == "linear":
            made: nn.Module = nn.Linear(shape[-1], layer["width"], bias=bias)
        else:
            convolutions = {"conv1d": nn.Conv1d, "conv2d": nn.Conv2d, "conv3d": nn.Conv3d}
            options = {key: layer[key] for key in ("kernel_size", "stride", "padding", "padding_mode")}
            made = convolutions[kind](shape[0], layer["width"], bias=bias, **options)
        self.stds[id(made)] = (layer["weight_std"], layer["bias_std"])
        return made


def build(case: dict[str, Any], shape: tuple[int, ...]) -> tuple[nn.Module, dict[str, float], dict[str, float]]:
    """The module of a case, with sigma_w and sigma_b by parameter name."""
    builder = Builder()
    module, _ = builder.sequence(case["layers"], shape)
    weight_std, bias_std = {}, {}
    for name, part in module.named_modules():
        if id(part) in builder.stds:
            weight, bias = builder.stds[id(part)]
            weight_std[f"{name}.weight"] = weight
            if bias is not None:
                bias_std[f"{name}.bias"] = bias
    return module, weight_std, bias_std
