"""Batch norm in training mode followed by ReLU, exactly: integrals in one and two variables (sheet, section 2.8).

A coordinate's preactivations over a batch are Gaussian with covariance Sigma; centred they have ``S = G Sigma G``, and
batch norm divides by ``sqrt(|x|^2 / B + eps)``. Writing that as an integral of ``exp(-s |x|^2)`` tilts the Gaussian to
``K = S (I + 2 s S)^-1``, under which moments of ReLU are known.
"""

from math import pi

import torch
from jaxtyping import Float
from torch import Tensor

from widthwise.core import DataError

FEWEST = 4
"""Examples in a batch; with fewer the integrals have heavy tails."""


def batch_norm_relu(
    sigma: Float[Tensor, "b b"], tangent: Float[Tensor, "b b"], *, eps: float = 0.0, nodes: int = 400
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
    count = _checked(sigma)
    s_matrix, z = _centred(sigma), _centred(tangent)
    moment, passed = torch.zeros_like(sigma), torch.zeros_like(sigma)
    for s, weight in _nodes(s_matrix, nodes):
        tilted = 2 * s * s_matrix + torch.eye(count, dtype=sigma.dtype)
        k = torch.linalg.solve(tilted, s_matrix)
        scale = count * weight * torch.exp(-0.5 * torch.linalg.slogdet(tilted)[1] - s * count * eps)
        v, step = _relu(k)
        slope = z * step + s**2 / 2 * (k * z).sum() * v
        slope = slope + _relu_change(k, step, s**2 * k @ z @ k - s * (k @ z + z @ k))
        moment, passed = moment + scale * v, passed + scale * slope
    return moment, passed


def batch_norm_relu_across(
    first: Float[Tensor, "b b"],
    second: Float[Tensor, "c c"],
    across: Float[Tensor, "b c"],
    tangent: Float[Tensor, "b c"],
    *,
    eps: float = 0.0,
    nodes: int = 120,
) -> tuple[Float[Tensor, "b c"], Float[Tensor, "b c"]]:
    """The same between two batches, each normalised by itself.

    Args:
        first, second: covariances within the batches.
        across, tangent: covariances of preactivations, and of their derivatives, between them.
    """
    b, c = _checked(first), _checked(second)
    s1, s2 = _centred(first), _centred(second)
    outer = list(_nodes(s1, nodes, power=0.5)), list(_nodes(s2, nodes, power=0.5))

    def moment(x: Tensor) -> Tensor:
        joint = torch.cat([torch.cat([s1, x], 1), torch.cat([x.T, s2], 1)])
        total = torch.zeros_like(x)
        for s, weight in outer[0]:
            t = torch.stack([node for node, _ in outer[1]])
            weights = torch.stack([one for _, one in outer[1]])
            scales = torch.cat([s.expand(len(t), b), t[:, None].expand(-1, c)], 1)  # [nodes, b + c]
            tilted = torch.eye(b + c, dtype=x.dtype) + 2 * joint * scales[:, None, :]
            k = torch.linalg.solve(tilted, joint.expand_as(tilted))
            factor = torch.exp(-0.5 * torch.linalg.slogdet(tilted)[1] - (s * b + t * c) * eps)
            total = total + ((weight * weights * factor)[:, None, None] * _relu(k)[0][:, :b, b:]).sum(0)
        return total * (b * c) ** 0.5 / pi

    x = _centre(b) @ across @ _centre(c)
    found = torch.func.jvp(moment, (x,), (_centre(b) @ tangent @ _centre(c),))
    return found[0], found[1]


def _checked(sigma: Tensor) -> int:
    if len(sigma) < FEWEST:
        raise DataError(f"a batch of {len(sigma)} examples is too small for batch norm; give {FEWEST} or more.")
    return len(sigma)


def _centre(count: int) -> Tensor:
    return torch.eye(count, dtype=torch.float64) - 1.0 / count


def _centred(matrix: Tensor) -> Tensor:
    centre = _centre(len(matrix)).to(matrix.dtype)
    return centre @ matrix @ centre


def _nodes(s_matrix: Tensor, count: int, power: float = 1.0) -> list[tuple[Tensor, Tensor]]:
    """Nodes and weights of ``int s^(power - 1) ds``: the trapezoid rule in ``log s``."""
    largest = torch.linalg.eigvalsh(s_matrix)[-1]
    grid = torch.linspace(-34.0, 26.0, count, dtype=torch.float64) / power ** (1 / 3)
    step = grid[1] - grid[0]
    s = torch.exp(grid) / largest
    return list(zip(s, step * s**power, strict=True))


def _relu(k: Tensor) -> tuple[Tensor, Tensor]:
    """``E relu relu'`` and ``E step step'`` of Gaussians with covariance k, ``[..., b, b]``."""
    power = torch.diagonal(k, dim1=-2, dim2=-1).clamp_min(0)
    product = power.unsqueeze(-1) * power.unsqueeze(-2)
    gap = (product - k.square()).clamp_min(0)
    root = torch.where(gap > 0, gap, 1.0).sqrt() * (gap > 0)
    step = (pi - torch.atan2(root, k)) / (2 * pi)
    return root / (2 * pi) + step * k, step


def _relu_change(k: Tensor, step: Tensor, change: Tensor) -> Tensor:
    """Derivative of the ReLU moment by k in a symmetric direction."""
    power = torch.diagonal(k)
    gap = (power[:, None] * power[None, :] - k.square()).clamp_min(0)
    root, own = gap.sqrt(), torch.diagonal(change)
    others = root / (4 * pi) * (own / power)[:, None] + root / (4 * pi) * (own / power)[None, :]
    off = step * change + others
    return off - torch.diag(torch.diagonal(off)) + torch.diag(own / 2)
