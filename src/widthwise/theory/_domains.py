"""Kernels whose eigensystem is known: the circle, the hypercube, the sphere; and laws that hold on any domain."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy.linalg import cho_factor, cho_solve
from scipy.special import binom, eval_gegenbauer, roots_gegenbauer

from widthwise.theory._risk import risk
from widthwise.theory._spectrum import EigenSpectrum

Levels = Float[np.ndarray, "levels"]
Profile = Callable[[np.ndarray], np.ndarray]


def circle_eigensystem(kernel: Profile, points: int) -> tuple[Levels, Levels]:
    """Eigenvalues and multiplicities by frequency of a kernel of the angle, on equally spaced points of the circle.

    Args:
        kernel: function of the angle in ``[0, 2 pi)``, even.
        points: M; eigenvalues are those of ``K / M``.
    """
    values = np.fft.rfft(kernel(2 * np.pi * np.arange(points) / points)).real / points
    counts = np.full(len(values), 2.0)
    counts[0] = 1.0
    if points % 2 == 0:
        counts[-1] = 1.0
    return np.maximum(values, 0.0), counts


def hypercube_eigensystem(kernel: Profile, dimension: int) -> tuple[Levels, Levels]:
    """Eigenvalues by parity degree 0..d and their multiplicities, for ``K(x . x' / d)`` on ``{-1, 1}^d``.

    ``lambda_l = 2^-d sum_j K(1 - 2 j / d) Kraw_j(l)`` with the Krawtchouk polynomials of degree j, multiplicity
    ``C(d, l)``.

    >>> values, counts = hypercube_eigensystem(lambda t: t, 4)
    >>> values.round(12).tolist(), counts.tolist()
    ([0.0, 0.25, 0.0, 0.0, 0.0], [1.0, 4.0, 6.0, 4.0, 1.0])
    """
    d = dimension
    degree, j, s = np.meshgrid(np.arange(d + 1), np.arange(d + 1), np.arange(d + 1), indexing="ij")
    raw = ((-1.0) ** s * binom(j, s) * binom(d - j, degree - s) * (s <= degree)).sum(2)
    values = raw.T @ kernel(1 - 2 * np.arange(d + 1) / d) / 2.0**d
    # Rounding of alternating sums leaves this much.
    return np.where(np.abs(values) < 1e-14 * np.abs(values).max(), 0.0, values), binom(d, np.arange(d + 1))


def sphere_eigensystem(kernel: Profile, dimension: int, degrees: int) -> tuple[Levels, Levels]:
    """Eigenvalues by degree and multiplicities, for ``K(x . x')`` on the unit sphere in `dimension` >= 3.

    ``lambda_l`` is the mean of ``K(t) P_l(t)`` under the density of t, with Gegenbauer polynomials ``P_l(1) = 1``.
    """
    order = dimension / 2 - 1
    nodes, weights = roots_gegenbauer(max(4 * degrees, 200), order)
    weights, values = weights / weights.sum(), kernel(nodes)
    level = np.arange(degrees)
    ratio = np.array([eval_gegenbauer(k, order, nodes) / eval_gegenbauer(k, order, 1.0) for k in level])
    counts = np.ones(degrees)
    counts[1:] = (2 * level[1:] + dimension - 2) / level[1:] * binom(level[1:] + dimension - 3, level[1:] - 1)
    return ratio @ (weights * values), counts.round()


def learned_coefficients(spectrum: EigenSpectrum, n: float | int, ridge: float | int = 0.0) -> tuple[Levels, Levels]:
    """Mean and variance of the learned coefficients, per listed level: ``L_i v_i`` and ``L_i^2 R / n``; covariances
    between modes are zero (2110.03922). Coefficients ``v_i`` are taken as positive roots of their squares."""
    found = risk(spectrum, float(n), ridge)
    learned = spectrum.learnabilities(float(found.kappa))[0]
    return learned * np.sqrt(spectrum.coefficients_squared), learned**2 * float(found.test) / n


def total_learnability(gram: Float[np.ndarray, "domain domain"], train: np.ndarray, ridge: float | int = 0.0) -> float:
    """Sum of the learnabilities of any orthonormal basis of functions on a finite domain, without the ansatz.

    The conservation law: equal to the number of training points at zero ridge, below it otherwise.

    Args:
        gram: kernel on the whole domain.
        train: indices of the training points, without repetition.
    """
    block = gram[np.ix_(train, train)] + ridge * np.eye(len(train))
    operator = cho_solve(cho_factor(block), gram[train])  # from labels on the domain to predictions on it
    return float(np.trace(operator[:, train]))
