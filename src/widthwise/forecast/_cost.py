"""What a network costs, counted rather than timed, so that equal seeds give equal forecasts on a busy machine too."""

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from widthwise.core import evaluating, seeded

SPEED = 1e10  # operations per second: one core at small layers
STEP = 2e7  # operations' worth of fixed cost of a training step


def forward_operations(module: nn.Module, example: Tensor) -> float:
    """Multiplications and additions of one forward pass on one example (matrix products and convolutions)."""
    with evaluating(module), torch.no_grad(), seeded(0, "cost"), FlopCounterMode(display=False) as counter:
        module(example)
    return counter.get_total_flops() / len(example)


def training_steps(module: nn.Module, example: Tensor, batch: int, seconds: float) -> int:
    """Steps of gradient descent that fit in a budget on one core; a backward pass costs two forward ones."""
    step = 3 * batch * forward_operations(module, example) + STEP
    return max(1, int(seconds * SPEED / step))
