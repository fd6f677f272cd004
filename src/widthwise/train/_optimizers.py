"""Optimisers by name, and the automatic learning rate."""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from widthwise.core import ModelError, generator
from widthwise.data import DataSet
from widthwise.probe import largest_curvature
from widthwise.train._evaluate import Loss, resolve_loss

OptimizerFactory = str | Callable[..., Optimizer]
"""``"sgd"``, ``"adam"``, ``"adamw"``, or what is called as ``factory(parameter_groups, lr=lr)``."""

_NAMED: dict[str, Callable[..., Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}
_ADAM_LR = 1e-3


def stable_learning_rate(
    module: nn.Module, data: DataSet, *, loss: Loss = "mse", samples: int = 512, seed: int = 0
) -> float:
    """Learning rate ``1 / lambda_max`` for gradient descent, half of the edge of stability ``2 / lambda_max``.

    ``lambda_max`` is the largest eigenvalue of the Gauss-Newton matrix of the full training loss at the present
    weights, in the module's present mode (`widthwise.probe.largest_curvature`), on at most `samples` examples drawn at
    random. On a quadratic loss, gradient descent converges at this rate; a network's curvature may grow while it
    trains (arXiv:2103.00065), and the factor of two is the room left for that.

    Raises:
        ModelError: the curvature is zero or not finite.

    >>> data = DataSet("one", torch.tensor([[2.0]]), torch.tensor([[1.0]]))
    >>> round(stable_learning_rate(nn.Linear(1, 1, bias=False), data), 6)  # loss (2 w - 1)^2: curvature 8
    0.125
    """
    function, targets = resolve_loss(loss, data)
    rows = torch.randperm(len(data), generator=generator(seed, "curvature"))[:samples]
    curvature = largest_curvature(module, data.inputs[rows], targets[rows], function, seed=seed)
    if not math.isfinite(curvature) or curvature <= 0:
        raise ModelError(
            f"lr='auto' found a largest curvature of {curvature} at the initial weights; give lr as a number."
        )
    return 1 / curvature


def resolve_factory(optimizer: OptimizerFactory) -> Callable[..., Optimizer]:
    """The optimiser's factory.

    Raises:
        ModelError: no such name.
    """
    if not isinstance(optimizer, str):
        return optimizer
    if optimizer not in _NAMED:
        raise ModelError(f"no optimizer is called '{optimizer}'; use {', '.join(_NAMED)} or a factory.")
    return _NAMED[optimizer]


def resolve_lr(
    lr: float | str,
    optimizer: OptimizerFactory,
    groups: Sequence[dict[str, Any]],
    curvature_rate: Callable[[], float],
) -> float | None:
    """The learning rate as a number; None where every group has its own.

    Raises:
        ModelError: it is neither "auto" nor a positive number, or "auto" is not known for this optimiser.
    """
    if all("lr" in group for group in groups):
        return None
    if lr == "auto":
        factory = resolve_factory(optimizer)
        base = factory.func if isinstance(factory, functools.partial) else factory
        if base is torch.optim.SGD:
            return curvature_rate()
        if base in (torch.optim.Adam, torch.optim.AdamW):
            return _ADAM_LR
        raise ModelError(f"lr='auto' is not known for optimizer {describe(optimizer)}; give lr as a number.")
    if isinstance(lr, str) or not math.isfinite(lr) or lr <= 0:
        raise ModelError(f"lr={lr!r} is not a positive number; give one, or 'auto'.")
    return float(lr)


def list_groups(module: nn.Module, groups: Iterable[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """The parameter groups with their parameters in lists, without those that require no gradient.

    Args:
        module: whose parameters they are.
        groups: as PyTorch takes them; None: one group of all parameters.

    Raises:
        ModelError: nothing to train, or a group holds a tensor that is not a parameter of the module.
    """
    known = set(module.parameters())
    listed = []
    for group in [{"params": module.parameters()}] if groups is None else groups:
        given = group["params"]
        parameters = [given] if isinstance(given, nn.Parameter) else list(given)
        for parameter in parameters:
            if parameter not in known:
                raise ModelError(
                    f"a parameter group holds a tensor of shape {tuple(parameter.shape)} that is no parameter of the "
                    "module; make the groups from this module's parameters."
                )
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        if trained:
            listed.append({**group, "params": trained})
    if not listed:
        raise ModelError("the module has no parameter that requires a gradient; there is nothing to train.")
    return listed


def describe_groups(module: nn.Module, groups: Sequence[dict[str, Any]]) -> list[Any]:
    """Names and learning rate of each group, the same in every process."""
    names = {parameter: name for name, parameter in module.named_parameters()}
    return [[[names[parameter] for parameter in group["params"]], group.get("lr")] for group in groups]


def describe(thing: object) -> str:
    """A name for a string, function, class or partial that is the same in every process."""
    if isinstance(thing, str):
        return thing
    if isinstance(thing, functools.partial):
        return f"{describe(thing.func)}{thing.args}{sorted(thing.keywords.items())}"
    return getattr(thing, "__qualname__", type(thing).__qualname__)
