"""A few optimiser steps of a network on given batches: all that the checks need of training."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from widthwise.core import DataError
from widthwise.data import DataSet
from widthwise.nn import Lion, SpectralDescent

Batch = tuple[Any, Tensor | None]
"""What the module is called with (a tensor, a tuple or a dict), and targets (None: the module returns its own loss)."""

Loss = Callable[[Tensor, Tensor], Tensor]
Data = DataSet | tuple[Any, Tensor] | dict[str, Tensor]

_TORCH: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "momentum": lambda groups: torch.optim.SGD(groups, momentum=0.9),
    "nesterov": lambda groups: torch.optim.SGD(groups, momentum=0.9, nesterov=True),
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
    "adafactor": lambda groups: torch.optim.Adafactor(groups),
    "lion": Lion,
    "muon": lambda groups: torch.optim.Muon(groups),
    "orthogonal": lambda groups: SpectralDescent(groups, scale="none"),
    "spectral": SpectralDescent,
}


def make_optimizers(groups: Iterable[dict[str, Any]], optimizer: str) -> list[torch.optim.Optimizer]:
    """Optimisers for the groups of `parametrize`; several where groups name several.

    Raises:
        DataError: there is none of that name.
    """
    by_name: dict[str, list[dict[str, Any]]] = {}
    for group in groups:
        by_name.setdefault(group.get("optimizer", optimizer), []).append(group)
    unknown = [name for name in by_name if name not in _TORCH]
    if unknown:
        raise DataError(
            f"there is no optimizer {unknown[0]!r} here; give one of {', '.join(_TORCH)} or make_optimizer=."
        )
    return [_TORCH[name](members) for name, members in by_name.items()]


def at_least_three(thing: str, count: int, purpose: str) -> None:
    """Refuse fewer than three widths or learning rates.

    Raises:
        DataError: there are fewer.
    """
    if count < 3:
        shown = f"1 {thing} is" if count == 1 else f"{count} {thing}s are"
        raise DataError(f"{shown} too few {purpose}; give at least three.")


def batch_of(data: Data, size: int | None = None, seed: int = 0) -> Batch:
    """One batch of the data, the first `size` examples of a seeded order (all of them where None).

    Raises:
        DataError: the data are empty, of no known form, or inputs and targets differ in number.
    """
    if isinstance(data, dict):
        if not data or any(not isinstance(value, Tensor) for value in data.values()):
            raise DataError("a batch given as a dict holds the module's keyword arguments, all tensors.")
        return data, None
    inputs, targets = (data.inputs, data.targets) if isinstance(data, DataSet) else data
    if not isinstance(targets, Tensor) or targets.shape[0] == 0:
        raise DataError("the data hold no examples; give a DataSet, (inputs, targets) or a dict of keyword arguments.")
    counts = [value.shape[0] for value in _parts(inputs) if value.dim()]
    if counts and targets.shape[0] not in counts:
        raise DataError(f"there are {counts[0]} inputs but {targets.shape[0]} targets; give one target for each input.")
    if not isinstance(inputs, Tensor) or size is None or size >= targets.shape[0]:
        return inputs, targets
    order = torch.randperm(targets.shape[0], generator=torch.Generator().manual_seed(seed))[:size]
    return inputs[order], targets[order]


def _parts(inputs: Any) -> list[Tensor]:
    """The tensors that a module is called with."""
    values = inputs.values() if isinstance(inputs, dict) else inputs if isinstance(inputs, (tuple, list)) else [inputs]
    return [value for value in values if isinstance(value, Tensor)]


def call(module: nn.Module, inputs: Any) -> Any:
    """The module's output for a tensor, a tuple of positional or a dict of keyword arguments."""
    if isinstance(inputs, dict):
        return module(**inputs)
    return module(*inputs) if isinstance(inputs, tuple) else module(inputs)


def main_output(output: Any) -> Tensor:
    """The tensor that the loss is taken of: logits where the output names them, else the first tensor."""
    for name in ("logits", "last_hidden_state"):
        value = getattr(output, name, None)
        if isinstance(value, Tensor):
            return value
    while isinstance(output, (tuple, list)):
        output = output[0]
    if isinstance(output, dict):
        output = next(value for value in output.values() if isinstance(value, Tensor))
    return output


def batch_loss(module: nn.Module, batch: Batch, loss: Loss | None = None) -> Tensor:
    """Mean loss: cross-entropy for class targets, half the squared error else, or the module's own."""
    inputs, targets = batch
    output = call(module, inputs)
    if targets is None:
        own = output.get("loss") if isinstance(output, dict) else getattr(output, "loss", None)
        if own is None:
            raise DataError("the module returns no loss; put labels into the batch or give (inputs, targets).")
        return own
    value = main_output(output)
    if loss is not None:
        return loss(value, targets)
    if not targets.is_floating_point():
        return nn.functional.cross_entropy(value.reshape(-1, value.shape[-1]), targets.reshape(-1))
    return (value.reshape(targets.shape) - targets).square().mean() / 2
