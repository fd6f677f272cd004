"""Losses by name, and what training needs of them: the value and its gradient in the outputs."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from widthwise.theory.feature._errors import FeatureLimitError

Loss = Callable[[Tensor, Tensor], Tensor]
"""Called with outputs ``[samples, outputs]`` and targets; returns a scalar."""


def square(outputs: Tensor, targets: Tensor) -> Tensor:
    """Half the mean over samples of the squared error, summed over outputs: ``sum |f - y|^2 / (2 N)``."""
    return (outputs - targets).square().sum() / (2 * len(outputs))


LOSSES: dict[str, Loss] = {"square": square, "cross-entropy": torch.nn.functional.cross_entropy}


def loss_of(loss: str | Loss) -> Loss:
    """A loss by name, or the one given."""
    if callable(loss):
        return loss
    if loss not in LOSSES:
        raise FeatureLimitError(f"loss={loss!r} is not known; give {', '.join(map(repr, LOSSES))} or a function.")
    return LOSSES[loss]


def value_and_errors(
    loss: Loss, outputs: Float[Tensor, "samples outputs"], targets: Tensor
) -> tuple[float, Float[Tensor, "samples outputs"]]:
    """The loss and its gradient with respect to the outputs (the errors that training feeds back)."""
    free = outputs.detach().requires_grad_()
    value = loss(free, targets)
    (errors,) = torch.autograd.grad(value, free)
    return float(value.detach()), errors


def require_finite(losses: list[float], rate: object) -> None:
    """Stop where training has diverged.

    Raises:
        FeatureLimitError: the last loss is not finite, or a million times the first.
    """
    last, first = losses[-1], losses[0]
    if not last <= 1e6 * max(abs(first), 1e-300):
        raise FeatureLimitError(
            f"training diverges: the loss is {last:.3g} after step {len(losses) - 1} with rate={rate}, from "
            f"{first:.3g}; give a smaller rate."
        )
