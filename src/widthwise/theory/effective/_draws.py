"""Finite networks drawn at random, with their exact NTK and its differential, layer by layer, for one input."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from widthwise.core import derived_seed
from widthwise.numerics import Activation
from widthwise.theory.effective._flow import Flow


@dataclass(frozen=True)
class Layer:
    """One layer of a batch of networks.

    Attributes:
        z: preactivations.
        H: NTK between neurons, learning rates included.
        dH: dH[i, j, k] = sum lambda lambda d2z_i/dmu dnu dz_j/dmu dz_k/dnu; None if it was not asked for.
    """

    z: Float[Tensor, "draws n"]
    H: Float[Tensor, "draws n n"]
    dH: Float[Tensor, "draws n n n"] | None


@dataclass(frozen=True)
class Local:
    """Activation, first and second derivative at the preactivations."""

    s: Float[Tensor, "draws n"]
    d: Float[Tensor, "draws n"]
    dd: Float[Tensor, "draws n"]


def local(f: Activation, z: Tensor) -> Local:
    """The activation and its ordinary derivatives (no delta functions at kinks)."""
    curve = torch.func.jvp(f.derivative, (z,), (torch.ones_like(z),))[1]
    return Local(f.function(z), f.derivative(z), curve)


def first_layer(z: Float[Tensor, "draws n"], theta: float, differential: bool) -> Layer:
    """The first layer: linear in its parameters, so its NTK is diagonal and never moves."""
    count, n = z.shape
    eye = torch.eye(n, dtype=z.dtype).expand(count, n, n)
    return Layer(z, theta * eye, z.new_zeros(count, n, n, n) if differential else None)


def next_layer(
    layer: Layer,
    f: Activation,
    W: Float[Tensor, "draws m n"],
    b: Float[Tensor, "draws m"],
    lambda_b: float,
    lambda_W: float,
) -> Layer:
    """The exact step to the next layer. Sheet, section 2.4.

    dH'_{012} = sum W0 W1 W2 s'_1 s'_2 [s''_0 H_01 H_02 + s'_0 dH_012] + d01 lambda_W/n sum_j s_j s'_j (W2 s' H)_j
    + the same with 1 and 2 exchanged.
    """
    at = local(f, layer.z)
    n = layer.z.shape[1]
    z = b + (W @ at.s[..., None])[..., 0]
    eye = torch.eye(W.shape[1], dtype=z.dtype)
    forward = W * at.d[:, None]
    H = forward @ layer.H @ forward.mT + eye * (lambda_b + lambda_W * at.s.square().mean(1))[:, None, None]
    if layer.dH is None:
        return Layer(z, H, None)
    reach = forward @ layer.H  # [draws, m, n]: sum_b W_1b s'_b H_ba
    curved = torch.einsum("zia,zja,zka->zijk", W * at.dd[:, None], reach, reach)
    passed = torch.einsum("zia,zabc->zibc", forward, layer.dH)
    passed = forward[:, None] @ passed @ forward.mT[:, None]
    mixed = lambda_W / n * (reach @ (at.s * at.d)[..., None])[..., 0]
    shared = torch.einsum("ij,zk->zijk", eye, mixed)
    return Layer(z, H, curved + passed + shared + shared.transpose(2, 3))


def last_hidden(theory: Flow, f: Activation, draws: int, seed: int, differential: bool) -> Iterator[Layer]:
    """Batches of networks up to the last hidden layer; the estimators average over the output layer exactly."""
    widest = max(theory.widths[1:-1])
    batch = max(1, min(draws, int(4e6 / widest ** (3 if differential else 2))))
    for number, start in enumerate(range(0, draws, batch)):
        generator = torch.Generator().manual_seed(derived_seed(seed, "effective", theory.widths, differential, number))
        yield _network(theory, f, min(batch, draws - start), generator, differential)


def _network(theory: Flow, f: Activation, count: int, generator: torch.Generator, differential: bool) -> Layer:
    def normal(variance: float, *shape: int) -> Tensor:
        return variance**0.5 * torch.randn(count, *shape, generator=generator, dtype=torch.float64)

    widths = theory.widths
    layer = first_layer(normal(theory.K[0], widths[1]), float(theory.theta[0]), differential)
    for index in range(1, len(widths) - 2):
        fan_in, fan_out = widths[index], widths[index + 1]
        W, b = normal(theory.C_W[index] / fan_in, fan_out, fan_in), normal(theory.C_b[index], fan_out)
        rates = float(theory.lambda_b[index]), float(theory.lambda_W[index])
        layer = next_layer(layer, f, W, b, *rates)
    return layer


def estimates(layer: Layer, f: Activation, theory: Flow) -> dict[str, np.ndarray]:
    """What the output layer's statistics are given the last hidden layer: averages over its weights taken exactly.

    Returns:
        Per network ``G`` (conditional kernel) and ``X`` (conditional NTK), and estimates of B, F and, where the
        differential is known, P and Q.
    """
    C_b, C_W = float(theory.C_b[-1]), float(theory.C_W[-1])
    lambda_b, lambda_W = float(theory.lambda_b[-1]), float(theory.lambda_W[-1])
    at, H = local(f, layer.z), layer.H
    n = layer.z.shape[1]
    own = torch.diagonal(H, dim1=1, dim2=2)
    square, slope, mixed = at.s.square(), at.d.square(), at.s * at.d
    scale = C_W**2 / n
    found = {
        "G": C_b + C_W * square.mean(1),
        "X": lambda_b + lambda_W * square.mean(1) + C_W * (slope * own).mean(1),
        "B": scale * torch.einsum("zj,zk,zjk->z", slope, slope, H.square()),
        "F": scale * torch.einsum("zj,zk,zjk->z", mixed, mixed, H),
    }
    if layer.dH is not None:
        equal = torch.diagonal(layer.dH, dim1=2, dim2=3)  # dH[j, k, k]
        first = torch.diagonal(layer.dH, dim1=1, dim2=2).mT  # dH[j, j, m]
        curve = torch.einsum("zj,zk,zjk->z", at.s * at.dd, slope, H.square())
        found["P"] = scale * (curve + torch.einsum("zj,zk,zjk->z", mixed, slope, equal))
        bent = torch.einsum("zj,zm,zjm->z", at.d * at.dd * own, mixed, H)
        found["Q"] = lambda_W / C_W * found["F"] + scale * (bent + torch.einsum("zj,zm,zjm->z", slope, mixed, first))
    return {name: value.numpy() for name, value in found.items()}
