"""From theory to a module: critical initial weights, and learning rates that let every layer learn alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from widthwise.core import Value, generator
from widthwise.numerics import Activation
from widthwise.theory.effective._critical import critical
from widthwise.theory.effective._flow import PerLayer, flow, per_layer
from widthwise.theory.effective._gauss import EffectiveTheoryError, Elementwise

Layers = Float[np.ndarray, "layers"]


@dataclass(frozen=True)
class LayerRates(Value):
    """Learning-rate tensor of a multilayer perceptron: lambda_b for biases, lambda_W / n_{l-1} for weights.

    Attributes:
        lambda_b, lambda_W: per layer 1..L.
        contributions: what each layer adds to the mean NTK of the output.
        theta: their sum.
    """

    lambda_b: Layers
    lambda_W: Layers
    contributions: Layers
    theta: float


def balanced_rates(
    widths: Sequence[int],
    activation: Activation | Elementwise | str,
    C_b: PerLayer | None = None,
    C_W: PerLayer | None = None,
    *,
    total: float = 1.0,
    bias_share: float = 0.5,
    square: float = 1.0,
) -> LayerRates:
    """Learning rates by the equivalence principle: every layer contributes total / L to the output's mean NTK.

    Layer l contributes (lambda_b + lambda_W <s^2>) times the product of chi_perp of the layers above it. At
    criticality that gives equal rates for ReLU, and lambda_W constant, lambda_b ~ 1/l for tanh.

    Args:
        widths, activation, C_b, C_W, square: as `flow` takes them.
        total: mean NTK of the output.
        bias_share: part of each layer's contribution that its biases make; 0 without biases.

    Raises:
        EffectiveTheoryError: what `flow` raises, or a share outside [0, 1].

    Source: arXiv 2106.10165, section 9.4; sheet, sections 2.6 and 3.

    >>> rates = balanced_rates([1, 50, 50, 1], "relu", total=3.0)
    >>> rates.lambda_b.round(9).tolist(), rates.lambda_W.round(9).tolist()
    ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])
    """
    if not 0 <= bias_share <= 1 or not total > 0:
        raise EffectiveTheoryError(
            f"bias_share={bias_share:g} with total={total:g}; give a share of 0 to 1 of more than 0."
        )
    found = flow(widths, activation, C_b, C_W, square=square)
    layers = len(found.K)
    above = np.append(np.cumprod(found.chi_perp[:-1][::-1])[::-1], 1.0)
    squares = np.append(square, (found.K[1:] - found.C_b[1:]) / found.C_W[1:])
    wanted = total / (layers * above)
    rates = bias_share * wanted, (1 - bias_share) * wanted / squares
    contributions = (rates[0] + rates[1] * squares) * above
    return LayerRates(*rates, contributions, float(contributions.sum()))


def to_torch_init(
    module: nn.Module,
    activation: Activation | Elementwise | str,
    C_b: PerLayer | None = None,
    C_W: PerLayer | None = None,
    *,
    seed: int = 0,
) -> nn.Module:
    """Draw the weights of every linear layer from N(0, C_W / fan-in) and its biases from N(0, C_b), in place.

    Args:
        module: its `nn.Linear` layers are set, in the order of `module.modules()`; nothing else is touched.
        activation: whose critical variances fill in for those left out.
        C_b, C_W: one number, or one per linear layer.

    Returns:
        The module.

    Raises:
        EffectiveTheoryError: no linear layer, no critical point, or C_b > 0 and a layer without biases.

    >>> net = to_torch_init(nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)), "tanh")
    >>> net[0].bias.abs().sum().item()
    0.0
    """
    layers = linear_layers(module)
    if C_b is None or C_W is None:
        found = critical(activation)
        if found.kind == "none":
            raise EffectiveTheoryError(f"{found.activation} has no critical initialisation: {found.advice}")
        C_b, C_W = found.C_b if C_b is None else C_b, found.C_W if C_W is None else C_W
    biases, weights = per_layer("C_b", C_b, len(layers)), per_layer("C_W", C_W, len(layers))
    random = generator(seed, "to_torch_init")
    with torch.no_grad():
        for number, layer in enumerate(layers):
            _draw(layer.weight, weights[number] / layer.in_features, random)
            if layer.bias is not None:
                _draw(layer.bias, biases[number], random)
            elif biases[number] > 0:
                raise EffectiveTheoryError(f"linear layer {number + 1} has no biases and C_b is {biases[number]:g}.")
    return module


def _draw(tensor: torch.Tensor, variance: float, random: torch.Generator) -> None:
    tensor.copy_(variance**0.5 * torch.randn(tensor.shape, generator=random, dtype=torch.float64))


def rate_groups(module: nn.Module, lambda_b: PerLayer, lambda_W: PerLayer, lr: float) -> list[dict[str, Any]]:
    """Plain parameter groups for `torch.optim.SGD`: lr lambda_b for biases, lr lambda_W / fan-in for weights.

    For optimisers that rescale each gradient (Adam, AdamW) the tensors do not apply: use the initialisation alone.

    Args:
        module: its `nn.Linear` layers, in the order of `module.modules()`.
        lambda_b, lambda_W: one number, or one per linear layer (`balanced_rates`).
        lr: global learning rate eta, for a loss summed over examples.

    Raises:
        EffectiveTheoryError: no linear layer, counts that do not fit, or trained parameters elsewhere.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    >>> [group["lr"] for group in rate_groups(net, 0.5, 1.0, lr=0.8)]
    [0.2, 0.4, 0.1, 0.4]
    """
    layers = linear_layers(module)
    biases, weights = per_layer("lambda_b", lambda_b, len(layers)), per_layer("lambda_W", lambda_W, len(layers))
    groups: list[dict[str, Any]] = []
    for layer, of_bias, of_weight in zip(layers, biases, weights, strict=True):
        groups.append({"params": [layer.weight], "lr": float(lr * of_weight / layer.in_features)})
        if layer.bias is not None:
            groups.append({"params": [layer.bias], "lr": float(lr * of_bias)})
    covered = {id(parameter) for group in groups for parameter in group["params"]}
    left = [name for name, parameter in module.named_parameters() if id(parameter) not in covered]
    if left:
        raise EffectiveTheoryError(
            f"{left[0]} belongs to no linear layer; the learning-rate tensor is that of a perceptron."
        )
    return groups


def linear_layers(module: nn.Module) -> list[nn.Linear]:
    """The linear layers of a module, in order.

    Raises:
        EffectiveTheoryError: there is none.
    """
    layers = [child for child in module.modules() if isinstance(child, nn.Linear)]
    if not layers:
        raise EffectiveTheoryError(
            f"{type(module).__name__} has no nn.Linear; the effective theory describes perceptrons."
        )
    return layers
