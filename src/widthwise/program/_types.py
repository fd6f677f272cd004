"""The tensor program: weights with roles, operations with labelled axes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from math import prod
from typing import Any

from torch import Tensor

from widthwise.core import Value


class AxisKind(StrEnum):
    """What a factor of an axis stands for."""

    BATCH = "batch"
    POSITION = "position"
    WIDTH = "width"
    HEAD = "head"
    FEATURE = "feature"


class Role(StrEnum):
    """What a weight does for the width axes it touches (finite or growing fan-in and fan-out)."""

    INPUT = "input"  # finite fan-in, growing fan-out
    HIDDEN = "hidden"  # growing fan-in and fan-out
    OUTPUT = "output"  # growing fan-in, finite fan-out
    VECTOR = "vector"  # one growing axis, added or multiplied: biases, norm gains, positional parameters
    EMBEDDING = "embedding"  # looked up by index
    FINITE = "finite"  # no growing axis


@dataclass(frozen=True)
class Factor:
    """An atomic axis. Two tensor axes with the same `id` run over the same index.

    A tensor axis is a tuple of factors, outermost first: flattening ``(channel, row, column)`` gives one axis
    with three factors, and a broadcast (size 1) axis has none.
    """

    id: int
    size: int
    kind: AxisKind

    def __str__(self) -> str:
        return f"{self.kind.value}:{self.size}"


Axis = tuple[Factor, ...]


def axis_size(axis: Axis) -> int:
    """Number of entries along the axis."""
    return prod(factor.size for factor in axis)


@dataclass(frozen=True)
class Weight(Value):
    """A trained tensor of the module, or one that stands for several tied names.

    Attributes:
        name: the first of its names in ``module.named_parameters()`` order.
        aliases: the other names under which the same tensor is reached (ties).
        module_path: the module that owns it; empty for the root.
        module_type: class name of that module, for example ``"Linear"``.
        shape: shape of the tensor.
        role: what it does for the width axes.
        fan_in, fan_out: numbers of inputs that enter one output and the reverse, kernel taps counted in.
        init_mean, init_std: of the entries, as initialised.
        init_source: ``"nn.Linear default"`` and the like where the entries agree with a known rule, whose exact
            value is then given; ``"constant"``; or ``"measured"``.
        uses: how many operations of the forward pass read it.
        value: the live tensor (not part of the plain form).
    """

    name: str
    aliases: tuple[str, ...]
    module_path: str
    module_type: str
    shape: tuple[int, ...]
    role: Role
    fan_in: int
    fan_out: int
    init_mean: float
    init_std: float
    init_source: str
    uses: int
    value: Tensor = field(repr=False, compare=False, metadata={"plain": False})

    def part(self, axis: int, entries: range) -> "Weight":
        """The slice `entries` along one axis as a weight of its own: the same object each time, under the same name.

        Other rows of a random matrix are independent of these, so that the part stands for its own randomness.
        """
        if entries == range(self.shape[axis]):
            return self
        key = (axis, entries)
        if key not in self._parts:
            self._parts[key] = self._cut(axis, entries)
        return self._parts[key]

    @cached_property
    def _parts(self) -> dict[tuple[int, range], "Weight"]:
        return {}

    def _cut(self, axis: int, entries: range) -> "Weight":
        whole = self.value.detach()
        index = (slice(None),) * axis + (slice(entries.start, entries.stop, entries.step),)
        value = whole[index].requires_grad_(self.value.requires_grad)
        mean, std = self.init_mean, self.init_std
        if self.init_source == "measured" and value.numel():
            mean, std = float(value.double().mean()), float(value.double().std(correction=0))
            std = 0.0 if bool((value == value.reshape(-1)[0]).all()) else std
        return replace(self, shape=tuple(value.shape), init_mean=mean, init_std=std, value=value)


@dataclass(frozen=True)
class Ref:
    """A reference to the value of an earlier node, inside `Node.args` and `Node.kwargs`."""

    name: str


@dataclass(frozen=True)
class Node(Value):
    """One line of the program.

    Attributes:
        name: unique in the program.
        kind: ``"input"``, ``"weight"`` (a trained tensor), ``"constant"`` (a buffer or lifted constant) or ``"op"``.
        op: name of the ATen overload, for example ``"aten.linear.default"``; the name of the weight, buffer or
            input for the other kinds.
        target: the callable that computes it (ops only).
        args, kwargs: as the callable takes them, earlier nodes standing as `Ref`.
        shape: shape of the result; None where the result is not one tensor.
        axes: factors of each axis, None where no axis rule is known for the operation.
        module_path: path of the module in whose forward it stands; empty for the root.
        value: the tensor of a weight or constant.
    """

    name: str
    kind: str
    op: str
    shape: tuple[int, ...] | None
    axes: tuple[Axis, ...] | None
    module_path: str = ""
    target: Callable[..., Any] | None = field(default=None, repr=False, compare=False, metadata={"plain": False})
    args: tuple[Any, ...] = field(default=(), metadata={"plain": False})
    kwargs: dict[str, Any] = field(default_factory=dict, metadata={"plain": False})
    value: Tensor | None = field(default=None, repr=False, compare=False, metadata={"plain": False})

    @property
    def refs(self) -> tuple[Ref, ...]:
        """The earlier nodes that this one reads, in order, nested lists included."""
        return tuple(_refs((self.args, self.kwargs)))


def _refs(value: Any) -> Iterator[Ref]:
    if isinstance(value, Ref):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _refs(item)
    elif isinstance(value, dict):
        yield from _refs(list(value.values()))
