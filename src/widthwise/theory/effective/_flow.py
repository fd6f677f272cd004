"""Layer-to-layer recursions of a multilayer perceptron's statistics at order 1/width, for one input."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from widthwise.core import Value
from widthwise.numerics import Activation
from widthwise.theory.effective._critical import critical
from widthwise.theory.effective._gauss import (
    EffectiveTheoryError,
    Elementwise,
    GaussianMoments,
    as_activation,
    gaussian_moments,
)

PerLayer = float | Sequence[float] | np.ndarray
Layers = Float[np.ndarray, "layers"]

TENSORS = ("V", "G1", "F", "B", "D", "A", "P", "Q")


@dataclass(frozen=True)
class Flow(Value):
    """Statistics of the preactivations z and of the tangent kernel H of every layer, for one input.

    Entry l - 1 of an array belongs to layer l = 1 .. L (the last layer is the output); fan_in[l - 1] is n_{l-1}.
    With d_ij = 1 for equal neurons and connected averages over initialisations,

        E z_i z_j                = d_ij (K + G1 / fan_in)
        E z_1 z_2 z_3 z_4        = (d12 d34 + d13 d24 + d14 d23) V / fan_in
        E H_ij                   = d_ij (theta + O(1 / fan_in))
        E dH_12 z_3 z_4          = (d12 d34 D + d13 d24 F + d14 d23 F) / fan_in
        E dH_12 dH_34            = (d12 d34 A + d13 d24 B + d14 d23 B) / fan_in
        E ddH_012 z_3            = (d03 d12 P + d01 d23 Q + d02 d13 Q) / fan_in       (differential of the NTK)

    Attributes:
        activation: its name.
        widths: n_0 .. n_L.
        C_b, C_W, lambda_b, lambda_W: per layer, as used.
        K, theta: mean kernel and mean NTK of infinite width.
        chi_par, chi_perp: susceptibilities of the layer's kernel; what the *next* layer multiplies by.
        V, G1, F, B, D, A, P, Q: coefficients of 1 / fan_in, as above.
    """

    activation: str
    widths: tuple[int, ...]
    C_b: Layers
    C_W: Layers
    lambda_b: Layers
    lambda_W: Layers
    K: Layers
    theta: Layers
    chi_par: Layers
    chi_perp: Layers
    V: Layers
    G1: Layers
    F: Layers
    B: Layers
    D: Layers
    A: Layers
    P: Layers
    Q: Layers

    @property
    def fan_in(self) -> Layers:
        """n_0 .. n_{L-1}."""
        return np.array(self.widths[:-1], dtype=float)

    @property
    def relative_kernel(self) -> Layers:
        """Standard deviation of the kernel between seeds, relative to it: sqrt(V / n) / K."""
        return np.sqrt(np.maximum(self.V, 0) / self.fan_in) / self.K

    @property
    def relative_ntk(self) -> Layers:
        """Standard deviation of the NTK between seeds, relative to it: sqrt(A / n) / theta."""
        return np.sqrt(np.maximum(self.A, 0) / self.fan_in) / self.theta

    @property
    def relative_ntk_between(self) -> Layers:
        """Root mean square of the NTK between two output neurons, relative to its mean: sqrt(B / n) / theta."""
        return np.sqrt(np.maximum(self.B, 0) / self.fan_in) / self.theta

    @property
    def feature_learning(self) -> Layers:
        """Size of the dNTK, (|P| + |Q|) / (n theta^2): how much the NTK moves while the network learns.

        Over theta^2, not K theta: this does not change with the global learning rate or the scale of the outputs.
        """
        return (np.abs(self.P) + np.abs(self.Q)) / (self.fan_in * self.theta**2)


def flow(
    widths: Sequence[int],
    activation: Activation | Elementwise | str,
    C_b: PerLayer | None = None,
    C_W: PerLayer | None = None,
    lambda_b: PerLayer = 1.0,
    lambda_W: PerLayer = 1.0,
    *,
    square: float = 1.0,
) -> Flow:
    """All statistics at order 1/width of z^{l+1} = b + W s(z^l), Var b = C_b, Var W = C_W / n_l, for one input.

    The learning rates are lambda_b for biases and lambda_W / n_{l-1} for weights; the NTK contains them.

    Args:
        widths: n_0 (inputs), hidden widths, n_L (outputs); at least three.
        activation: as `critical` takes it.
        C_b, C_W, lambda_b, lambda_W: one number, or one per layer 1..L. C_b and C_W left out: critical.
        square: |x|^2 / n_0 of the input.

    Raises:
        EffectiveTheoryError: sizes or numbers that do not fit, or no critical initialisation to fall back on.

    Source: arXiv 2106.10165, chapters 4, 8 and 11; sheet, sections 2.1 to 2.4.

    >>> flow([1, 50, 50, 50, 1], "relu").V.round(6).tolist()
    [0.0, 20.0, 40.0, 60.0]
    """
    f = as_activation(activation)
    sizes = check_widths(widths)
    C_b, C_W = with_critical(f, C_b, C_W)
    layers = len(sizes) - 1
    given = {"C_b": C_b, "C_W": C_W, "lambda_b": lambda_b, "lambda_W": lambda_W}
    rates = {name: per_layer(name, value, layers) for name, value in given.items()}
    cb, cw, lb, lw = (rates[name] for name in given)
    if not 0 < square < float("inf"):
        raise EffectiveTheoryError(f"square={square:g} is not positive; give |x|^2 / n_0 of a non-zero input.")
    state = {"K": cb[0] + cw[0] * square, "theta": lb[0] + lw[0] * square, **dict.fromkeys(TENSORS, 0.0)}
    found = [state]
    chis = []
    for layer in range(1, layers):
        moments = gaussian_moments(f, state["K"])
        chis.append((cw[layer] * moments.slope, cw[layer] * moments.d2))
        ratio = sizes[layer] / sizes[layer - 1]
        state = step(state, moments, cb[layer], cw[layer], lb[layer], lw[layer], ratio)
        found.append(state)
    last = gaussian_moments(f, state["K"])
    chis.append((cw[-1] * last.slope, cw[-1] * last.d2))
    columns = {name: np.array([entry[name] for entry in found]) for name in ("K", "theta", *TENSORS)}
    chi_par, chi_perp = np.array(chis).T
    return Flow(f.name, sizes, **rates, chi_par=chi_par, chi_perp=chi_perp, **columns)


def step(
    s: dict[str, float], m: GaussianMoments, C_b: float, C_W: float, lambda_b: float, lambda_W: float, ratio: float
) -> dict[str, float]:
    """From layer l to layer l + 1; `ratio` is n_l / n_{l-1}. Sheet, sections 2.1 to 2.4.

    V, D and A are covariances of the next layer's conditional kernel and conditional NTK given layer l, so each is a
    local part (units of layer l, independent) and what the fluctuations of layer l pass on.
    """
    theta, c2, mix = s["theta"], C_W**2, lambda_W / C_W
    par, perp, h = C_W * m.slope, C_W * m.d2, C_W * m.d2_slope / 2
    V = c2 * (m.s4 - m.s2**2) + ratio * par**2 * s["V"]
    F = c2 * m.s2d2 * theta + ratio * par**2 * s["F"]
    passed = c2 * (m.s2d2 - m.s2 * m.d2) * theta + ratio * (2 * h * par * theta * s["V"] + perp * par * s["D"])
    moved = 4 * h**2 * theta**2 * s["V"] + 4 * h * perp * theta * s["D"] + perp**2 * s["A"]
    local = c2 * m.s_curve_d2 * theta**2
    return {
        "K": C_b + C_W * m.s2,
        "theta": lambda_b + lambda_W * m.s2 + perp * theta,
        "V": V,
        "G1": ratio * (par * s["G1"] + C_W * m.bend * s["V"] / 2),
        "F": F,
        "B": c2 * m.d4 * theta**2 + ratio * perp**2 * s["B"],
        "D": mix * V + passed,
        "A": mix**2 * V + 2 * mix * passed + c2 * (m.d4 - m.d2**2) * theta**2 + ratio * moved,
        "P": local + ratio * (C_W * m.s_curve * perp * s["B"] + par * perp * s["P"]),
        "Q": mix * F + local + ratio * (2 * h * par * theta * s["F"] + par * perp * s["Q"]),
    }


def check_widths(widths: Sequence[int]) -> tuple[int, ...]:
    """Widths as whole numbers, inputs and outputs included.

    Raises:
        EffectiveTheoryError: fewer than three, or one below 1.
    """
    sizes = tuple(int(width) for width in widths)
    if len(sizes) < 3 or min(sizes) < 1:
        raise EffectiveTheoryError(
            f"widths={list(sizes)}; give inputs, at least one hidden width, and outputs, all 1 or more."
        )
    return sizes


def per_layer(name: str, value: PerLayer, layers: int) -> Layers:
    """One number per layer.

    Raises:
        EffectiveTheoryError: another count, or a number that is negative or not finite.
    """
    array = np.atleast_1d(np.asarray(value, dtype=float))
    array = np.full(layers, array[0]) if array.shape == (1,) else array
    if array.shape != (layers,):
        raise EffectiveTheoryError(f"{name} has {array.size} values for {layers} layers; give one, or one per layer.")
    smallest_C_W = name == "C_W" and float(array.min()) == 0
    if not (np.isfinite(array).all() and (array >= 0).all()) or smallest_C_W:
        raise EffectiveTheoryError(
            f"{name} has the value {array.min():g}; variances and rates are finite and positive."
        )
    return array


def with_critical(f: Activation, C_b: PerLayer | None, C_W: PerLayer | None) -> tuple[PerLayer, PerLayer]:
    """The variances given, with the critical ones for those left out.

    Raises:
        EffectiveTheoryError: one is left out and the activation has no critical point.
    """
    if C_b is not None and C_W is not None:
        return C_b, C_W
    found = critical(f)
    if found.kind == "none":
        raise EffectiveTheoryError(f"{f.name} has no critical initialisation; give C_b and C_W, or {found.advice}")
    return found.C_b if C_b is None else C_b, found.C_W if C_W is None else C_W
