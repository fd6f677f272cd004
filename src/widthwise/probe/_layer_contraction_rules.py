"""Rules: from the arguments of an operation to its uses of parameters."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch.nn.functional as F
from torch import Tensor

from widthwise.probe._layer_contraction_uses import (
    Added,
    Convolution,
    Embedding,
    Linear,
    Multiplied,
    Source,
    TransposedConvolution,
    Use,
)


class Unsupported(Exception):
    """No rule for this use."""


@runtime_checkable
class Sources(Protocol):
    """Knows which tensors are made of parameters alone."""

    def source(self, tensor: Tensor) -> Source | None:
        """What `tensor` is made of, if of parameters alone."""
        ...


def _pair(watch: Sources, value: Any) -> Source | None:
    return watch.source(value) if isinstance(value, Tensor) else None


def _linear(watch: Sources, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> list[Use]:
    _forbid(watch, input)
    uses: list[Use] = []
    if (source := _pair(watch, weight)) is not None:
        uses.append(Linear(source, weight, input))
    return uses + _bias(watch, bias, None)


def _matmul(watch: Sources, input: Tensor, other: Tensor) -> list[Use]:
    _forbid(watch, input)
    source = _pair(watch, other)
    if source is None or other.ndim != 2 or input.ndim < 2:
        raise Unsupported
    return [Linear(source, other, input, by_input=True)]


def _addmm(watch: Sources, input: Tensor, mat1: Tensor, mat2: Tensor, **options: Any) -> list[Use]:
    if options or mat1.ndim != 2:
        raise Unsupported
    uses = _matmul(watch, mat1, mat2) if _pair(watch, mat2) is not None else []
    if not uses:
        _forbid(watch, mat1)
    if (source := _pair(watch, input)) is not None:
        uses.append(Added(source, input))
    return uses


def _convolution(
    watch: Sources,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> list[Use]:
    return _convolved(Convolution, watch, input, weight, bias, stride, padding, dilation, groups)


def _transposed_convolution(
    watch: Sources,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> list[Use]:
    return _convolved(TransposedConvolution, watch, input, weight, bias, stride, padding, dilation, groups)


def _convolved(
    kind: type[Convolution],
    watch: Sources,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> list[Use]:
    _forbid(watch, input)
    axes = weight.ndim - 2
    if input.ndim != axes + 2:
        raise Unsupported
    stride, dilation = _each(stride, axes), _each(dilation, axes)
    uses: list[Use] = []
    if (source := _pair(watch, weight)) is not None:
        margins = _margins(padding, weight.shape[2:], dilation)
        uses.append(kind(source, weight, input, stride, margins, dilation, groups))
    return uses + _bias(watch, bias, 1)


def _embedding(
    watch: Sources,
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> list[Use]:
    source = _pair(watch, weight)
    if source is None or max_norm is not None or scale_grad_by_freq or input.ndim == 0:
        raise Unsupported
    padding = None if padding_idx is None else padding_idx % len(weight)
    return [Embedding(source, weight, input, padding)]


def _layer_norm(
    watch: Sources, input: Tensor, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> list[Use]:
    _forbid(watch, input)
    return _gain(watch, weight, input, lambda x: F.layer_norm(x, normalized_shape, eps=eps)) + _bias(watch, bias, None)


def _rms_norm(
    watch: Sources, input: Tensor, normalized_shape: Any, weight: Any = None, eps: float | None = None
) -> list[Use]:
    _forbid(watch, input)
    return _gain(watch, weight, input, lambda x: F.rms_norm(x, normalized_shape, eps=eps))


def _group_norm(
    watch: Sources, input: Tensor, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> list[Use]:
    _forbid(watch, input)
    normal = lambda x: F.group_norm(x, num_groups, eps=eps)  # noqa: E731
    return _gain(watch, weight, input, normal, 1) + _bias(watch, bias, 1)


def _batch_norm(
    watch: Sources,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> list[Use]:
    _forbid(watch, input)
    if training:
        raise Unsupported
    normal = lambda x: F.batch_norm(x, running_mean, running_var, eps=eps)  # noqa: E731
    return _gain(watch, weight, input, normal, 1) + _bias(watch, bias, 1)


def _add(watch: Sources, input: Any, other: Any) -> list[Use]:
    return [Added(*_broadcast(watch, input, other))]


def _sub(watch: Sources, input: Any, other: Any) -> list[Use]:
    source, value = _broadcast(watch, input, other)
    return [Added(source, value, 1.0 if value is input else -1.0)]


def _mul(watch: Sources, input: Any, other: Any) -> list[Use]:
    source, value = _broadcast(watch, input, other)
    return [Multiplied(source, value, other if value is input else input, lambda x: x)]


def _broadcast(watch: Sources, input: Any, other: Any) -> tuple[Source, Tensor]:
    for value, partner in ((input, other), (other, input)):
        source = _pair(watch, value)
        if source is not None:
            if not isinstance(partner, Tensor) or partner.ndim < value.ndim:
                raise Unsupported
            return source, value
    raise Unsupported


def _gain(
    watch: Sources, weight: Any, input: Tensor, normal: Callable[[Tensor], Tensor], channel: int | None = None
) -> list[Use]:
    source = _pair(watch, weight)
    return [] if source is None else [Multiplied(source, weight, input, normal, channel)]


def _bias(watch: Sources, bias: Any, channel: int | None) -> list[Use]:
    source = _pair(watch, bias)
    return [] if source is None else [Added(source, bias, channel=channel)]


def _forbid(watch: Sources, input: Any) -> None:
    if _pair(watch, input) is not None:
        raise Unsupported


def _each(value: Any, axes: int) -> tuple[int, ...]:
    values = (value,) * axes if isinstance(value, int) else tuple(value)
    return values * axes if len(values) == 1 else values


def _margins(padding: Any, kernel: Any, dilation: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    if padding == "valid":
        return ((0, 0),) * len(kernel)
    if padding == "same":
        total = [jump * (size - 1) for size, jump in zip(kernel, dilation, strict=True)]
        return tuple((amount // 2, amount - amount // 2) for amount in total)
    return tuple((amount, amount) for amount in _each(padding, len(kernel)))


RULES: dict[str, Callable[..., list[Use]]] = {
    "linear": _linear,
    "matmul": _matmul,
    "__matmul__": _matmul,
    "mm": _matmul,
    "addmm": _addmm,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _transposed_convolution),
    "embedding": _embedding,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "batch_norm": _batch_norm,
    **dict.fromkeys(("add", "__add__", "__radd__"), _add),
    **dict.fromkeys(("sub", "__sub__"), _sub),
    **dict.fromkeys(("mul", "__mul__", "__rmul__"), _mul),
}
