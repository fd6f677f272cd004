"""Kernels of finite networks averaged over random initialisations: the fallback where a network has no exact rule."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from widthwise.core import DataError, Value, generator, progress, seeded
from widthwise.probe import empirical_ntk, features


@dataclass(frozen=True)
class MonteCarloKernel(Value):
    """Kernels averaged over `draws` initialisations of a finite network.

    Attributes:
        ntk: mean over draws of the empirical tangent kernel per output, ``[n, n]``.
        features: mean over draws of the mean product of the features that enter the last linear layer, ``[n, n]``.
        ntk_error, features_error: relative standard error (Frobenius norm) of each mean; NaN for one draw.
    """

    draws: int
    ntk_error: float
    features_error: float
    ntk: Float[Tensor, "n n"] = field(repr=False, metadata={"plain": False})
    features: Float[Tensor, "n n"] = field(repr=False, metadata={"plain": False})


def monte_carlo_kernel(
    build: Callable[[], nn.Module], x: Tensor, *, draws: int = 8, seed: int = 0, show_progress: bool = False
) -> MonteCarloKernel:
    """Estimate a network's kernels from finite networks, with their standard error.

    Each draw builds the network anew and takes its empirical NTK along one random direction of the outputs, whose mean
    over directions is the mean over outputs. The bias that a finite width leaves falls like one over the width.

    Args:
        build: makes a freshly initialised network; PyTorch's global generator is seeded for each draw.
        x: ``[n, *input_shape]``.
        draws: number of initialisations.

    Raises:
        DataError: `draws` is below one.
        ModelError: the network has no last linear layer, or does not take the inputs.

    >>> kernel = monte_carlo_kernel(lambda: nn.Linear(3, 2, bias=False), torch.randn(4, 3), draws=2)
    >>> kernel.ntk.shape
    torch.Size([4, 4])
    """
    if draws < 1:
        raise DataError(f"draws is {draws}; a Monte-Carlo kernel needs at least one.")
    sums = [_Running(), _Running()]
    with progress("initialisations", draws, show=show_progress) as advance:
        for draw in range(draws):
            with seeded(seed, "monte carlo", draw):
                module = build()
            module.eval()
            wide = features(module, x).double().flatten(1)
            sums[1].add(wide @ wide.T / wide.shape[1])
            with torch.no_grad():
                outputs = module(x[:1]).flatten(1).shape[1]
            direction = torch.randn(outputs, generator=generator(seed, "direction", draw))
            projected = _Projected(module, direction / direction.norm())
            sums[0].add(empirical_ntk(projected, x).double())
            advance(1)
    return MonteCarloKernel(draws, sums[0].error, sums[1].error, sums[0].mean, sums[1].mean)


class _Projected(nn.Module):
    """One combination of a network's outputs."""

    def __init__(self, inner: nn.Module, direction: Tensor) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("direction", direction)

    def forward(self, x: Tensor) -> Tensor:
        return (self.inner(x).flatten(1) @ self.direction).unsqueeze(1)


class _Running:
    """Mean and standard error of matrices, one at a time (Welford)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(0)
        self.spread = torch.zeros(0)

    def add(self, matrix: Tensor) -> None:
        if self.count == 0:
            self.mean, self.spread = torch.zeros_like(matrix), torch.zeros_like(matrix)
        self.count += 1
        step = matrix - self.mean
        self.mean = self.mean + step / self.count
        self.spread = self.spread + step * (matrix - self.mean)

    @property
    def error(self) -> float:
        if self.count < 2:
            return float("nan")
        variance = self.spread.sum() / (self.count - 1) / self.count
        return float(variance.sqrt() / self.mean.norm())
