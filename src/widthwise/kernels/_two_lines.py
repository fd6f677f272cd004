"""Activations of two straight lines through zero: Gaussian moments in closed form."""

from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor


@dataclass(frozen=True)
class Slopes:
    """An activation of two straight lines through zero, ``even |x| + odd x``: (1/2, 1/2) is ReLU, (0, 1) nothing."""

    even: float
    odd: float


RELU = Slopes(0.5, 0.5)


def piecewise(
    k: Tensor, left: Tensor, right: Tensor, first: Slopes, second: Slopes, *, same: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Of Gaussians with covariance k and variances left and right: the moment of both activations, its derivative by
    the covariance, and that by the logarithm of either variance."""
    linear, even = first.odd * second.odd, first.even * second.even
    if even == 0.0:
        return linear * k, torch.full_like(k, linear), torch.zeros_like(k)
    product = left.clamp_min(0).unsqueeze(-1) * right.clamp_min(0).unsqueeze(-2)
    gap = (product - k.square()).clamp_min(0)
    if same:
        own_of(gap).zero_()
    root = gap.sqrt()
    slope = linear + even * (1 - 2 / pi * torch.atan2(root, k))
    return even * 2 / pi * root + slope * k, slope, even / pi * root


def own_of(k: Tensor) -> Tensor:
    """The diagonal of the last two axes."""
    return torch.diagonal(k, dim1=-2, dim2=-1)
