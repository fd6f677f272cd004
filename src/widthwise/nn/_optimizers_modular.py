"""The modular norm: one learning rate for networks of every width and depth, from masses and sensitivities."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from widthwise.core import ModelError

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_SENSITIVITY: dict[type[nn.Module], float] = {
    **dict.fromkeys((nn.ReLU, nn.GELU, nn.SiLU), 0.5**0.5),
    **dict.fromkeys((nn.Tanh, nn.Identity, nn.Flatten, nn.Unflatten, nn.Dropout), 1.0),
}


class ModularResidual(nn.Module):
    """One of `count` residual blocks in a row, ``(1 - 1/N) x + block(x) / N``: well-behaved at every depth.

    Args:
        block: keeps the shape of its input.
        count: N, the number of such blocks.

    Raises:
        ModelError: fewer than one block.

    Source: arXiv:2405.14813, section 3.3.

    >>> ModularResidual(torch.nn.Identity(), 4)(torch.ones(2)).tolist()
    [1.0, 1.0]
    """

    def __init__(self, block: nn.Module, count: int) -> None:
        if count < 1:
            raise ModelError(f"ModularResidual got count={count}; give the number of blocks in the network.")
        super().__init__()
        self.block, self.count = block, count

    def forward(self, x: Tensor) -> Tensor:
        """The mixture of input and block, of the input's shape."""
        return (1 - 1 / self.count) * x + self.block(x) / self.count


def modular_groups(module: nn.Module, lr: float, *, masses: Mapping[str, float] | None = None) -> list[dict[str, Any]]:
    """Parameter groups for `SpectralDescent` under which the whole network moves by at most `lr` in the modular norm.

    A layer of mass m in a network of mass M gets the share m / M of the step, over the sensitivities (Lipschitz
    constants) of all that comes after it; a block that enters with weight 1/N gets N times that. If weights keep
    natural norms of at most one (as after `modular_init_`), the output changes, to first order, by at most `lr` in root
    mean square, at every width and depth.

    Args:
        module: of `torch.nn.Sequential`, `ModularResidual`, linear, convolution, embedding, norm, activation modules.
        lr: of the whole network.
        masses: by pattern of a layer's name (as in `fnmatch`), 1 by default: its share of the change. Weight and bias
            of a layer share its mass equally.

    Returns:
        One group for each trained tensor, with ``lr``, ``kind`` and, for the reader, ``weights`` (its name).

    Raises:
        ModelError: a module of another kind, a mass that is no positive number, or nothing to train.

    Source: arXiv:2405.14813 (modular norm), definitions 3 to 5; sensitivity of ReLU 1/sqrt(2) as published there.

    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 9, bias=False), torch.nn.ReLU(), torch.nn.Linear(9, 2, bias=False))
    >>> [(group["weights"], round(group["lr"], 3)) for group in modular_groups(net, lr=1.0)]
    [(['0.weight'], 0.707), (['2.weight'], 0.5)]
    """
    tree = _read(module, "", masses or {})
    if tree.mass == 0:
        raise ModelError("the module has no layer with weights; there is nothing to train.")
    return [
        {"params": [leaf.parameter], "lr": lr * leaf.factor, "kind": leaf.kind, "weights": [leaf.name]}
        for leaf in tree.leaves
        if leaf.parameter.requires_grad
    ]


@torch.no_grad()
def modular_init_(module: nn.Module) -> nn.Module:
    """Initial weights of natural norm one: semi-orthogonal matrices times sqrt(fan_out / fan_in), over k^2 for each of
    the k^2 positions of a filter; embedding rows of root mean square one; biases zero, gains one.

    Raises:
        ModelError: a module that `modular_groups` does not know.

    >>> layer = modular_init_(torch.nn.Linear(4, 4, bias=False))
    >>> torch.allclose(layer.weight @ layer.weight.T, torch.eye(4), atol=1e-5)
    True
    """
    for leaf in _read(module, "", {}).leaves:
        weight = leaf.parameter
        if weight.ndim < 2:
            weight.fill_(0.0 if leaf.name.endswith("bias") else 1.0)
        elif leaf.kind == "embedding":
            weight.normal_()
            weight.div_(weight.square().mean(1, keepdim=True).sqrt())
        else:
            taps = prod(weight.shape[2:])
            scale = (weight.shape[0] / weight.shape[1]) ** 0.5 / taps
            for tap in weight.view(*weight.shape[:2], taps).unbind(2):
                tap.copy_(nn.init.orthogonal_(torch.empty_like(tap.contiguous())) * scale)
    return module


@dataclass(frozen=True)
class _Leaf:
    name: str
    parameter: Tensor
    kind: str
    factor: float


@dataclass(frozen=True)
class _Tree:
    mass: float
    sensitivity: float
    leaves: tuple[_Leaf, ...] = ()

    def times(self, factor: float) -> tuple[_Leaf, ...]:
        return tuple(_Leaf(leaf.name, leaf.parameter, leaf.kind, leaf.factor * factor) for leaf in self.leaves)


def _read(module: nn.Module, name: str, masses: Mapping[str, float]) -> _Tree:
    """Mass, sensitivity and factors of a module; factors are those of an update of modular norm one."""
    if isinstance(module, nn.Sequential):
        tree = _Tree(0.0, 1.0)
        for key, child in module.named_children():
            tree = _then(tree, _read(child, _path(name, key), masses))
        return tree
    if isinstance(module, ModularResidual):
        block, share = _read(module.block, _path(name, "block"), masses), 1 / module.count
        return _Tree(block.mass, 1 - share + share * block.sensitivity, block.times(module.count))
    if type(module) in _SENSITIVITY:
        return _Tree(0.0, _SENSITIVITY[type(module)])
    if isinstance(module, (nn.Linear, nn.Embedding, *_CONVOLUTIONS, *_NORMS)):
        if getattr(module, "groups", 1) != 1:
            raise ModelError(f"'{name}' is a grouped convolution, which has no modular norm here; use SpectralDescent.")
        mass, tensors = _mass(name, masses), list(module.named_parameters(recurse=False))
        kind = {nn.Embedding: "embedding", nn.Linear: "linear"}.get(type(module), "taps")
        leaves = (_Leaf(_path(name, key), tensor, kind, 1 / len(tensors)) for key, tensor in tensors)
        return _Tree(mass if tensors else 0.0, 1.0, tuple(leaves))
    raise ModelError(
        f"'{name}' is a {type(module).__name__}, whose modular norm is not known; build it of torch.nn.Sequential, "
        "ModularResidual and plain layers, or give SpectralDescent the parameters themselves."
    )


def _then(first: _Tree, second: _Tree) -> _Tree:
    """The composition "first, then second" (arXiv:2405.14813, definition 4)."""
    mass = first.mass + second.mass
    sensitivity = first.sensitivity * second.sensitivity
    if mass == 0:
        return _Tree(0.0, sensitivity)
    before = first.times(first.mass / mass / second.sensitivity) if first.mass else ()
    after = second.times(second.mass / mass) if second.mass else ()
    return _Tree(mass, sensitivity, before + after)


def _mass(name: str, masses: Mapping[str, float]) -> float:
    mass = 1.0
    for pattern, value in masses.items():
        if fnmatchcase(name, pattern):
            mass = float(value)
    if not 0 < mass < float("inf"):
        raise ModelError(f"the mass of '{name}' is {mass}; give a finite number above zero.")
    return mass


def _path(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key
