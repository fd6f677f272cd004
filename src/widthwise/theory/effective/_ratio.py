"""Depth against width: the expansion parameter nu L / n, its best value, and what residual connections change."""

from math import isnan

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

    nu = (1 - gamma^2) [(3 A4 / A2^2 - 1) (1 - gamma^2) + 4 gamma^2], with A_p = (a_+^p + a_-^p) / 2; it vanishes as
    gamma goes to 1, so that the optimal depth grows like 1 / nu. Linear: 2 (1 - gamma^4).

    Args:
        activation: scale-invariant (slopes a_- and a_+).
        gamma: strength of the skip connection, between 0 and 1.

    Raises:
        EffectiveTheoryError: another class of activation, or gamma outside [0, 1].

    Source: arXiv 2106.10165, appendix B; sheet, section 2.7.

    >>> round(residual_nu("identity", 0.5), 6)
    1.875
    """
    f = as_activation(activation)
    found = slopes(f)
    if found is None or found == (0.0, 0.0):
        raise EffectiveTheoryError(f"{f.name} is not scale-invariant; the residual formula needs relu and its kin.")
    if not 0 <= gamma <= 1:
        raise EffectiveTheoryError(f"gamma={gamma:g} lies outside [0, 1].")
    A2, A4 = (sum(slope**p for slope in found) / 2 for p in (2, 4))
    branch = 1 - gamma**2
    return branch * ((3 * A4 / A2**2 - 1) * branch + 4 * gamma**2)
