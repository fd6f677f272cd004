"""Masks of attention scores, from data or constants, as arrays that are added to the scores."""

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor

from widthwise.kernels._fields_attention import Mask
from widthwise.kernels._registry import Concrete
from widthwise.program import Axis, AxisKind, axis_size


def lower_triangle(shape: tuple[int, int]) -> Mask:
    """Each query attends to the keys up to its own place."""
    keep = torch.ones(1, 1, *shape, dtype=torch.bool).tril()
    return Mask(None, _as_is, _barred(keep))


def added(value: Concrete, constant: Tensor | None, lead: tuple[Axis, ...], shape: tuple[int, int]) -> Mask:
    """A mask (or bias) that is added as it is, or truth values that tell which entries to keep."""
    place = _placed(lead, shape)

    def read(tensor: Tensor) -> Tensor:
        return _barred(place(tensor)) if tensor.dtype is torch.bool else place(tensor)

    return _mask(value, constant, read)


def left_out(value: Concrete, constant: Tensor | None, lead: tuple[Axis, ...], shape: tuple[int, int]) -> Mask:
    """Truth values that tell which entries are not attended to."""
    place = _placed(lead, shape)
    return _mask(value, constant, lambda tensor: _barred(~place(tensor.bool())))


def given(value: Concrete, constant: Tensor | None, lead: tuple[Axis, ...], shape: tuple[int, int]) -> Mask:
    """The weights themselves."""
    return _mask(value, constant, _placed(lead, shape))


def _as_is(tensor: Tensor) -> Tensor:
    return tensor


def _barred(keep: Tensor) -> Tensor:
    return torch.zeros(keep.shape, dtype=torch.float64, device=keep.device).masked_fill(~keep, -torch.inf)


def _mask(value: Concrete, constant: Tensor | None, read: Callable[[Tensor], Tensor]) -> Mask:
    """
    Raises:
        ValueError: a constant differs between the examples of the batch.
    """
    if value.batched:
        return Mask(value.node, read)
    assert constant is not None
    array = read(constant)
    if not bool((array == array[:1]).all()):
        raise ValueError("its mask differs between examples, but not by what the inputs hold")
    return Mask(None, _as_is, array[:1])


def _placed(lead: tuple[Axis, ...], shape: tuple[int, int]) -> Callable[[Tensor], Tensor]:
    """How to bring a tensor that broadcasts against ``[*lead, P, S]`` to ``[n or 1, heads or 1, P, S]``."""
    joint = bool(lead) and len({factor.kind is AxisKind.BATCH for factor in lead[0]}) == 2
    heads = prod(factor.size for factor in lead[0] if factor.kind is not AxisKind.BATCH) if joint else 1

    def place(tensor: Tensor) -> Tensor:
        rank = len(lead) + 2
        if tensor.dim() > rank:
            raise ValueError("its mask has more axes than its scores")
        whole = tensor.reshape(*(1,) * (rank - tensor.dim()), *tensor.shape)
        front = whole.shape[:-2]
        if joint and front[0] > 1:
            front = (front[0] // heads, heads, *front[1:])
        elif lead and all(factor.kind is not AxisKind.BATCH for factor in lead[0]) and axis_size(lead[0]) > 1:
            front = (1, *front)
        count = front[0] if front else 1
        whole = whole.reshape(count, -1, *whole.shape[-2:])
        return whole.expand(-1, -1, *shape)

    return place
