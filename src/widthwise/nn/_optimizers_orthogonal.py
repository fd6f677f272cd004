"""Orthogonalised matrices: what spectral descent, Muon and Shampoo without accumulation move the weights by."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from widthwise.core import ModelError

Coefficients = tuple[float, float, float]

QUINTIC: Coefficients = (3.4445, -4.7750, 2.0315)
"""Steepest at zero: singular values end in about [0.68, 1.14] instead of at one (the coefficients of Muon)."""

POLISH: Coefficients = (15 / 8, -10 / 8, 3 / 8)
"""Newton-Schulz of order three: the error e of a singular value near one becomes about 2.5 e^3."""


def newton_schulz(
    matrix: Float[Tensor, "*batch rows cols"],
    steps: int = 5,
    *,
    polish: int = 0,
    coefficients: Coefficients = QUINTIC,
    dtype: torch.dtype | None = None,
    eps: float = 1e-7,
) -> Float[Tensor, "*batch rows cols"]:
    """The orthogonal factor ``U V^T`` of ``U S V^T``, by polynomials of the matrix: products only, no decomposition.

    The matrix is divided by its Frobenius norm; each step maps every singular value s to ``a s + b s^3 + c s^5``.
    `steps` steps with `coefficients` bring singular values above about 3.4^-steps of that norm to order one (with the
    default into about [0.68, 1.14]); `polish` further steps with (15/8, -10/8, 3/8) then bring them to one: within
    0.063 after one, 6e-4 after two, 5e-10 after three. Smaller singular values stay small, zero stays zero.

    Args:
        matrix: one or several matrices.
        steps, polish: numbers of steps.
        coefficients: (a, b, c) of the first steps.
        dtype: of the arithmetic; the matrix's own where None.
        eps: smallest Frobenius norm that is divided by.

    Returns:
        As `matrix`, in its own dtype.

    Raises:
        ModelError: fewer than two axes, or a negative number of steps.

    Source: arXiv:2310.17813, section 5 (spectrally normalised updates); the coefficients are Muon's (K. Jordan, 2024).

    >>> near_orthogonal = newton_schulz(torch.tensor([[3.0, 0.0], [0.0, 1.0]]), polish=3)
    >>> torch.allclose(near_orthogonal, torch.eye(2), atol=1e-5)
    True
    """
    if matrix.ndim < 2:
        raise ModelError(f"newton_schulz got a tensor of shape {tuple(matrix.shape)}; give a matrix, or several.")
    if steps < 0 or polish < 0:
        raise ModelError(f"newton_schulz got steps={steps} and polish={polish}; give numbers of zero or more.")
    x = matrix if dtype is None else matrix.to(dtype)
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=eps)
    for a, b, c in [coefficients] * steps + [POLISH] * polish:
        x = _step(x, a, b, c)
    return (x.mT if tall else x).to(matrix.dtype)


def _step(x: Tensor, a: float, b: float, c: float) -> Tensor:
    """``a X + (b G + c G^2) X`` with ``G = X X^T``."""
    flat = x.flatten(0, -3) if x.ndim > 3 else x
    multiply_add = torch.addmm if flat.ndim == 2 else torch.baddbmm
    gram = flat @ flat.mT
    return multiply_add(flat, multiply_add(gram, gram, gram, beta=b, alpha=c), flat, beta=a).reshape(x.shape)


def natural_norm(matrix: Float[Tensor, "*batch rows cols"]) -> Float[Tensor, "*batch"]:
    """Spectral norm in natural units, ``||W||_* sqrt(fan_in / fan_out)``: the largest ratio of root mean squares.

    Of order one for weights and updates at every width where features are learned (arXiv:2310.17813, condition 1).

    >>> natural_norm(2 * torch.eye(3)).item()
    2.0
    """
    rows, cols = matrix.shape[-2:]
    return torch.linalg.matrix_norm(matrix, ord=2) * (cols / rows) ** 0.5


def block_sizes(rows: int, blocks: int | Sequence[int]) -> list[int]:
    """Rows of each block of a packed matrix.

    Raises:
        ModelError: the blocks do not fill the rows.
    """
    if isinstance(blocks, int):
        if blocks < 1 or rows % blocks:
            raise ModelError(f"{rows} rows do not divide into {blocks} blocks; give sizes, as blocks=(64, 16, 16).")
        return [rows // blocks] * blocks
    if sum(blocks) != rows or min(blocks) < 1:
        raise ModelError(f"blocks={tuple(blocks)} do not add up to the {rows} rows of the matrix; give sizes that do.")
    return list(blocks)
