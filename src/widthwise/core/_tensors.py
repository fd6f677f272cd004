"""Checks of tensors."""

import torch
from torch import Tensor


def all_finite(x: Tensor) -> bool:
    """Whether no entry is infinite or NaN.

    A finite sum proves it at the speed of memory; only where the sum is not finite each entry is looked at.

    >>> all_finite(torch.tensor([3e38, 3e38])), all_finite(torch.tensor([1.0, float("nan")]))
    (True, False)
    """
    if not (x.is_floating_point() or x.is_complex()):
        return True
    x = x.detach()
    return bool(torch.isfinite(x.sum())) or bool(torch.isfinite(x).all())
