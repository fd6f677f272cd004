"""Adjacent layers of a network between which neurons can be rescaled without changing the function."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from widthwise.core import DataError, ModelError
from widthwise.probe._modules import call, measuring, placed, refuse_infinite

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_AGREE = 1e-8  # relative, in double precision


@dataclass(frozen=True)
class Pair:
    """A layer, the one that reads its neurons, and how.

    Attributes:
        upstream, downstream: their module paths.
        neurons: what lies between them: units or channels.
        linear: whether neurons may also be mixed by a rotation (nothing non-linear between the two).
    """

    upstream: str
    downstream: str
    neurons: int
    linear: bool


def find_pairs(module: nn.Module, inputs: Tensor, names: Sequence[tuple[str, str]] | None = None) -> tuple[Pair, ...]:
    """Pairs of layers, in the order they run, that a rescaling of the neurons between them leaves the outputs to.

    Each is found by trying: rows of the first layer times random positive numbers, columns of the second over the
    same, in double precision. This refuses whatever else reads the neurons (a skip connection, a normalisation, an
    activation that is not positively homogeneous), however the module is written.

    Raises:
        DataError: a given pair does not pass, or none is found.
        ModelError: a given name is no linear or convolution layer.
    """
    refuse_infinite(inputs, "inputs")
    exact = deepcopy(module).double()
    with measuring(exact), torch.no_grad():
        x = placed(exact, inputs[: min(len(inputs), 8)])
        order = _order(exact, x)
        if names is not None:
            for name in {name for pair in names for name in pair}:
                if name not in order:
                    raise ModelError(f"{name!r} is no linear or convolution layer that runs; give {', '.join(order)}.")
        whole = call(exact, x)
        found = []
        for upstream, downstream in names or _candidates(exact, order):
            kind = _kind(exact, x, whole, upstream, downstream)
            if kind is not None:
                found.append(Pair(upstream, downstream, _weight(exact, upstream).shape[0], kind))
            elif names is not None:
                raise DataError(
                    f"rescaling the neurons between {upstream} and {downstream} changes the outputs; give layers with "
                    "nothing but positively homogeneous operations (ReLU, pooling, flattening) between them."
                )
    if not found:
        raise DataError(
            "no two adjacent layers of this module are joined by positively homogeneous operations alone (ReLU, "
            "pooling, flattening); give a network without normalisation between them."
        )
    return tuple(found)


def columns(weight: Tensor, neurons: int) -> Tensor:
    """Weights of a downstream layer by the neuron that they read: ``[neurons, rest]``."""
    out, reads = weight.shape[:2]
    return weight.reshape(out, neurons, reads // neurons, -1).transpose(0, 1).reshape(neurons, -1)


def rescale_neurons(module: nn.Module, upstream: str, downstream: str, factors: Tensor | float) -> None:
    """Rows (and biases) of one layer times `factors`, columns of the one that reads them over those, in place.

    Args:
        factors: one per neuron ``[neurons]``, or one number; above zero.

    >>> net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)).double()
    >>> x = torch.randn(5, 3, dtype=torch.float64)
    >>> before = net(x)
    >>> rescale_neurons(net, "0", "2", 3.0)
    >>> torch.allclose(net(x), before)
    True
    """
    first, second = module.get_submodule(upstream), module.get_submodule(downstream)
    with torch.no_grad():
        up, down = first.weight, second.weight
        factors = torch.as_tensor(factors, dtype=torch.float64).expand(len(up))  # type: ignore[arg-type]
        up.mul_(factors.to(up).reshape(-1, *[1] * (up.ndim - 1)))  # type: ignore[operator,arg-type]
        if first.bias is not None:
            first.bias.mul_(factors.to(up))  # type: ignore[operator,arg-type]
        each = factors.to(down).repeat_interleave(down.shape[1] // len(factors))  # type: ignore[index,arg-type]
        down.div_(each.reshape(1, -1, *[1] * (down.ndim - 2)))  # type: ignore[operator]


def _order(module: nn.Module, x: Tensor) -> list[str]:
    """Plain layers by the time that they run; those that run twice are left out."""
    runs: list[str] = []
    names = {part: name for name, part in module.named_modules() if isinstance(part, LAYERS)}
    hooks = [part.register_forward_hook(lambda part, *_: runs.append(names[part])) for part in names]
    try:
        call(module, x)
    finally:
        for hook in hooks:
            hook.remove()
    return [name for name in runs if runs.count(name) == 1]


def _candidates(module: nn.Module, order: list[str]) -> Iterator[tuple[str, str]]:
    for k, upstream in enumerate(order):
        neurons = _weight(module, upstream).shape[0]
        for downstream in order[k + 1 : k + 3]:
            reader = module.get_submodule(downstream)
            if _weight(module, downstream).shape[1] % neurons == 0 and getattr(reader, "groups", 1) == 1:
                yield upstream, downstream


def _kind(module: nn.Module, x: Tensor, whole: Tensor, upstream: str, downstream: str) -> bool | None:
    """None: not joined; else whether linearly."""
    up, down = _weight(module, upstream), _weight(module, downstream)
    neurons = up.shape[0]
    if down.shape[1] % neurons:
        return None
    generator = torch.Generator().manual_seed(neurons)
    factors = torch.empty(neurons, dtype=torch.float64).uniform_(0.3, 3.0, generator=generator).to(up.device)
    first, second = module.get_submodule(upstream), module.get_submodule(downstream)
    with _restored(first, second):
        rescale_neurons(module, upstream, downstream, factors)
        if not _same(call(module, x), whole):
            return None
    with _restored(first, second):
        down.mul_(2.0)
        if _same(call(module, x), whole):  # the outputs do not depend on this pair
            return None
    with _restored(first, second):
        turn = torch.linalg.qr(torch.randn(neurons, neurons, dtype=torch.float64, generator=generator))[0].to(up.device)
        up.copy_(torch.tensordot(turn, up, 1))
        if first.bias is not None:
            first.bias.copy_(turn @ first.bias)  # type: ignore[operator]
        parts = down.reshape(down.shape[0], neurons, -1)
        down.copy_(torch.einsum("hk,okr->ohr", turn, parts).reshape(down.shape))
        return _same(call(module, x), whole)


def _same(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).norm() <= _AGREE * other.norm().clamp_min(1e-30))


def _weight(module: nn.Module, name: str) -> Tensor:
    return module.get_submodule(name).weight  # type: ignore[return-value]


@contextmanager
def _restored(*parts: nn.Module) -> Iterator[None]:
    kept = [(tensor, tensor.clone()) for part in parts for tensor in part.parameters(recurse=False)]
    try:
        yield
    finally:
        for tensor, value in kept:
            tensor.copy_(value)
