"""Initial weights of the built-in models."""

from math import sqrt

import torch
from torch import nn


@torch.no_grad()
def he_(layer: nn.Module) -> None:
    """Normal weights of variance 2 / fan-in and zero biases, for a layer next to a ReLU (arXiv:1502.01852, eq. 10)."""
    _normal_(layer, 2.0)


@torch.no_grad()
def lecun_(layer: nn.Module, gain: float = 1.0) -> None:
    """Normal weights of variance `gain` / fan-in and zero biases, for a layer without a ReLU after it."""
    _normal_(layer, gain)


def _normal_(layer: nn.Module, gain: float) -> None:
    weight, bias = layer.get_parameter("weight"), getattr(layer, "bias", None)
    fan_in = weight[0].numel()
    nn.init.normal_(weight, std=sqrt(gain / fan_in))
    if bias is not None:
        nn.init.zeros_(bias)
