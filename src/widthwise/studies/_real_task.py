"""The real task of the kernel studies: the first Fashion-MNIST images, and exact kernel regression on them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import lapack
from torch import Tensor, nn

from widthwise.core import DataError, Value
from widthwise.data import load
from widthwise.kernels import infinite
from widthwise.nn import mlp
from widthwise.program import trace

Matrix = Float[np.ndarray, "_ _"]
Row = Float[np.ndarray, "_"]


@dataclass(frozen=True, eq=False)
class RealTask:
    """Images and their one-hot labels minus the uniform distribution, at unit norm.

    Attributes:
        name: of the data set that was found.
        official: whether it is the fact sheets' own set, so that their numbers apply.
    """

    name: str
    official: bool
    inputs: Float[Tensor, "samples *shape"]
    targets: Float[np.ndarray, "samples outputs"]


def real_task(samples: int) -> RealTask:
    """The first `samples` Fashion-MNIST training images, globally standardised; the digits where it is not installed
    (at most 1797 of them)."""
    try:
        data, official = load("fashion-mnist"), True
    except DataError:
        data, official = load("digits"), False
    inputs, labels = data.inputs[:samples], data.targets[:samples]
    targets = torch.nn.functional.one_hot(labels, 10).double().numpy() - 0.1
    targets /= np.linalg.norm(targets, axis=1, keepdims=True)
    return RealTask(data.name, official, inputs, targets)


def relu_network(width: int, shape: Sequence[int]) -> nn.Module:
    """One hidden layer of ReLU units with He weights, no outputs but one."""
    return mlp(width, input_shape=shape, outputs=1, depth=1)


def relu_kernels(inputs: Float[Tensor, "samples *shape"]) -> tuple[Matrix, Matrix]:
    """NNGP and tangent kernel of `relu_network` at infinite width with weight variance 2 / fan-in and no biases."""
    program = trace(relu_network(8, inputs.shape[1:]), inputs[:2])
    pair = infinite(program, parametrization="ntk", weight_std=2**0.5, bias_std=0.0)(inputs)
    return pair.nngp.numpy(), pair.ntk.numpy()


def laplace_kernel(inputs: Float[Tensor, "samples *shape"]) -> Matrix:
    """``exp(-|x - x'| / s)`` with s the median distance."""
    flat = inputs.flatten(1).double()
    distance = torch.cdist(flat, flat)
    return torch.exp(-distance / distance.median()).numpy()


@dataclass(frozen=True)
class Ridgeless(Value):
    """Ridgeless regression against n: means over random subsets, and standard errors of those means.

    Attributes:
        kappa: ``1 / Tr K_n^-1``.
        error: test error on the true labels, summed over outputs.
        noise: expected test error on pure unit noise, exact in the noise.
    """

    sizes: Row
    kappa: Row
    error: Row
    noise: Row
    error_stderr: Row
    noise_stderr: Row


def ridgeless(
    gram: Matrix, targets: Matrix, sizes: Sequence[int], trials: int, *, tests: int = 1000, seed: int = 0
) -> Ridgeless:
    """Fit random subsets of the samples exactly, test on `tests` of the others; fewer trials at large sizes."""
    rng = np.random.default_rng(seed)
    rows = []
    for size in sizes:
        draws = [
            _interpolate(gram, targets, rng.permutation(len(gram)), size, tests)
            for _ in range(max(2, min(trials, trials * 500 // size)))
        ]
        table = np.array(draws)
        rows.append(np.concatenate([table.mean(0), table.std(0, ddof=1) / np.sqrt(len(table))]))
    kappa, error, noise, _, error_stderr, noise_stderr = np.array(rows).T
    return Ridgeless(np.array(sizes, dtype=float), kappa, error, noise, error_stderr, noise_stderr)


def _interpolate(gram: Matrix, targets: Matrix, order: np.ndarray, size: int, tests: int) -> tuple[float, float, float]:
    train, test = order[:size], order[size : size + tests]
    inverse = _inverse(gram[np.ix_(train, train)])
    operator = gram[np.ix_(test, train)] @ inverse
    error = ((operator @ targets[train] - targets[test]) ** 2).sum(1).mean()
    return 1 / np.trace(inverse), float(error), 1 + float((operator**2).sum(1).mean())


def _inverse(block: Matrix) -> Matrix:
    """Inverse of a positive definite matrix from its Cholesky factor; a third of the work of solving for it."""
    factor, failed = lapack.dpotrf(block, lower=1)
    if failed:
        raise DataError(
            f"the kernel matrix of {len(block)} samples is not positive definite; leave repeated samples out."
        )
    inverse = lapack.dpotri(factor, lower=1)[0]
    return np.tril(inverse) + np.tril(inverse, -1).T


@dataclass(frozen=True)
class Sweep(Value):
    """Kernel regression against the ridge, ``[trials, ridges]``; errors are affine in the label noise.

    Attributes:
        test, train: errors on the true labels, summed over outputs.
        test_noise, train_noise: what a unit of noise variance (summed over outputs) adds, exact in the noise.
    """

    ridges: Row
    test: Matrix
    train: Matrix
    test_noise: Matrix
    train_noise: Matrix

    def errors(self, noise: float) -> tuple[Matrix, Matrix]:
        """Test and train errors with label noise."""
        return self.test + noise * self.test_noise, self.train + noise * self.train_noise


def ridge_sweep(
    gram: Matrix, targets: Matrix, size: int, ridges: Row, trials: int, *, tests: int = 1000, seed: int = 0
) -> Sweep:
    """Every ridge on the same random subsets, by one eigendecomposition each."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(trials):
        order = rng.permutation(len(gram))
        train, test = order[:size], order[size : size + tests]
        values, vectors = np.linalg.eigh(gram[np.ix_(train, train)])
        rotated, cross = vectors.T @ targets[train], gram[np.ix_(test, train)] @ vectors
        rows.append([_at(ridge, values, rotated, cross, targets[test]) for ridge in ridges])
    table = np.array(rows)
    return Sweep(ridges, *(table[:, :, part] for part in range(4)))


def _at(ridge: float, values: Row, rotated: Matrix, cross: Matrix, targets: Matrix) -> tuple[float, ...]:
    inverse = 1 / (values + ridge)
    operator = cross * inverse
    unfit = (ridge * inverse) ** 2
    return (
        float(((operator @ rotated - targets) ** 2).sum(1).mean()),
        float((unfit @ rotated**2).sum() / len(values)),
        1 + float((operator**2).sum(1).mean()),
        float(unfit.mean()),
    )
