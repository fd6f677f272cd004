"""Predictions after training: infinite width in closed form, order 1/width from a Taylor expansion."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float

from widthwise.core import Value
from widthwise.numerics import Activation
from widthwise.theory.effective._ensemble import Parameters, mean_and_error, perceptrons, taylor
from widthwise.theory.effective._flow import PerLayer
from widthwise.theory.effective._gauss import EffectiveTheoryError, Elementwise
from widthwise.theory.effective._inputs import flow_inputs

Inputs = Float[np.ndarray, "n features"]
Vector = Float[np.ndarray, "points"]


@dataclass(frozen=True)
class TrainedEnsemble(Value):
    """Outputs of trained networks at some inputs, over random initialisations.

    Attributes:
        mean, variance: over initialisations.
        mean_error, variance_error: their standard errors; zero where they are exact.
        networks: how many were drawn; 0 in closed form.
    """

    mean: Vector
    variance: Vector
    mean_error: Vector
    variance_error: Vector
    networks: int


def train_predict(
    inputs: Inputs,
    targets: Float[np.ndarray, "n"],
    points: Float[np.ndarray, "points features"],
    widths: Sequence[int],
    activation: Activation | Elementwise | str,
    C_b: PerLayer | None = None,
    C_W: PerLayer | None = None,
    lambda_b: PerLayer = 1.0,
    lambda_W: PerLayer = 1.0,
    *,
    lr: float,
    steps: int,
    order: Literal[0, 1] | None = 0,
    networks: int = 1000,
    expansion: int = 3,
    seed: int = 0,
) -> TrainedEnsemble:
    """Mean and variance over initialisations of a one-output network after full-batch gradient descent.

    Every step moves a parameter by -lr * lambda * gradient of half the squared error, summed over examples.

    Args:
        inputs, targets: the training set.
        points: where to predict.
        widths, activation, C_b, C_W, lambda_b, lambda_W: as `flow` takes them; the last width is 1.
        lr, steps: gradient descent.
        order: 0: infinite width, kernel regression with the frozen NTK, in closed form. 1: correct to order 1/width:
            the outputs' Taylor polynomial in the parameters (`expansion`: to the cubic term, whose first two
            corrections are the dNTK and the ddNTK) is trained, averaged over drawn networks. None: the networks
            themselves are trained.
        networks, seed: draws for orders 1 and None.

    Raises:
        EffectiveTheoryError: shapes that do not fit, or a step size at which infinite width diverges.

    Source: arXiv 2106.10165, chapters 10 and 11 and section infinity.2; sheet, section 2.5.

    >>> x = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> found = train_predict(x, np.array([1.0, -1.0]), x, [2, 64, 1], "tanh", lr=0.2, steps=200)
    >>> found.mean.round(3).tolist()
    [1.0, -1.0]
    """
    if len(inputs) != len(targets) or points.shape[1] != inputs.shape[1] or widths[-1] != 1:
        raise EffectiveTheoryError(
            f"{len(inputs)} inputs, {len(targets)} targets, {points.shape[1]} features at the points and "
            f"{widths[-1]} outputs; give as many targets as inputs, equal features, and one output."
        )
    net = (widths, activation, C_b, C_W, lambda_b, lambda_W)
    if order == 0:
        return _infinite(inputs, targets, points, net, lr, steps)
    return _drawn(inputs, targets, points, net, lr, steps, networks, None if order is None else expansion, seed)


def _infinite(
    inputs: Inputs, targets: np.ndarray, points: np.ndarray, net: tuple, lr: float, steps: int
) -> TrainedEnsemble:
    n = len(inputs)
    found = flow_inputs(np.concatenate([inputs, points]), *net, vertex="none")
    K, theta = found.K[-1], found.theta[-1]
    values, vectors = np.linalg.eigh(theta[:n, :n])
    if lr * values[-1] >= 2:
        raise EffectiveTheoryError(
            f"lr={lr:g} diverges at infinite width; the NTK allows less than {2 / values[-1]:.3g}."
        )
    # (1 - (1 - lr v)^t) / v, which stays finite where an eigenvalue vanishes
    learned = lr * np.array([((1 - lr * value) ** np.arange(steps)).sum() for value in values])
    response = theta[n:, :n] @ (vectors * learned) @ vectors.T
    variance = K[n:, n:] - response @ K[:n, n:] - K[n:, :n] @ response.T + response @ K[:n, :n] @ response.T
    zero = np.zeros(len(points))
    return TrainedEnsemble(response @ targets, np.diagonal(variance).copy(), zero, zero, 0)


def _drawn(
    inputs: Inputs,
    targets: np.ndarray,
    points: np.ndarray,
    net: tuple,
    lr: float,
    steps: int,
    networks: int,
    expansion: int | None,
    seed: int,
) -> TrainedEnsemble:
    ensemble = perceptrons(*net)
    start = ensemble.draw(networks, seed)
    x, y, at = (torch.from_numpy(array) for array in (inputs, targets[:, None], points))
    if expansion is None:
        trained = ensemble.train(lambda p: ensemble(p, x), start, y, lr, steps)
        outputs = ensemble(trained, at)
    else:
        power = expansion  # the loop below must not see later values
        still = tuple(torch.zeros_like(tensor) for tensor in start)

        def model(move: Parameters, where: torch.Tensor = x) -> torch.Tensor:
            return taylor(lambda p: ensemble(p, where), start, move, power)

        outputs = model(ensemble.train(model, still, y, lr, steps), at)
    samples = outputs[..., 0].detach()
    mean, error = mean_and_error(samples)
    variance, variance_error = mean_and_error((samples - samples.mean(0)).square())
    return TrainedEnsemble(mean, variance, error, variance_error, networks)
