"""Unit scaling: every weight of variance one, with a multiplier in front, and Adam's learning rates to match."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from widthwise.core import ModelError

_MATRICES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Multiplied(nn.Module):
    """A parametrisation of a weight: ``factor`` times what is trained.

    >>> import torch
    >>> Multiplied(0.5)(torch.ones(2)).tolist()
    [0.5, 0.5]
    """

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, trained: Tensor) -> Tensor:
        """The weight that the layer uses."""
        return trained * self.factor

    def right_inverse(self, weight: Tensor) -> Tensor:
        """What is trained, for a given weight."""
        return weight / self.factor


def unit_scale_(module: nn.Module, *, readout: str, init: bool = True) -> nn.Module:
    """Put multipliers in front of a module's matrices, in place: 1/sqrt(fan_in), and 1/fan_in for the readout.

    What is trained then has variance one at every width (``<layer>.parametrizations.weight.original``), which suits
    number formats of few bits. With :func:`unit_scaled_groups` the training is that of muP.

    Args:
        module: any module with `torch.nn` linear layers and convolutions; embeddings and norms have no multiplier.
        readout: name of the layer that gives the outputs.
        init: whether to draw what is trained from N(0, 1) and set biases to zero, with PyTorch's global generator;
            where False, every weight keeps the value it has.

    Returns:
        The module.

    Raises:
        ModelError: no such readout, or a layer has a multiplier already.

    Source: arXiv:2407.17465 (u-muP), table 2, without the factors of the backward pass, which Adam cancels.

    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Linear(64, 2))
    >>> net = unit_scale_(net, readout="2")
    >>> torch.allclose(net[2].weight * 64, net[2].parametrizations.weight.original)
    True
    """
    layers = {name: part for name, part in module.named_modules() if isinstance(part, _MATRICES)}
    _require_readout(layers, readout)
    for name, layer in layers.items():
        if parametrize.is_parametrized(layer, "weight"):
            raise ModelError(f"the weight of '{name}' has a parametrisation already; give a module without one.")
    for name, layer in layers.items():
        fan_in = layer.weight[0].numel()
        factor = 1 / fan_in if name == readout else fan_in**-0.5
        parametrize.register_parametrization(layer, "weight", Multiplied(factor))
        if init:
            nn.init.normal_(layer.get_parameter("parametrizations.weight.original"))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    if init:
        for part in module.modules():
            if isinstance(part, nn.Embedding):
                nn.init.normal_(part.weight)
    return module


def unit_scaled_groups(
    module: nn.Module, lr: float, *, readout: str, branches: Sequence[str] = (), depth: int = 1
) -> list[dict[str, Any]]:
    """Parameter groups for Adam(W) of a module after :func:`unit_scale_`.

    Learning rates: `lr` / sqrt(fan_in) for matrices, `lr` / sqrt(dim) for embeddings, `lr` for the readout, biases and
    norms; matrices in residual branches over sqrt(depth) besides.

    Args:
        module: as `unit_scale_` left it.
        lr: about one suits many networks: in units of the weights' standard deviation per step.
        readout: name of the layer that gives the outputs.
        branches: patterns (as in `fnmatch`) of the names of layers inside residual branches.
        depth: number of residual branches.

    Returns:
        Groups with ``params``, ``lr`` and, for the reader, ``weights``.

    Raises:
        ModelError: no such readout, or a depth below one.

    Source: arXiv:2407.17465, table 2 and section 4.4 (embeddings).

    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Linear(64, 2))
    >>> net = unit_scale_(net, readout="2")
    >>> [(group["lr"], len(group["params"])) for group in unit_scaled_groups(net, lr=1.0, readout="2")]
    [(1.0, 3), (0.25, 1)]
    """
    if depth < 1:
        raise ModelError(f"depth is {depth}; give the number of residual branches, 1 or more.")
    layers = dict(module.named_modules())
    _require_readout(layers, readout)
    groups: dict[float, dict[str, Any]] = {}
    for name, parameter in module.named_parameters():
        owner = name.removesuffix(".parametrizations.weight.original").removesuffix(".weight")
        rate = lr * _factor(owner, layers.get(owner), parameter, readout)
        if parameter.ndim > 1 and any(fnmatchcase(owner, pattern) for pattern in branches):
            rate /= depth**0.5
        group = groups.setdefault(rate, {"params": [], "lr": rate, "weights": []})
        group["params"].append(parameter)
        group["weights"].append(name)
    return list(groups.values())


def _factor(owner: str, layer: nn.Module | None, parameter: Tensor, readout: str) -> float:
    if parameter.ndim < 2 or owner == readout:
        return 1.0
    fans = parameter.shape[1] if isinstance(layer, nn.Embedding) else parameter[0].numel()
    return fans**-0.5


def _require_readout(layers: dict[str, Any], readout: str) -> None:
    if readout not in layers:
        raise ModelError(
            f"the module has no layer called {readout!r}; give the name of the one that gives the outputs."
        )
