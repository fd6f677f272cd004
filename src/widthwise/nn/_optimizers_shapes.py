"""Parameters as the matrices that a norm is taken of, and the scale that an update of unit norm gets."""

from typing import Literal

from torch import Tensor

from widthwise.core import ModelError

Kind = Literal["linear", "transposed", "embedding", "experts", "taps"]
Scale = Literal["spectral", "muon", "rms", "none"]


def to_matrices(tensor: Tensor, kind: Kind) -> Tensor:
    """``[..., fan_out, fan_in]``; a vector is one column (fan-in one), a scalar one entry.

    Raises:
        ModelError: the kind does not fit the number of axes.
    """
    if tensor.ndim < 2:
        return tensor.reshape(-1, 1)
    if kind == "linear":
        return tensor.flatten(1)
    if kind == "embedding" and tensor.ndim == 2:
        return tensor.unsqueeze(-1)
    if kind == "transposed" and tensor.ndim == 2:
        return tensor.mT
    if kind == "experts" and tensor.ndim == 3:
        return tensor
    if kind == "taps" and tensor.ndim > 2:
        return tensor.flatten(2).permute(2, 0, 1)
    raise ModelError(
        f"kind {kind!r} does not fit a parameter of shape {tuple(tensor.shape)}; give linear (convolutions too), "
        "transposed or embedding (matrices), experts (three axes) or taps (convolutions)."
    )


def from_matrices(matrices: Tensor, like: Tensor, kind: Kind) -> Tensor:
    """The inverse of `to_matrices`."""
    if like.ndim >= 2 and kind == "transposed":
        return matrices.mT
    if like.ndim >= 2 and kind == "taps":
        return matrices.permute(1, 2, 0).reshape(like.shape)
    return matrices.reshape(like.shape)


def update_scale(rows: int, cols: int, scale: Scale) -> float:
    """What an update of unit spectral norm is multiplied by.

    ``"spectral"``: sqrt(rows / cols); ``"muon"``: sqrt(max(1, rows / cols)); ``"rms"``: 0.2 sqrt(max(rows, cols)),
    which gives the root mean square of AdamW's update; ``"none"``: 1.

    >>> [update_scale(1, 4, "spectral"), update_scale(1, 4, "muon"), update_scale(1, 4, "none")]
    [0.5, 1.0, 1.0]
    """
    if scale == "spectral":
        return (rows / cols) ** 0.5
    if scale == "muon":
        return max(1.0, rows / cols) ** 0.5
    return 0.2 * max(rows, cols) ** 0.5 if scale == "rms" else 1.0
