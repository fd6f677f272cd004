"""An elementwise function with what theory needs of it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from widthwise.core import WidthwiseError

Elementwise = Callable[[Tensor], Tensor]


class ActivationError(WidthwiseError, ValueError):
    """An activation, a variance or a covariance that Gaussian expectations cannot use."""


@dataclass(frozen=True)
class ClosedForm:
    """Exact Gaussian expectations of one activation.

    Attributes:
        pair: ``pair(a, b, c, gap)`` gives E f(u) f(v) and E f'(u) f'(v) for (u, v) ~ N(0, [[a, c], [c, b]]);
            ``gap`` is ``ab - c^2``, at most a rounding below 0. The four
            broadcast; both results have the broadcast shape.
        diagonal: ``diagonal(a)`` gives E f(u)^2 and E f'(u)^2 without cancellation; None where quadrature is as good.
        means: ``means(a)`` gives E f(u) and E f'(u); None where quadrature is as good.
    """

    pair: Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
    diagonal: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None
    means: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None


@dataclass(frozen=True, eq=False)
class Activation:
    """An elementwise function with what theory needs of it. Two are equal when their names are.

    Attributes:
        name: with its parameters, for example ``"leaky_relu(0.1)"``.
        function, derivative: elementwise on tensors of any shape. The derivative is the ordinary one wherever it
            exists: the jumps of ``sign`` or ``step`` are not in it.
        kinks: points where the function or its first derivative jumps.
        closed_form: exact expectations, where they are known.
        scale: shortest length over which the function bends; 1 for tanh. A starting guess for the quadrature, which
            refines itself.
        continuous: False if the function itself jumps; then E f'(u) f'(v) is not dE f(u) f(v)/dc.

    >>> import torch
    >>> Activation.of(torch.tanh, "mine").derivative(torch.zeros(1))
    tensor([1.])
    """

    name: str
    function: Elementwise
    derivative: Elementwise
    kinks: tuple[float, ...] = ()
    closed_form: ClosedForm | None = None
    scale: float = 1.0
    continuous: bool = True

    @staticmethod
    def of(function: Elementwise, name: str, kinks: tuple[float, ...] = (), **fields: Any) -> "Activation":
        """Build from any elementwise torch function; its derivative comes from autograd.

        Args:
            function: elementwise and differentiable by torch between the kinks.
            name: what it is called, parameters included: it decides equality.
            kinks: points where the function or its first derivative jumps. A forgotten kink costs accuracy, which
                `Moments.error` then shows.
        """

        def derivative(x: Tensor) -> Tensor:
            value, pull, *_ = torch.func.vjp(function, x)
            return pull(torch.ones_like(value))[0]

        return Activation(name, function, derivative, tuple(sorted(kinks)), **fields)

    def __call__(self, x: Tensor) -> Tensor:
        return self.function(x)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Activation) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)


def scaled(activation: Activation, output_scale: float = 1.0, input_scale: float = 1.0) -> Activation:
    """The activation ``x -> output_scale * f(input_scale * x)``.

    >>> import torch
    >>> from widthwise.numerics import relu
    >>> scaled(relu(), 2.0, 3.0)(torch.ones(1))
    tensor([6.])
    """
    if not input_scale:
        raise ActivationError(f"input_scale of {activation.name} is 0; a constant has no use as an activation.")
    out, inner, base = float(output_scale), float(input_scale), activation
    form = base.closed_form
    return replace(
        base,
        name=f"scaled({base.name},{out:g},{inner:g})",
        function=lambda x: out * base.function(inner * x),
        derivative=lambda x: out * inner * base.derivative(inner * x),
        kinks=tuple(sorted(kink / inner for kink in base.kinks)),
        closed_form=None if form is None else _scaled_form(form, out, inner),
        scale=base.scale / abs(inner),
    )


def _scaled_form(form: ClosedForm, out: float, inner: float) -> ClosedForm:
    square = inner * inner

    def pair(a: Tensor, b: Tensor, c: Tensor, gap: Tensor) -> tuple[Tensor, Tensor]:
        value, slope = form.pair(square * a, square * b, square * c, square * square * gap)
        return out**2 * value, (out * inner) ** 2 * slope

    def diagonal(a: Tensor) -> tuple[Tensor, Tensor]:
        assert form.diagonal is not None
        value, slope = form.diagonal(square * a)
        return out**2 * value, (out * inner) ** 2 * slope

    def means(a: Tensor) -> tuple[Tensor, Tensor]:
        assert form.means is not None
        value, slope = form.means(square * a)
        return out * value, out * inner * slope

    return ClosedForm(pair, form.diagonal and diagonal, form.means and means)
