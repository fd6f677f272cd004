"""Activations that are polynomials between kinks."""

from collections.abc import Callable
from functools import partial

from torch import Tensor
from torch.nn import functional as nnf

from widthwise.numerics._activation import Activation
from widthwise.numerics._piecewise import piecewise_form


def _piecewise(name: str, function: Callable[[Tensor], Tensor], kinks: tuple[float, ...], *pieces: tuple) -> Activation:
    """A piecewise polynomial: one tuple of coefficients (constant first) per piece, from left to right."""
    return Activation.of(
        function,
        name,
        kinks,
        closed_form=piecewise_form(kinks, pieces),
        continuous=all(abs(_jump(pieces, j, kink)) < 1e-12 for j, kink in enumerate(kinks)),
    )


def _jump(pieces: tuple, j: int, x: float) -> float:
    left, right = (sum(c * x**p for p, c in enumerate(piece)) for piece in pieces[j : j + 2])
    return right - left


def hardtanh(low: float = -1.0, high: float = 1.0) -> Activation:
    """x clipped to [low, high]."""
    function = partial(nnf.hardtanh, min_val=low, max_val=high)
    return _piecewise(f"hardtanh({low:g},{high:g})", function, (low, high), (low,), (0.0, 1.0), (high,))


def relu6() -> Activation:
    """x clipped to [0, 6]."""
    return _piecewise("relu6", nnf.relu6, (0.0, 6.0), (0.0,), (0.0, 1.0), (6.0,))


def hardsigmoid() -> Activation:
    """(x + 3)/6 clipped to [0, 1]; written out because torch's own derivative has single precision."""
    return _piecewise("hardsigmoid", lambda x: (x / 6 + 0.5).clamp(0, 1), (-3.0, 3.0), (0.0,), (0.5, 1 / 6), (1.0,))


def hardswish() -> Activation:
    """x times the hard sigmoid."""
    return _piecewise("hardswish", nnf.hardswish, (-3.0, 3.0), (0.0,), (0.0, 0.5, 1 / 6), (0.0, 1.0))


def softshrink(l: float = 0.5) -> Activation:  # noqa: E741
    """x moved towards 0 by l, 0 within l of it."""
    return _piecewise(f"softshrink({l:g})", partial(nnf.softshrink, lambd=l), (-l, l), (l, 1.0), (0.0,), (-l, 1.0))


def hardshrink(l: float = 0.5) -> Activation:  # noqa: E741
    """x, but 0 within l of 0. It jumps: its derivative counts as that of the pieces."""
    return _piecewise(f"hardshrink({l:g})", partial(nnf.hardshrink, lambd=l), (-l, l), (0.0, 1.0), (0.0,), (0.0, 1.0))


def threshold(threshold: float = 1.0, value: float = 0.0) -> Activation:
    """x above the threshold, `value` elsewhere. It jumps unless the two are equal."""
    function = partial(nnf.threshold, threshold=threshold, value=value)
    return _piecewise(f"threshold({threshold:g},{value:g})", function, (threshold,), (value,), (0.0, 1.0))
