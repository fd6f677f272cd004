"""Recursions against drawn networks: conditional estimators, extrapolated to infinite width."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from widthwise.core import Value
from widthwise.numerics import Activation
from widthwise.theory.effective._draws import estimates, last_hidden
from widthwise.theory.effective._flow import Flow, PerLayer, flow
from widthwise.theory.effective._gauss import EffectiveTheoryError, Elementwise, as_activation

Widths = Float[np.ndarray, "widths"]


@dataclass(frozen=True)
class Extrapolated(Value):
    """One statistic of the output layer, drawn at several widths.

    Attributes:
        theory: the recursion's value, for infinite width (the coefficient of 1/n).
        values, errors: at each width, with standard errors.
        limit, limit_error: the fit a + b/n (+ c/n^2 from four widths on) at 1/n = 0, with its standard error.
    """

    theory: float
    values: Widths
    errors: Widths
    limit: float
    limit_error: float

    @property
    def deviation(self) -> float:
        """(limit - theory) / limit_error."""
        return (self.limit - self.theory) / self.limit_error


@dataclass(frozen=True)
class Verification(Value):
    """What `verify_flow` measured.

    Attributes:
        widths: of the hidden layers, per measurement.
        tensors: by name: V, G1, D, A, B, F and, where asked for, P and Q.
    """

    widths: tuple[int, ...]
    draws: tuple[int, ...]
    tensors: dict[str, Extrapolated]


def verify_flow(
    depth: int,
    activation: Activation | Elementwise | str,
    C_b: PerLayer | None = None,
    C_W: PerLayer | None = None,
    lambda_b: PerLayer = 1.0,
    lambda_W: PerLayer = 1.0,
    *,
    square: float = 1.0,
    widths: Sequence[int] = (12, 20, 40, 80),
    draws: int | Sequence[int] = 4000,
    differential: bool = False,
    seed: int = 0,
) -> Verification:
    """Draw finite networks, measure the statistics of the output layer and extrapolate them to infinite width.

    The weights of the output layer are averaged exactly (given the last hidden layer, the output is Gaussian), which
    cuts the noise; the 1/n corrections to the coefficients are removed by a fit in 1/n.

    Args:
        depth: number of layers L, the output layer counted; hidden layers: L - 1.
        activation, C_b, C_W, lambda_b, lambda_W, square: as `flow` takes them.
        widths: of the hidden layers, all equal, one network size after the other.
        draws: networks per width, one number or one per width.
        differential: whether to measure P and Q too; costs width^4 per network and layer.

    Raises:
        EffectiveTheoryError: fewer than two widths or draws, or what `flow` raises.

    >>> found = verify_flow(3, "relu", widths=(10, 20), draws=500)
    >>> sorted(found.tensors)
    ['A', 'B', 'D', 'F', 'G1', 'V']
    """
    f = as_activation(activation)
    counts = [int(draws)] * len(widths) if isinstance(draws, int) else [int(count) for count in draws]
    if len(set(widths)) < 2 or len(counts) != len(widths) or min(counts) < 2:
        raise EffectiveTheoryError(
            f"widths={list(widths)} with draws={counts}; give two different widths or more, with 2 draws or more."
        )
    sampled: dict[str, list[tuple[float, float]]] = {}
    theory: dict[str, float] = {}
    for width, count in zip(widths, counts, strict=True):
        expected = flow((1, *[width] * (depth - 1), 1), f, C_b, C_W, lambda_b, lambda_W, square=square)
        for name, found in _statistics(expected, f, count, seed, differential).items():
            sampled.setdefault(name, []).append(found)
            theory[name] = float(getattr(expected, name)[-1])
    tensors = {name: _measured(theory[name], widths, found) for name, found in sampled.items()}
    return Verification(tuple(int(width) for width in widths), tuple(counts), tensors)


def _statistics(
    theory: Flow, f: Activation, draws: int, seed: int, differential: bool
) -> dict[str, tuple[float, float]]:
    """Value and standard error of each tensor at one width."""
    parts = [estimates(layer, f, theory) for layer in last_hidden(theory, f, draws, seed, differential)]
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    fan_in = theory.widths[-2]
    G, X = found.pop("G"), found.pop("X")
    g, x = G - G.mean(), X - X.mean()
    unbiased = fan_in * draws / (draws - 1)
    found |= {"V": unbiased * g * g, "D": unbiased * g * x, "A": unbiased * x * x, "G1": fan_in * (G - theory.K[-1])}
    return {name: (float(one.mean()), float(one.std(ddof=1) / np.sqrt(draws))) for name, one in found.items()}


def _measured(theory: float, widths: Sequence[int], found: Sequence[tuple[float, float]]) -> Extrapolated:
    values, errors = (np.array(column) for column in zip(*found, strict=True))
    limit, error = extrapolate(widths, values, errors)
    return Extrapolated(theory, values, errors, limit, error)


def extrapolate(widths: Sequence[int], values: Widths, errors: Widths) -> tuple[float, float]:
    """Weighted fit a + b/n, with c/n^2 from four widths on; returns a and its standard error.

    >>> limit, _ = extrapolate([10, 20], np.array([1.1, 1.05]), np.array([0.01, 0.01]))
    >>> round(limit, 12)
    1.0
    """
    inverse = 1 / np.asarray(widths, dtype=float)
    design = np.stack([inverse**power for power in range(3 if len(inverse) >= 4 else 2)], axis=1)
    weight = 1 / np.maximum(errors, 1e-300)
    fit = np.linalg.pinv(design * weight[:, None])
    return float(fit[0] @ (values * weight)), float(np.linalg.norm(fit[0]))
