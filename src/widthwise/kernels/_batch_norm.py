"""Batch norm in training mode, exactly: integrals in one and two variables (sheet, section 2.8).

A coordinate's preactivations over a batch (and its positions) are Gaussian with covariance Sigma; centred they have
``S = G Sigma G``, and batch norm divides by ``sqrt(|x|^2 / N + eps)``. Writing that as an integral of
``exp(-s |x|^2)`` tilts the Gaussian to ``K = S (I + 2 s S)^-1``, under which moments of piecewise linear functions are
known: any activation made of two straight lines through zero passes the norm's scale, so that it comes under the
integral (arXiv:1902.08129, appendix on the Laplace method).
"""

from dataclasses import dataclass
from math import pi, sqrt

import torch
from jaxtyping import Float
from torch import Tensor

from widthwise.core import DataError
from widthwise.kernels._two_lines import RELU, Slopes, own_of, piecewise

FEWEST = 4
"""Numbers that a coordinate is standardised over; with fewer the integrals have heavy tails."""
CHUNK = 1 << 22
_NEGLIGIBLE = 1e-18
_NODES, _NODES_ACROSS = 96, 64


@dataclass(frozen=True)
class Batch:
    """The covariance of one coordinate over one batch: centred, by its eigenvectors.

    Attributes:
        values, vectors: ``[N]``, ``[N, N]`` of the centred covariance.
        power: ``[N]`` its diagonal.
        eps: added to the variance of each coordinate.
    """

    values: Tensor
    vectors: Tensor
    power: Tensor
    eps: float

    @staticmethod
    def of(sigma: Float[Tensor, "n n"], eps: float = 0.0) -> "Batch":
        """
        Raises:
            DataError: fewer than 4 numbers are standardised together, or none of them varies.
        """
        count = len(sigma)
        if count < FEWEST:
            raise DataError(f"a batch of {count} examples is too small for batch norm; give {FEWEST} or more.")
        centred = _centred(sigma.double())
        values, vectors = torch.linalg.eigh((centred + centred.T) / 2)
        if not float(values[-1]) > 0:
            raise DataError("all examples of a batch are the same, so that batch norm divides by nothing.")
        values = torch.where(values > 1e-14 * count * values[-1], values, 0.0)
        return Batch(values, vectors, centred.diagonal(), eps)

    @property
    def count(self) -> int:
        return len(self.power)

    def nodes(self, power: float, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Nodes s and weights of ``N^power int s^(power-1) det(I + 2 s S)^(-1/2) exp(-s N eps) ...``, and which of
        them a rule of half the number has.

        Both ends decay like powers of s, which ``s = s0 exp(pi / 2 sinh r)`` makes double exponential.
        """
        r = torch.linspace(-4.4, 4.4, number, dtype=torch.float64)
        u = pi / 2 * torch.sinh(r)
        s = torch.exp(u) / (2 * self.values.sum() + self.count * self.eps)
        tilt = 0.5 * torch.log1p(2 * s[:, None] * self.values).sum(1) + s * self.count * self.eps
        weights = (self.count * s) ** power * torch.exp(-tilt) * (pi / 2 * torch.cosh(r) * (r[1] - r[0]))
        size = weights * (self.values[-1] / (1 + 2 * s * self.values[-1])) ** power
        half = torch.arange(number) % 2 == 0
        kept = size > _NEGLIGIBLE * size.max()
        return s[kept], weights[kept], half[kept]

    def tilted(self, s: Tensor) -> Tensor:
        """Eigenvalues of ``K(s)``, ``[..., r]``."""
        return self.values / (1 + 2 * s[..., None] * self.values)


@dataclass(frozen=True)
class Integral:
    """Values of an integral, and its largest relative error: the distance to a rule of half the number of nodes,
    squared, since the number of right digits doubles with that of the nodes."""

    value: Tensor
    error: float


class _Total:
    """Adds up a rule and the one of half its nodes."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.all = torch.zeros(shape, dtype=torch.float64)
        self.half = torch.zeros(shape, dtype=torch.float64)

    def add(self, weights: Tensor, half: Tensor, terms: Tensor, ratio: float) -> None:
        flat = terms.flatten(1)
        self.all += (weights @ flat).reshape(self.all.shape)
        self.half += ratio * ((weights * half) @ flat).reshape(self.all.shape)

    def integral(self) -> Integral:
        size = float(self.all.abs().max().clamp_min(1e-300))
        return Integral(self.all, (float((self.all - self.half).abs().max()) / size) ** 2)


def within(batch: Batch, first: Slopes, second: Slopes) -> Integral:
    """``E phi(x) chi(x)'`` of a standardised batch, ``[N, N]``."""
    total = _Total((batch.count, batch.count))
    for s, weights, half in _portions(batch.nodes(1.0, _NODES), batch.count**2):
        k = _joined(batch, batch.tilted(s))
        total.add(weights, half, piecewise(k, own_of(k), own_of(k), first, second, same=True)[0], 2.0)
    return total.integral()


def passed_within(batch: Batch, first: Slopes, second: Slopes, tangent: Float[Tensor, "n n"]) -> Integral:
    """``E (J z)(J' z)'`` for ``z ~ N(0, tangent)``, J the Jacobian of the norm and the activation."""
    total = _Total((batch.count, batch.count))
    z = _centred(tangent.double())
    inner = batch.vectors.T @ z @ batch.vectors
    for s, weights, half in _portions(batch.nodes(1.0, _NODES), 3 * batch.count**2):
        kappa = batch.tilted(s)
        k = _joined(batch, kappa)
        at = s[:, None, None]
        mixed = at**2 * kappa[:, :, None] * kappa[:, None, :] - at * (kappa[:, :, None] + kappa[:, None, :])
        change = batch.vectors @ (mixed * inner) @ batch.vectors.T
        value, slope, by_power = piecewise(k, own_of(k), own_of(k), first, second, same=True)
        own = own_of(change) / own_of(k).clamp_min(1e-300)
        found = slope * (z + change) + by_power * (own[:, :, None] + own[:, None, :])
        found = found + (s**2 / 2 * (kappa @ inner.diagonal()))[:, None, None] * value
        total.add(weights, half, found, 2.0)
    return total.integral()


@dataclass(frozen=True)
class Pair:
    """Two coordinates, each standardised over its own batch: two batches, or two fields.

    Attributes:
        across: ``[N, M]``, their covariance, centred on both sides.
    """

    one: Batch
    other: Batch
    across: Tensor

    @staticmethod
    def of(one: Batch, other: Batch, across: Float[Tensor, "n m"]) -> "Pair":
        return Pair(one, other, _centred(across.double()))


def across(pair: Pair, first: Slopes, second: Slopes, tangent: Float[Tensor, "n m"] | None = None) -> Integral:
    """``E phi(x) chi(y)'``; with a tangent its derivative by the covariance across in that direction, ``[N, M]``."""
    one, other = pair.one, pair.other
    total = _Total((one.count, other.count))
    z = None if tangent is None else _centred(tangent.double())
    outer = zip(*one.nodes(0.5, _NODES_ACROSS), strict=True)
    nodes = other.nodes(0.5, _NODES_ACROSS)
    untilted = torch.exp(0.5 * torch.log1p(2 * nodes[0][:, None] * other.values).sum(1))
    for s, weight, half in outer:
        inner = _Inner(pair, s, z)
        for t, weights, halves, undo in _portions((*nodes, untilted), 4 * one.count * other.count):
            found, tilt = inner.terms(t, first, second)
            total.add(weight * weights * undo * tilt / pi, half & halves, found, 4.0)
    return total.integral()


class _Inner:
    """The integral over the second batch at one node of the first, by the eigenvectors of its tilted covariance."""

    def __init__(self, pair: Pair, s: Tensor, z: Tensor | None) -> None:
        one, other, self.s = pair.one, pair.other, s
        damped = (
            one.vectors * (2 * s / (1 + 2 * s * one.values)) @ one.vectors.T
        )  # 2 s (I + 2 s S)^-1, which meets its range alone
        full = torch.diag(other.values) - other.vectors.T @ pair.across.T @ damped @ pair.across @ other.vectors
        self.mu, turn = torch.linalg.eigh((full + full.T) / 2)
        self.mu = self.mu.clamp_min(0)
        self.v = other.vectors @ turn
        self.pass_one = (
            torch.eye(one.count, dtype=torch.float64)
            - one.vectors * (2 * s * one.values / (1 + 2 * s * one.values)) @ one.vectors.T
        )
        self.g = self.pass_one @ pair.across @ self.v
        self.own = (one.vectors.square() * one.tilted(s)).sum(1)
        self.z = None if z is None else z @ self.v
        if self.z is not None:
            turned = self.g.T @ self.z
            self.both = turned + turned.T
            self.direct = self.pass_one @ self.z

    def terms(self, t: Tensor, first: Slopes, second: Slopes) -> tuple[Tensor, Tensor]:
        """``[T, N, M]`` of moments (or of their derivatives), and the square root of one over the determinant."""
        d = 1 / (1 + 2 * t[:, None] * self.mu)  # [T, r]
        tilt = torch.exp(-0.5 * torch.log1p(2 * t[:, None] * self.mu).sum(1))
        scaled = self.g * d[:, None, :]
        k = scaled @ self.v.T
        left = self.own - 2 * t[:, None] * (scaled * self.g).sum(2)
        right = (self.mu * d) @ self.v.square().T
        value, slope, by_power = piecewise(k, left, right, first, second)
        if self.z is None:
            return value, tilt
        at = t[:, None, None]
        bent = 4 * self.s * at * (scaled @ self.both)
        change = ((self.direct + bent) * d[:, None, :]) @ self.v.T
        of_left = -4 * t[:, None] * ((self.direct + bent / 2) * scaled).sum(2)
        damped = self.v * d[:, None, :]
        of_right = -2 * self.s * ((damped @ self.both) * damped).sum(2)
        own = (of_left / left.clamp_min(1e-300))[:, :, None] + (of_right / right.clamp_min(1e-300))[:, None, :]
        factor = 4 * self.s * t * (scaled * self.z).sum((1, 2))
        return slope * change + by_power * own + factor[:, None, None] * value, tilt


def mean_within(batch: Batch, slopes: Slopes) -> Tensor:
    """``E phi(x)``, ``[N]``."""
    s, weights, _ = batch.nodes(0.5, _NODES)
    spread = (batch.tilted(s) @ batch.vectors.square().T).sqrt()
    return slopes.even * sqrt(2) / pi * (weights @ spread)


def mean_jacobian(batch: Batch, slopes: Slopes) -> Tensor:
    """``E d phi(x)_i / d x_j``, ``[N, N]`` with i last: what a covariance with a Gaussian is multiplied by."""
    s, weights, _ = batch.nodes(0.5, _NODES)
    kept = weights @ (1 / (1 + 2 * s[:, None] * batch.values)) / sqrt(pi)
    return slopes.odd * _centred((batch.vectors * kept) @ batch.vectors.T)


def slope_product(first: Slopes, second: Slopes, pair: Pair | Batch) -> Tensor:
    """``E phi'(x) chi'(y)``, which no norm changes."""
    if isinstance(pair, Batch):
        k = _joined(pair, pair.values)
        return piecewise(k, own_of(k), own_of(k), first, second, same=True)[1]
    return piecewise(pair.across, pair.one.power, pair.other.power, first, second)[1]


def _joined(batch: Batch, values: Tensor) -> Tensor:
    return (batch.vectors * values.unsqueeze(-2)) @ batch.vectors.T


def _centred(matrix: Tensor) -> Tensor:
    centred = matrix - matrix.mean(0, keepdim=True)
    return centred - centred.mean(1, keepdim=True)


def _portions(nodes: tuple[Tensor, ...], numbers: int):  # type: ignore[no-untyped-def]
    step = max(1, CHUNK // numbers)
    return zip(*(array.split(step) for array in nodes), strict=True)


def batch_norm_relu(
    sigma: Float[Tensor, "b b"], tangent: Float[Tensor, "b b"], *, eps: float = 0.0
) -> tuple[Float[Tensor, "b b"], Float[Tensor, "b b"]]:
    """Second moments after batch norm and ReLU within one batch, and how a tangent passes.

    Args:
        sigma: covariance of the preactivations of the batch.
        tangent: covariance of their derivative along a random direction of the parameters before.
        eps: added to the variance of each coordinate.

    Returns:
        ``E h h'`` and ``E (J z)(J z)'`` for ``z ~ N(0, tangent)``, J the Jacobian of both layers.

    Raises:
        DataError: the batch has fewer than 4 examples.

    >>> moment, _ = batch_norm_relu(torch.eye(8, dtype=torch.float64), torch.eye(8, dtype=torch.float64))
    >>> round(float(moment.trace()), 6)  # half of the batch: ReLU keeps half of the power
    4.0
    """
    batch = Batch.of(sigma, eps)
    return within(batch, RELU, RELU).value, passed_within(batch, RELU, RELU, tangent).value


def batch_norm_relu_across(
    first: Float[Tensor, "b b"],
    second: Float[Tensor, "c c"],
    covariance: Float[Tensor, "b c"],
    tangent: Float[Tensor, "b c"],
    *,
    eps: float = 0.0,
) -> tuple[Float[Tensor, "b c"], Float[Tensor, "b c"]]:
    """The same between two batches, each normalised by itself.

    Args:
        first, second: covariances within the batches.
        covariance, tangent: covariances of preactivations, and of their derivatives, between them.
    """
    pair = Pair.of(Batch.of(first, eps), Batch.of(second, eps), covariance)
    return across(pair, RELU, RELU).value, across(pair, RELU, RELU, tangent).value
