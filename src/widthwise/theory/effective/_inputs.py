"""Kernel, NTK and four-point vertex of a multilayer perceptron for several inputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import sqrt
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import norm, qmc

from widthwise.core import Value
from widthwise.numerics import Activation, diagonal_moments, second_moments
from widthwise.theory.effective._flow import PerLayer, check_widths, per_layer, with_critical
from widthwise.theory.effective._gauss import EffectiveTheoryError, Elementwise, as_activation, line

Matrices = Float[np.ndarray, "layers n n"]
Square = Float[np.ndarray, "n n"]
Rule = tuple[np.ndarray, np.ndarray]

HERMITE = {1: 120, 2: 96, 3: 40, 4: 22}  # nodes per input, smooth activations
PANEL_REACH = 9.0
SOBOL_LOG2 = 16


@dataclass(frozen=True)
class InputsFlow(Value):
    """Statistics of every layer for N inputs; entry l - 1 of an array belongs to layer l = 1 .. L.

    E z_1a z_2b z_3c z_4d = (d12 d34 V_(ab)(cd) + d13 d24 V_(ac)(bd) + d14 d23 V_(ad)(bc)) / n_{l-1}, connected.

    Attributes:
        K, theta: mean kernel and NTK of infinite width, exact or to 1e-10.
        V_own: V_(aa)(bb): covariance of the squared lengths of two inputs, times n.
        V_cross: V_(ab)(ab): variance of the kernel between two inputs, times n.
        V: V_(ab)(cd) for all quadruples, with ``vertex="full"``; else None.
        error: estimated relative error of the four-point integrals (0 where they agree to rounding).
    """

    widths: tuple[int, ...]
    K: Matrices
    theta: Matrices
    V_own: Matrices
    V_cross: Matrices
    V: Float[np.ndarray, "layers n n n n"] | None
    error: float


def flow_inputs(
    inputs: Float[np.ndarray, "n features"],
    widths: Sequence[int],
    activation: Activation | Elementwise | str,
    C_b: PerLayer | None = None,
    C_W: PerLayer | None = None,
    lambda_b: PerLayer = 1.0,
    lambda_W: PerLayer = 1.0,
    *,
    vertex: Literal["pairs", "full", "none"] = "pairs",
) -> InputsFlow:
    """Kernel, NTK and four-point vertex between inputs.

    Given layer l, the next layer is Gaussian with the random covariance G_ab = C_b + C_W mean_j s(z_ja) s(z_jb), and
    V_(ab)(cd) / n is the covariance of G_ab with G_cd. So V' = C_W^2 Cov(s_a s_b, s_c s_d) + (n_l / n_{l-1}) J V J^T
    with the derivatives J of C_W <s_a s_b> by the kernel, which is the sheet's section 2.2 with the inverse kernels
    contracted away; an entry needs only the inputs that it names, so that pairs close on themselves.

    Args:
        inputs: N examples; features = n_0.
        widths: n_0 .. n_L, n_0 being the number of features.
        activation, C_b, C_W, lambda_b, lambda_W: as `flow` takes them.
        vertex: ``"pairs"``: V_own and V_cross of all pairs, two-dimensional integrals; ``"full"``: all quadruples, one
            N-dimensional rule (product quadrature to 4 smooth inputs, else 65536 quasi-random points);
            ``"none"``: kernels only, V stays 0.

    Raises:
        EffectiveTheoryError: shapes that do not fit, a zero input without biases, or what `flow` raises.

    Source: arXiv 2106.10165, sections 4.3 and 8.2; sheet, sections 2.1 to 2.3.

    >>> found = flow_inputs(np.eye(2), [2, 50, 1], "relu")
    >>> (found.V_own[1].round(6) + 0.0).tolist()
    [[5.0, 0.0], [0.0, 5.0]]
    """
    f = as_activation(activation)
    sizes = check_widths(widths)
    if inputs.shape[1] != sizes[0]:
        raise EffectiveTheoryError(f"the inputs have {inputs.shape[1]} features and widths begin with {sizes[0]}.")
    C_b, C_W = with_critical(f, C_b, C_W)
    layers = len(sizes) - 1
    cb, cw = per_layer("C_b", C_b, layers), per_layer("C_W", C_W, layers)
    lb, lw = per_layer("lambda_b", lambda_b, layers), per_layer("lambda_W", lambda_W, layers)
    gram = inputs @ inputs.T / sizes[0]
    K, theta = cb[0] + cw[0] * gram, lb[0] + lw[0] * gram
    if float(np.diagonal(K).min()) <= 0:
        raise EffectiveTheoryError("an input is zero and C_b is 0, so its kernel is 0; drop it or give a C_b above 0.")
    groups = _groups(len(gram), vertex)
    vertices = {group: np.zeros((len(_pairs(group)),) * 2) for group in groups}
    kernels, tangents, history, error = [K], [theta], [dict(vertices)], 0.0
    for layer in range(1, layers):
        ratio = sizes[layer] / sizes[layer - 1]
        for group in groups:
            at = np.ix_(group, group)
            vertices[group], missed = _vertex(f, K[at], cw[layer], ratio, vertices[group])
            error = max(error, missed)
        value, slope = _second_moments(f, K)
        theta = lb[layer] + lw[layer] * value + cw[layer] * slope * theta
        K = cb[layer] + cw[layer] * value
        kernels.append(K)
        tangents.append(theta)
        history.append(dict(vertices))
    return _collected(sizes, np.array(kernels), np.array(tangents), history, vertex, error)


def _second_moments(f: Activation, K: Square) -> tuple[Square, Square]:
    own = torch.from_numpy(np.diagonal(K).copy())
    pairs = second_moments(f, own[:, None], own[None, :], torch.from_numpy(K))
    exact = diagonal_moments(f, own)
    value, slope = pairs.value.clone(), pairs.derivative.clone()
    value.diagonal()[:], slope.diagonal()[:] = exact.value, exact.derivative
    return value.numpy(), slope.numpy()


def _groups(count: int, vertex: str) -> list[tuple[int, ...]]:
    if vertex == "none":
        return []
    if vertex == "full":
        return [tuple(range(count))]
    return [(a,) if a == b else (a, b) for a, b in combinations_with_replacement(range(count), 2)]


def _pairs(group: Sequence[int] | np.ndarray) -> list[tuple[int, int]]:
    """Index pairs (within the group) that a vertex of the group has."""
    return list(combinations_with_replacement(range(len(group)), 2))


# -- one layer ---------------------------------------------------------------------------------------------------------


def _vertex(
    f: Activation, K: Square, C_W: float, ratio: float, V: Float[np.ndarray, "p p"]
) -> tuple[Float[np.ndarray, "p p"], float]:
    """V of the next layer among these inputs, and the relative difference between two rules."""
    found = [_next_vertex(f, K, C_W, ratio, V, rule) for rule in _rules(f, K)]
    scale = np.abs(found[0]).max()
    missed = float(np.abs(found[1] - found[0]).max() / scale)
    if len(K) <= 2 and missed > 1e-9:  # the activation bends more sharply than Hermite nodes lie
        fine, coarse = (_next_vertex(f, K, C_W, ratio, V, _panels(f, K, level)) for level in (1, 0))
        return fine, float(np.abs(fine - coarse).max() / scale)
    return found[0], missed


def _next_vertex(
    f: Activation, K: Square, C_W: float, ratio: float, V: Float[np.ndarray, "p p"], rule: Rule
) -> Float[np.ndarray, "p p"]:
    z, w = rule
    s, d = (function(torch.from_numpy(z)).numpy() for function in (f.function, f.derivative))
    pairs = _pairs(K)
    products = np.array([s[a] * s[b] for a, b in pairs])
    means = products @ w
    spread = (products * w) @ products.T - np.outer(means, means)
    J = _jacobian(K, z, w, s, d)
    return C_W**2 * (spread + ratio * J @ V @ J.T)


def _jacobian(K: Square, z: np.ndarray, w: np.ndarray, s: np.ndarray, d: np.ndarray) -> Float[np.ndarray, "p p"]:
    """d<s_a s_b> / dG_(cd), by Stein's lemma without second derivatives."""
    pairs = _pairs(K)
    place = {pair: index for index, pair in enumerate(pairs)}
    J = np.zeros((len(pairs), len(pairs)))
    for (a, b), row in place.items():
        if a == b:
            J[row, row] = (z[a] * s[a] * d[a]) @ w / K[a, a]
            continue
        both = (d[a] * d[b]) @ w
        J[row, row] = both
        for one, other in ((a, b), (b, a)):
            pulled = (z[one] * d[one] * s[other]) @ w - K[a, b] * both
            J[row, place[one, one]] = pulled / (2 * K[one, one])
    return J


