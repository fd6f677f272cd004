"""Multipliers that stand outside the weights: hooks on submodules, which checkpoints and wrappers leave alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


class ScaledInput:
    """A forward pre-hook that multiplies a module's first input."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0] * self.factor, *args[1:])


class ScaledBlock:
    """A forward hook that multiplies a block of the last axis of a module's output.

    Args:
        start, stop: the block, in units of the whole axis.
    """

    def __init__(self, factor: float, start: float, stop: float) -> None:
        self.factor, self.start, self.stop = factor, start, stop

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        if (self.start, self.stop) == (0.0, 1.0):
            return output * self.factor
        size = output.shape[-1]
        first, last = round(self.start * size), round(self.stop * size)
        scale = output.new_ones(size)
        scale[first:last] = self.factor
        return output * scale


def place_input_scale(module: nn.Module, factor: float) -> None:
    """Set the multiplier of a module's input; it replaces an earlier one, and 1 removes it."""
    _clear(module._forward_pre_hooks, ScaledInput)
    if factor != 1.0:
        module.register_forward_pre_hook(ScaledInput(factor))


def place_block_scale(module: nn.Module, factor: float, block: tuple[float, float]) -> None:
    """Set the multiplier of a block of a module's output; it replaces an earlier one, and 1 removes it."""
    _clear(module._forward_hooks, ScaledBlock)
    if factor != 1.0:
        module.register_forward_hook(ScaledBlock(factor, *block))


@contextmanager
def without_multipliers(*modules: nn.Module | None) -> Iterator[None]:
    """The modules as they were before multipliers were placed, inside the block."""
    taken = []
    for module in modules:
        for part in module.modules() if module is not None else ():
            for hooks, kind in ((part._forward_pre_hooks, ScaledInput), (part._forward_hooks, ScaledBlock)):
                taken += [(hooks, key, hook) for key, hook in hooks.items() if isinstance(hook, kind)]
    for hooks, key, _ in taken:
        del hooks[key]
    try:
        yield
    finally:
        for hooks, key, hook in taken:
            hooks[key] = hook


def _clear(hooks: Any, kind: type) -> None:
    for key in [key for key, hook in hooks.items() if isinstance(hook, kind)]:
        del hooks[key]
