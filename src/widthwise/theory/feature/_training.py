"""Gradient descent on a module, with its losses, and a clear word when it diverges."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from widthwise.core import Value, all_finite
from widthwise.theory.feature._errors import FeatureLimitError, at_least, positive
from widthwise.theory.feature._losses import Loss, loss_of, require_finite


@dataclass(frozen=True)
class Descent(Value):
    """Training by gradient descent.

    Attributes:
        losses: ``[steps + 1]``, before each step and after the last.
    """

    losses: Float[Tensor, "times"]


def descend(
    module: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    steps: int,
    rate: float,
    loss: str | Loss = "square",
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    groups: Sequence[dict[str, Any]] | None = None,
) -> Descent:
    """Train a module in place on all data at every step, as `feature_limit` trains its limit.

    Args:
        module: a `LinearLimit`, a network sampled from a limit, or any other.
        loss: ``"square"`` (``sum |f - y|^2 / 2N``), ``"cross-entropy"`` or a function of outputs and targets.
        groups: parameter groups with their own rates, such as `AbcNetwork.parameter_groups`.

    Raises:
        FeatureLimitError: data that is not finite, or a rate at which training diverges.

    >>> from widthwise.theory import LinearLimit
    >>> limit = LinearLimit(2, 1)
    >>> x = torch.eye(2)
    >>> bool(descend(limit, x, x[:, :1], steps=20, rate=0.5).losses[-1] < 0.1)
    True
    """
    at_least("steps", steps, 1, "nothing else trains")
    for name, values in (("inputs", x), ("targets", y)):
        if not all_finite(values):
            raise FeatureLimitError(f"the {name} hold values that are not finite; clean the data first.")
    criterion = loss_of(loss)
    parameters: Any = list(module.parameters()) if groups is None else list(groups)
    optimizer = torch.optim.SGD(parameters, positive("rate", rate), momentum=momentum, weight_decay=weight_decay)
    history: list[float] = []
    for _ in range(steps):
        optimizer.zero_grad()
        value = criterion(module(x), y)
        history.append(float(value.detach()))
        require_finite(history, rate)
        value.backward()
        optimizer.step()
    with torch.no_grad():
        history.append(float(criterion(module(x), y)))
    require_finite(history, rate)
    return Descent(torch.tensor(history, dtype=torch.float64))
