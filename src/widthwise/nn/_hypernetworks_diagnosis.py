"""Does a hypernetwork's output follow the size of its input? The diagnosis that arXiv:2304.07645 starts from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from widthwise.core import DataError, Value, generator
from widthwise.nn._hypernetworks import HyperNet


@dataclass(frozen=True)
class Proportionality(Value):
    """How the size of predicted parameters and gradients depends on the size of the input.

    Attributes:
        input_norm, theta_norm: Euclidean norms at each point of the grid.
        ratio: theta_norm over input_norm (NaN at zero).
        slope: of log theta_norm over log input_norm, zero inputs left out; 1: proportional, about 0: independent. NaN
            where all inputs have one norm.
        gradient_norm: by weight matrix of the hypernetwork, at each point of the grid.
        gradient_variation: by weight matrix, standard deviation over mean of these.
        offset_share: mean of |theta0|^2 / (|theta0|^2 + |theta - theta0|^2).
    """

    input_norm: tuple[float, ...]
    theta_norm: tuple[float, ...]
    ratio: tuple[float, ...]
    slope: float
    gradient_norm: dict[str, tuple[float, ...]]
    gradient_variation: dict[str, float]
    offset_share: float

    @property
    def proportional(self) -> bool:
        """Whether predicted parameters are proportional to the input in size, to one percent."""
        ratios = np.array([ratio for ratio in self.ratio if np.isfinite(ratio)])
        return len(ratios) > 1 and bool(np.ptp(self.input_norm) > 0) and bool(np.ptp(ratios) <= 0.01 * ratios.mean())


def proportionality(
    hypernet: HyperNet,
    grid: Mapping[str, Tensor],
    loss: Callable[[dict[str, Tensor]], Tensor] | None = None,
    *,
    seed: int = 0,
) -> Proportionality:
    """Sizes of parameters and gradients over a grid of inputs, one point at a time.

    Args:
        hypernet: in its present mode; its gradients are left alone.
        grid: inputs by name, each with a leading axis.
        loss: of the predicted parameters; by default their inner product with one random direction, so that only the
            hypernetwork's own share of the gradient is seen.
        seed: of that direction.

    Raises:
        DataError: as the hypernetwork's forward pass, or fewer than two points.

    Source: arXiv:2304.07645, section 3.1.

    >>> net = HyperNet({"gamma": ()}, {"weight": (5, 5)}, hidden=(8,), encoding=None, residual=False)
    >>> found = proportionality(net, {"gamma": torch.tensor([0.1, 0.5, 1.0])})
    >>> found.proportional, round(found.slope, 3)
    (True, 1.0)
    """
    points = len(next(iter(grid.values()))) if grid else 0
    if points < 2 or any(len(values) != points for values in grid.values()):
        raise DataError("the grid has fewer than two points or inputs of unequal number; give two or more of each.")
    direction = torch.randn(hypernet.offset.numel(), generator=generator(seed, "proportionality"))
    matrices = {
        name: weight for name, weight in hypernet.named_parameters() if weight.ndim > 1 and weight.requires_grad
    }
    sizes, gradients = [], []
    for index in range(points):
        point = {name: values[index] for name, values in grid.items()}
        correction = hypernet.correction(**point)
        theta = hypernet._unflatten(hypernet.offset + correction)
        flat = torch.cat([value.reshape(-1) for value in theta.values()])
        value = (flat * direction.to(flat)).sum() if loss is None else loss(theta)
        found = torch.autograd.grad(value, list(matrices.values()), allow_unused=True)
        gradients.append([0.0 if g is None else g.norm().item() for g in found])
        size = torch.cat([value.reshape(-1) for value in point.values()]).norm()
        sizes.append([size.item(), flat.norm().item(), correction.norm().item()])
    return _summary(np.array(sizes), np.array(gradients).T, list(matrices), hypernet.offset.norm().item())


def _summary(sizes: np.ndarray, gradients: np.ndarray, names: list[str], offset: float) -> Proportionality:
    inputs, thetas, corrections = sizes.T
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(inputs > 0, thetas / inputs, np.nan)
        variation = gradients.std(axis=1) / gradients.mean(axis=1)
        share = offset**2 / (offset**2 + corrections**2)
    positive = (inputs > 0) & (thetas > 0)
    x, y = np.log(inputs[positive]), np.log(thetas[positive])
    slope = float(np.polyfit(x, y, 1)[0]) if len(x) > 1 and np.ptp(x) > 1e-6 else float("nan")
    return Proportionality(
        tuple(inputs.tolist()),
        tuple(thetas.tolist()),
        tuple(ratio.tolist()),
        slope,
        {name: tuple(row.tolist()) for name, row in zip(names, gradients, strict=True)},
        dict(zip(names, variation.tolist(), strict=True)),
        float(np.nanmean(share)),
    )
