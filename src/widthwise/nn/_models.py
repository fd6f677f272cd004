"""The built-in models by name."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from widthwise.core import ModelError
from widthwise.nn._feedforward import cnn, mlp
from widthwise.nn._resnet import resnet
from widthwise.nn._shapes import near_matches
from widthwise.nn._transformer import transformer

MODELS: dict[str, Callable[..., nn.Module]] = {"mlp": mlp, "cnn": cnn, "resnet": resnet, "transformer": transformer}
"""Factories by name; each is called as ``factory(width, input_shape=..., outputs=...)``."""


def build_model(
    name: str, input_shape: Sequence[int], outputs: int, width: int | None = None, **options: Any
) -> nn.Module:
    """Build the model `name` for a task's shapes.

    Args:
        name: a key of `MODELS`.
        input_shape: shape of one example.
        outputs: number of outputs.
        width: size of the hidden layers; None: the factory's default.
        options: further arguments of the factory, for example ``depth=3`` or ``vocab=64``.

    Raises:
        ModelError: no such model, or it cannot take these sizes or options.

    >>> type(build_model("mlp", (4,), 2, 8)).__name__
    'Sequential'
    """
    if name not in MODELS:
        raise ModelError(f"no built-in model is called '{name}'; {near_matches(name, tuple(MODELS))}")
    if width is not None:
        options["width"] = width
    try:
        return MODELS[name](input_shape=tuple(input_shape), outputs=outputs, **options)
    except TypeError as error:
        raise ModelError(f"model {name} does not take these options: {error}; see its docstring.") from error
