"""Ensembles of real multilayer perceptrons in one batch: drawing, running, training, tangent kernels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from widthwise.core import generator
from widthwise.numerics import Activation
from widthwise.theory.effective._flow import Flow, PerLayer, flow, per_layer
from widthwise.theory.effective._gauss import Elementwise, as_activation

Parameters = tuple[Tensor, ...]  # W_1, b_1, W_2, b_2, ... each [draws, ...]


@dataclass(frozen=True)
class Perceptrons:
    """What an ensemble is drawn from, and the learning rates of its parameters.

    Attributes:
        widths: n_0 .. n_L.
        C_b, C_W: initial variances per layer.
        rates: per parameter tensor: lambda_W / n_{l-1}, lambda_b, and so on.
    """

    activation: Activation
    widths: tuple[int, ...]
    C_b: tuple[float, ...]
    C_W: tuple[float, ...]
    rates: tuple[float, ...]

    @staticmethod
    def of(theory: Flow, activation: Activation) -> "Perceptrons":
        """The ensemble that a flow describes."""
        layers = zip(theory.lambda_W / theory.fan_in, theory.lambda_b, strict=True)
        rates = tuple(float(rate) for pair in layers for rate in pair)
        C_b, C_W = (tuple(float(value) for value in array) for array in (theory.C_b, theory.C_W))
        return Perceptrons(activation, theory.widths, C_b, C_W, rates)

    def draw(self, count: int, seed: int) -> Parameters:
        """Initial parameters of `count` networks, in double precision."""
        random = generator(seed, "perceptrons", self.widths, count)
        found: list[Tensor] = []
        for layer, (fan_in, fan_out) in enumerate(zip(self.widths[:-1], self.widths[1:], strict=True)):
            for shape, variance in (((fan_out, fan_in), self.C_W[layer] / fan_in), ((fan_out,), self.C_b[layer])):
                found.append(variance**0.5 * torch.randn(count, *shape, generator=random, dtype=torch.float64))
        return tuple(found)

    def __call__(self, parameters: Parameters, inputs: Float[Tensor, "n features"]) -> Float[Tensor, "draws n outputs"]:
        """Outputs of every network."""
        z = inputs @ parameters[0].mT + parameters[1][:, None]
        for layer in range(2, len(parameters), 2):
            z = self.activation.function(z) @ parameters[layer].mT + parameters[layer + 1][:, None]
        return z

    def tangent_kernel(self, parameters: Parameters, inputs: Float[Tensor, "n features"]) -> Float[Tensor, "draws m m"]:
        """NTK of every network, learning rates included; m runs over inputs, then outputs."""
        leaves = tuple(tensor.detach().requires_grad_(True) for tensor in parameters)
        outputs = self(leaves, inputs).flatten(1)
        rows = []
        for column in range(outputs.shape[1]):
            grads = torch.autograd.grad(outputs[:, column].sum(), leaves, retain_graph=True)
            rows.append([grad.flatten(1) * rate**0.5 for grad, rate in zip(grads, self.rates, strict=True)])
        jacobians = [torch.stack(parts, dim=1) for parts in zip(*rows, strict=True)]
        return torch.stack([jacobian @ jacobian.mT for jacobian in jacobians]).sum(0).detach()

    def train(
        self,
        model: Callable[[Parameters], Tensor],
        start: Parameters,
        targets: Float[Tensor, "n outputs"],
        lr: float,
        steps: int,
    ) -> Parameters:
        """Full-batch gradient descent on half the squared error, summed over examples; `start` is left as it is."""
        current = start
        for _ in range(steps):
            leaves = tuple(tensor.detach().requires_grad_(True) for tensor in current)
            loss = (model(leaves) - targets).square().sum() / 2
            grads = torch.autograd.grad(loss, leaves)
            moves = zip(leaves, grads, self.rates, strict=True)
            current = tuple((leaf - lr * rate * grad).detach() for leaf, grad, rate in moves)
        return current


def taylor(function: Callable[[Parameters], Tensor], origin: Parameters, move: Parameters, order: int) -> Tensor:
    """The Taylor polynomial of this order of ``function(origin + move)`` around the origin."""
    terms = [function]
    for _ in range(order):
        terms.append(_along(terms[-1], move))
    total, factorial = terms[0](origin), 1.0
    for power, term in enumerate(terms[1:], start=1):
        factorial *= power
        total = total + term(origin) / factorial
    return total


def _along(function: Callable[[Parameters], Tensor], move: Parameters) -> Callable[[Parameters], Tensor]:
    """The derivative in the direction of `move`."""
    return lambda point: torch.func.jvp(function, (point,), (move,))[1]


def perceptrons(
    widths: Sequence[int],
    activation: Activation | Elementwise | str,
    C_b: PerLayer | None = None,
    C_W: PerLayer | None = None,
    lambda_b: PerLayer = 1.0,
    lambda_W: PerLayer = 1.0,
) -> Perceptrons:
    """The ensemble with these widths, variances and learning rates, as `flow` takes them."""
    f = as_activation(activation)
    per_layer("lambda_b", lambda_b, len(widths) - 1)
    return Perceptrons.of(flow(widths, f, C_b, C_W, lambda_b, lambda_W), f)


def mean_and_error(samples: Float[Tensor, "draws ..."]) -> tuple[np.ndarray, np.ndarray]:
    """Mean over draws and its standard error."""
    mean = samples.mean(0)
    return mean.numpy(), (samples.std(0) / len(samples) ** 0.5).numpy()
