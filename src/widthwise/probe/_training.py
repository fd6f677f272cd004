"""Plain full-batch gradient descent, for measurements during training."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from widthwise.core import DataError
from widthwise.probe._modules import call, measuring, select_parameters


def descent(module: nn.Module, x: Tensor, targets: Tensor, rate: float, momentum: float = 0.0) -> Iterator[float]:
    """Train in place on ``1/2 sum (f - y)^2``, in evaluation mode; yields the loss before each step, without end.

    Raises:
        DataError: the targets do not fit the outputs.
    """
    weights = list(select_parameters(module, None).values())
    velocity = [torch.zeros_like(weight) for weight in weights]
    with measuring(module), torch.enable_grad():
        while True:
            outputs = call(module, x)
            if outputs.shape != targets.shape:
                raise DataError(
                    f"targets of shape {list(targets.shape)} do not fit outputs of shape {list(outputs.shape)}; "
                    "give one row per example."
                )
            loss = (outputs - targets).square().sum() / 2
            gradients = torch.autograd.grad(loss, weights, materialize_grads=True)
            yield float(loss.detach())
            with torch.no_grad():
                for weight, speed, gradient in zip(weights, velocity, gradients, strict=True):
                    weight -= rate * speed.mul_(momentum).add_(gradient)