# -- quadrature --------------------------------------------------------------------------------------------------------


def _rules(f: Activation, K: Square) -> tuple[Rule, Rule]:
    """A rule and a coarser or independent one to compare it with."""
    count = len(K)
    if f.kinks and count <= 2:
        return _panels(f, K, 1), _panels(f, K, 0)
    if count <= 4 and not f.kinks:
        return _hermite(K, HERMITE[count]), _hermite(K, HERMITE[count] * 3 // 4)
    return _sobol(K, 0), _sobol(K, 1)


def _hermite(K: Square, nodes: int) -> Rule:
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    w = w / w.sum()
    grid = np.stack(np.meshgrid(*[x] * len(K), indexing="ij")).reshape(len(K), -1)
    weights = np.prod(np.stack(np.meshgrid(*[w] * len(K), indexing="ij")).reshape(len(K), -1), axis=0)
    kept = weights > 1e-20
    return _root(K) @ grid[:, kept], weights[kept]


def _sobol(K: Square, seed: int) -> Rule:
    points = qmc.Sobol(len(K), seed=seed).random_base2(SOBOL_LOG2 - 1)
    x = norm.ppf(np.clip(points, 1e-12, 1 - 1e-12)).T
    return _root(K) @ np.concatenate([x, -x], axis=1), np.full(2 * x.shape[1], 0.5 / x.shape[1])


def _root(K: Square) -> Square:
    values, vectors = np.linalg.eigh(K)
    return vectors * np.sqrt(np.maximum(values, 0))


def _panels(f: Activation, K: Square, level: int) -> Rule:
    """One or two inputs, split at kinks: the second input's panels follow the first one's value."""
    x, w = (tensor.numpy() for tensor in line(f, float(K[0, 0]), level))
    z = sqrt(K[0, 0]) * x
    if len(K) == 1:
        return z[None], w
    kept = np.abs(x) < PANEL_REACH
    x, w, z = x[kept], w[kept], z[kept]
    rho = K[0, 1] / sqrt(K[0, 0])
    rest = sqrt(max(K[1, 1] - rho**2, 1e-30 * K[1, 1]))
    uniform = np.linspace(-PANEL_REACH, PANEL_REACH, 10 * 2**level + 1)
    cuts = [np.clip((kink - rho * x) / rest, -PANEL_REACH, PANEL_REACH)[:, None] for kink in f.kinks]
    edges = np.sort(np.concatenate([np.broadcast_to(uniform, (len(x), len(uniform))), *cuts], axis=1), axis=1)
    unit, weight = np.polynomial.legendre.leggauss(12)
    half = np.diff(edges, axis=1)[..., None] / 2
    y = (edges[:, :-1, None] + half * (unit + 1)).reshape(len(x), -1)
    inner = (half * weight).reshape(len(x), -1) * norm.pdf(y)
    second = rho * x[:, None] + rest * y
    return np.stack([np.broadcast_to(z[:, None], y.shape).ravel(), second.ravel()]), (w[:, None] * inner).ravel()


# -- collecting --------------------------------------------------------------------------------------------------------


def _collected(
    sizes: tuple[int, ...], K: Matrices, theta: Matrices, history: list[dict], vertex: str, error: float
) -> InputsFlow:
    count = K.shape[1]
    full = np.zeros((len(history), *(count,) * 4))
    own, cross = np.zeros((2, *K.shape))
    for layer, vertices in enumerate(history):
        for group, V in vertices.items():
            pairs = [(group[a], group[b]) for a, b in _pairs(group)]
            for i, (a, b) in enumerate(pairs):
                for j, (c, d) in enumerate(pairs):
                    if (a, b) == (c, d):
                        cross[layer, a, b] = cross[layer, b, a] = V[i, j]
                    if a == b and c == d:
                        own[layer, a, c] = V[i, j]
                    if vertex == "full":
                        for p, q in ((a, b), (b, a)):
                            full[layer, p, q, c, d] = full[layer, p, q, d, c] = V[i, j]
    return InputsFlow(sizes, K, theta, own, cross, full if vertex == "full" else None, error)
