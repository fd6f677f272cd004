"""What depth does to the kernels of two inputs: correlations, and the conditioning of the tangent kernel."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from widthwise.core import Axis, DataError, Figure, Line, Value
from widthwise.kernels._correlation_map import CorrelationMap
from widthwise.kernels._length_map import slopes, square
from widthwise.kernels._phase_diagram import named
from widthwise.numerics import Activation


@dataclass(frozen=True)
class DeepKernels(Value):
    """Kernels of pairs of inputs of equal norm after 1 ... depth weight matrices; arrays are ``[depth, pairs]``.

    Attributes:
        gap: ``1 - c`` of the preactivations, free of cancellation.
        variance: NNGP on the diagonal, the same for every pair.
        tangent: NTK on the diagonal.
        tangent_pair: NTK between the two inputs of a pair.
    """

    gap: Float[np.ndarray, "depth pairs"]
    variance: float
    tangent: Float[np.ndarray, "depth"]
    tangent_pair: Float[np.ndarray, "depth pairs"]

    @property
    def correlation(self) -> Float[np.ndarray, "depth pairs"]:
        """c of the preactivations."""
        return 1 - self.gap

    @property
    def ratio(self) -> Float[np.ndarray, "depth pairs"]:
        """NTK between the inputs over NTK on the diagonal; at criticality 1/4 (ReLU) or 1/3 (smooth) at depth."""
        return self.tangent_pair / self.tangent[:, None]

    def condition_number(self, inputs: int) -> Float[np.ndarray, "depth pairs"]:
        """Condition number of the NTK matrix of `inputs` inputs that all have a pair's correlation."""
        return (self.tangent[:, None] + (inputs - 1) * self.tangent_pair) / (self.tangent[:, None] - self.tangent_pair)

    def plot(self) -> Figure:
        """Ratio of the NTK off and on the diagonal, by depth."""
        depths = tuple(float(depth) for depth in range(1, len(self.gap) + 1))
        lines = tuple(
            Line(f"c = {1 - self.gap[0, pair]:.3g}", depths, tuple(self.ratio[:, pair].tolist()), pair)
            for pair in range(self.gap.shape[1])
        )
        caption = "Tangent kernel between two inputs over its diagonal; near 1 training separates them slowly."
        return Figure("Conditioning with depth", Axis("depth", "log"), Axis("NTK ratio"), lines, caption)


def deep_kernels(
    activation: Activation | str,
    weight_variance: float | int,
    bias_variance: float | int,
    q: float | int,
    correlations: ArrayLike,
    depth: int,
) -> DeepKernels:
    """Recursion of NNGP and NTK at a fixed point q of the variance (arXiv:1912.13053, sections 3 and 4).

    ``T^{l+1} = K^{l+1} + sw2 E phi' phi' T^l`` from ``T^1 = K^1``, all layers trained in the NTK parametrisation.

    Args:
        q: variance of the preactivations, a fixed point for these variances (see `phase_diagram`).
        correlations: ``[pairs]`` of the first preactivations, -1 to 1.
        depth: number of weight matrices.

    Raises:
        DataError: q is no fixed point, or a correlation is not within -1 to 1.

    >>> deep = deep_kernels("relu", 2.0, 0.0, q=1.0, correlations=[0.3], depth=1000)
    >>> deep.ratio[-1].round(4), (deep.gap[-1] * 1000**2 * 2 / 9 / np.pi**2).round(2)
    (array([0.2534]), array([0.97]))
    """
    phi, gap = named(activation), 1 - np.atleast_1d(np.asarray(correlations, dtype=float)).ravel()
    _check(phi, float(weight_variance), float(bias_variance), float(q), gap, depth)
    layer = CorrelationMap(phi, np.full(len(gap), float(weight_variance)), np.full(len(gap), float(q)))
    chi_1 = float(weight_variance) * float(slopes(phi, np.array([float(q)]))[0][0])
    gaps, tangents, pairs = [gap], [float(q)], [float(q) * (1 - gap)]
    for _ in range(depth - 1):
        slope, gap = layer.slope(gap), layer.gap(gap)
        tangents.append(float(q) + chi_1 * tangents[-1])
        pairs.append(float(q) * (1 - gap) + slope * pairs[-1])
        gaps.append(gap)
    return DeepKernels(np.array(gaps), float(q), np.array(tangents), np.array(pairs))


def _check(phi: Activation, weight: float, bias: float, q: float, gap: np.ndarray, depth: int) -> None:
    after = weight * float(square(phi, np.array([q]))[0]) + bias
    if not abs(after - q) <= 1e-6 * q:
        raise DataError(f"q={q:g} becomes {after:g} in the next layer; give a fixed point, as phase_diagram finds it.")
    if not ((gap >= 0) & (gap <= 2)).all() or depth < 1:
        raise DataError(
            f"correlations must lie between -1 and 1 and depth={depth} be at least 1; mend the one that fails."
        )
