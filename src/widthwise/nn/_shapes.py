"""What the built-in models ask of an input shape."""

from collections.abc import Sequence
from difflib import get_close_matches

from widthwise.core import ModelError


def near_matches(name: str, known: Sequence[str]) -> str:
    """The end of an error sentence: what may have been meant, or what there is."""
    close = get_close_matches(name, known, n=3)
    return f"did you mean {' or '.join(close)}?" if close else f"choose one of {', '.join(known)}."


def check_sizes(model: str, **sizes: int) -> None:
    """Refuse sizes below 1.

    Raises:
        ModelError: naming the first of them.
    """
    for name, size in sizes.items():
        if size < 1:
            raise ModelError(f"model {model}: {name}={size} must be at least 1.")


def check_shape(model: str, input_shape: Sequence[int], ranks: Sequence[int]) -> tuple[int, ...]:
    """`input_shape` as a tuple, if it has one of `ranks` axes, none empty.

    Raises:
        ModelError: it has not.
    """
    shape = tuple(int(size) for size in input_shape)
    if len(shape) not in ranks or min(shape, default=0) < 1:
        raise ModelError(
            f"model {model} cannot take inputs of shape {shape}; give (features,), (channels, length) or "
            "(channels, height, width), every size at least 1."
        )
    return shape


def as_signal(model: str, input_shape: Sequence[int]) -> tuple[int, ...]:
    """Shape of the input as a signal, channels first: a table ``(features,)`` becomes ``(1, features)``."""
    shape = check_shape(model, input_shape, (1, 2, 3))
    return (1, *shape) if len(shape) == 1 else shape
