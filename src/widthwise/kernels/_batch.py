"""Inputs of networks that take several tensors, for example tokens and an attention mask."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from widthwise.core import DataError, all_finite
from widthwise.program import Program


class Batch:
    """Several tensors with one batch axis, cut together; behaves as a tensor where only that axis matters."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors

    @property
    def shape(self) -> tuple[int, ...]:
        return (next(iter(self.tensors.values())).shape[0],)

    def __getitem__(self, rows: slice) -> "Batch":
        return Batch({name: tensor[rows] for name, tensor in self.tensors.items()})


Given = Tensor | Sequence[Tensor] | Mapping[str, Tensor] | Batch
"""What a limit takes: one tensor, a tuple of them in the order of the program's inputs, or a dict by input name."""


def batch_of(program: Program, given: Given) -> Tensor | Batch:
    """Inputs as a tensor (the program's first input) or a `Batch`.

    Raises:
        DataError: they are not the program's inputs, or differ in number.
    """
    if isinstance(given, (Tensor, Batch)):
        return given
    named = dict(given) if isinstance(given, Mapping) else dict(zip(program.inputs, given, strict=False))
    if (not isinstance(given, Mapping) and len(given) > len(program.inputs)) or not set(named) <= set(program.inputs):
        names = ", ".join(named) if isinstance(given, Mapping) else f"{len(given)} tensors"
        raise DataError(f"inputs {names} are not those of the network ({', '.join(program.inputs)}).")
    if len({tensor.shape[:1] for tensor in named.values()}) != 1 or any(tensor.dim() == 0 for tensor in named.values()):
        raise DataError("the inputs differ in number along their first axis; give one entry of each per example.")
    return Batch(named)


def tensors_of(program: Program, batch: Tensor | Batch) -> dict[str, Tensor]:
    """By name of the input."""
    return batch.tensors if isinstance(batch, Batch) else {program.inputs[0]: batch}


def joined(one: Tensor | Batch, other: Tensor | Batch) -> Tensor | Batch:
    """Examples behind each other."""
    if isinstance(one, Batch) and isinstance(other, Batch):
        return Batch({name: torch.cat([tensor, other.tensors[name]]) for name, tensor in one.tensors.items()})
    assert isinstance(one, Tensor) and isinstance(other, Tensor)
    return torch.cat([one, other])


def check_given(program: Program, needed: Sequence[str], batch: Tensor | Batch, name: str) -> None:
    """Every input that the output depends on has to be there, not empty and finite.

    Raises:
        DataError: it is not.
    """
    tensors = tensors_of(program, batch)
    missing = [one for one in needed if one not in tensors]
    if missing:
        raise DataError(f"{name} lacks input {missing[0]} of the network; give a dict with {', '.join(needed)}.")
    for tensor in tensors.values():
        if tensor.dim() == 0 or tensor.shape[0] == 0:
            raise DataError(f"{name} is empty; give at least one input.")
        if not all_finite(tensor):
            raise DataError(f"{name} holds values that are not finite; remove or replace them.")
