"""Depth against width: the expansion parameter nu L / n, its best value, and what residual connections change."""

from math import isnan, pi, sqrt

import numpy as np
from jaxtyping import Float

from widthwise.numerics import Activation
from widthwise.theory.effective._critical import critical, slopes
from widthwise.theory.effective._gauss import EffectiveTheoryError, Elementwise, as_activation


def optimal_ratio(nu: float, outputs: int = 1) -> float:
    """The depth-to-width ratio r* = 4 / ((20 + 3 outputs) nu) at which two groups of outputs know most of each other.

    Far above it networks differ too much from one seed to the next to be trained, far below it they learn no features
    and behave like their kernel.

    Args:
        nu: growth of V / (n K^2) per layer (`critical`).
        outputs: number of output neurons.

    Raises:
        EffectiveTheoryError: a number that is not positive.

    Source: arXiv 2106.10165, appendix A (the sheet quotes it as recalled, not derived).

    >>> round(optimal_ratio(5.0, 10), 3)
    0.016
    """
    if not nu > 0 or outputs < 1:
        raise EffectiveTheoryError(f"nu={nu:g} with outputs={outputs}; both have to be positive.")
    return 4 / ((20 + 3 * outputs) * nu)


def width_for_depth(
    depth: int, activation: Activation | Elementwise | str, outputs: int = 1, *, gamma: float | None = None
) -> float:
    """The hidden width L / r* at which `depth` layers are the optimal number, at critical initialisation.

    Args:
        depth: number of layers L.
        activation: as `critical` takes it.
        outputs: number of output neurons.
        gamma: strength of the skip connections, for residual networks (`residual_nu`).

    Raises:
        EffectiveTheoryError: the activation has no critical point, or a number is out of range.

    >>> round(width_for_depth(16, "tanh", 10))
    133
    """
    nu = _nu(activation) if gamma is None else residual_nu(activation, gamma)
    if depth < 1:
        raise EffectiveTheoryError(f"depth={depth}; give 1 layer or more.")
    return depth / optimal_ratio(nu, outputs)


def _nu(activation: Activation | Elementwise | str) -> float:
    found = critical(activation)
    if isnan(found.nu):
        raise EffectiveTheoryError(f"{found.activation} has no critical initialisation: {found.advice}")
    return found.nu


def residual_nu(activation: Activation | Elementwise | str, gamma: float) -> float:
    """nu of the residual network z' = gamma z + b + W s(z) whose weights keep the kernel: C_W A2 = 1 - gamma^2.

        nu = (1 - gamma^2) [(3 A4 / A2^2 - 1) (1 - gamma^2) + 4 gamma^2 + (16 / pi) (B2 / A2)^2 gamma (1 + gamma)]

    with A_p = (a_+^p + a_-^p) / 2 and B2 = (a_+^2 - a_-^2) / 2. It vanishes as gamma goes to 1, so that the optimal
    depth grows like 1 / nu. Linear: 2 (1 - gamma^4).

    The last term is not in the published formula: a skip connection keeps a unit's sign, which says
    something about the variance of the branch, so that E z_1 z_2^2 = kappa / n does not vanish. It follows
    kappa' = gamma (kappa + (1 - gamma^2) sqrt(8/pi) (B2/A2) K^(3/2)) and adds
    2 (1 - gamma^2) sqrt(8/pi) (B2/A2) kappa sqrt(K) to V in each block; nu is the growth once kappa has settled. It is
    zero where s^2 is even. Drawn networks agree with the sum and not with the rest alone (study).

    Args:
        activation: scale-invariant (slopes a_- and a_+).
        gamma: strength of the skip connection, between 0 and 1.

    Raises:
        EffectiveTheoryError: another class of activation, or gamma outside [0, 1].

    Source: arXiv 2106.10165, appendix B; sheet, section 2.7.

    >>> round(residual_nu("identity", 0.5), 6)
    1.875
    """
    branch, local, asymmetry = _residual(activation, gamma)
    return branch * (local + 16 / pi * asymmetry**2 * gamma * (1 + gamma))


def residual_vertex(
    activation: Activation | Elementwise | str, gamma: float, blocks: int
) -> Float[np.ndarray, "blocks"]:
    """V / K^2 after each block of the residual network of `residual_nu`, which starts from a Gaussian layer.

    Raises:
        EffectiveTheoryError: as `residual_nu`, or fewer than one block.

    >>> residual_vertex("relu", 0.0, 3).tolist()
    [5.0, 10.0, 15.0]
    """
    if blocks < 1:
        raise EffectiveTheoryError(f"blocks={blocks}; give 1 or more.")
    branch, local, asymmetry = _residual(activation, gamma)
    pull = branch * sqrt(8 / pi) * asymmetry
    V, kappa, found = 0.0, 0.0, []
    for _ in range(blocks):
        V += branch * local + 2 * pull * kappa
        kappa = gamma * (kappa + pull)
        found.append(V)
    return np.array(found)


def _residual(activation: Activation | Elementwise | str, gamma: float) -> tuple[float, float, float]:
    """1 - gamma^2, the published nu over it, and B2 / A2."""
    f = as_activation(activation)
    found = slopes(f)
    if found is None or found == (0.0, 0.0):
        raise EffectiveTheoryError(f"{f.name} is not scale-invariant; the residual formula needs relu and its kin.")
    if not 0 <= gamma <= 1:
        raise EffectiveTheoryError(f"gamma={gamma:g} lies outside [0, 1].")
    A2, A4 = (sum(slope**p for slope in found) / 2 for p in (2, 4))
    branch = 1 - gamma**2
    local = (3 * A4 / A2**2 - 1) * branch + 4 * gamma**2
    return branch, local, (found[1] ** 2 - found[0] ** 2) / (2 * A2)
