"""One sampled copy of the infinite-width network while it trains: M coordinates per layer."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from scipy.special import ndtri
from scipy.stats import qmc
from torch import Tensor

from widthwise.core import derived_seed, generator
from widthwise.numerics import Activation
from widthwise.theory.feature._lazy import Coordinates, LazyMatrix


@dataclass(frozen=True)
class Pass:
    """What a forward pass leaves: preactivations and activations ``[M, samples]`` per layer, and the outputs."""

    inputs: Float[Tensor, "samples inputs"]
    before: list[Tensor]
    after: list[Tensor]
    outputs: Float[Tensor, "samples outputs"]


class Particles:
    """The infinite-width muP network on M samples of the coordinates of each hidden layer.

    First weights ``U [M, inputs]`` and readout ``V [M, outputs]`` are kept, as in a mean-field network; hidden matrices
    are lazy random ones plus the outer products of their updates.
    """

    def __init__(self, sizes: tuple[int, int], sigma: Sequence[float], activation: Activation, samples: int, seed: int):
        self.activation, self.sigma = activation, tuple(sigma)
        depth = len(sigma) - 1
        self.layers = [
            Coordinates(samples, f"hidden layer {index + 1}", generator(seed, "coordinates", index))
            for index in range(depth)
        ]
        self.U = sigma[0] * self._first(self.layers[0], sizes[0], seed, 0)
        self.V = sigma[-1] * self._first(self.layers[-1], sizes[1], seed, 1)
        self.matrices = [
            LazyMatrix(source, target, factor)
            for source, target, factor in zip(self.layers, self.layers[1:], sigma[1:-1], strict=False)
        ]
        self.pulls = [torch.zeros(samples, 0, dtype=torch.float64) for _ in self.matrices]
        self.pushes = [torch.zeros(samples, 0, dtype=torch.float64) for _ in self.matrices]

    @staticmethod
    def _first(layer: Coordinates, count: int, seed: int, part: int) -> Tensor:
        """Initial weights by scrambled Sobol points, which fill the space more evenly than random ones."""
        points = qmc.Sobol(count, rng=derived_seed(seed, "initial weights", part) % 2**32)
        uniform = points.random_base2((layer.samples - 1).bit_length())[: layer.samples]
        start = torch.from_numpy(ndtri(uniform.clip(1e-12, 1 - 1e-12)))
        if part and layer.known.shape[1] > 1:
            # Two sets of points are paired at random, or their joint distribution would be a curve.
            start = start[torch.randperm(len(start), generator=layer.random)]
        return layer.draw(count, start)

    def forward(self, x: Float[Tensor, "samples inputs"]) -> Pass:
        """Outputs at `x`, with all that the backward pass needs."""
        before = [self.U @ x.T]
        after = [self.activation(before[0])]
        for matrix, pull, push in zip(self.matrices, self.pulls, self.pushes, strict=True):
            h = matrix.apply(after[-1]) - pull @ matrix.source.inner(push, after[-1])
            before.append(h)
            after.append(self.activation(h))
        return Pass(x, before, after, self.layers[-1].inner(after[-1], self.V))

    def step(self, done: Pass, errors: Float[Tensor, "samples outputs"], rates: Sequence[float]) -> None:
        """One step of gradient descent with the given gradient of the loss in the outputs."""
        pulled = []
        back = self.V @ errors.T
        for index in range(len(self.matrices), -1, -1):
            pull = back * self.activation.derivative(done.before[index])
            pulled.append(pull)
            if index:
                matrix, old, push = self.matrices[index - 1], self.pulls[index - 1], self.pushes[index - 1]
                back = matrix.transposed(pull) - push @ matrix.target.inner(old, pull)
        pulled.reverse()
        for index, rate in enumerate(rates[1:-1]):
            self.pulls[index] = torch.cat([self.pulls[index], rate * pulled[index + 1]], 1)
            self.pushes[index] = torch.cat([self.pushes[index], done.after[index]], 1)
        self.U = self.U - rates[0] * pulled[0] @ done.inputs
        self.V = self.V - rates[-1] * done.after[-1] @ errors

    def frozen(self, seed: int) -> "Particles":
        """A copy that can be evaluated without changing this one; equal seeds give equal draws."""
        twin = copy(self)
        twin.layers = [copy(layer) for layer in self.layers]
        for index, layer in enumerate(twin.layers):
            layer.random = generator(seed, "evaluation", index)
        twin.matrices = []
        for index, matrix in enumerate(self.matrices):
            other: Any = copy(matrix)
            other.source, other.target = twin.layers[index], twin.layers[index + 1]
            twin.matrices.append(other)
        return twin
