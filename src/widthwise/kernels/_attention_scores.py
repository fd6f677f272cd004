"""Attention scores: their means, masks and rotations."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from widthwise.kernels._fields_attention import Mask, Scores

if TYPE_CHECKING:
    from widthwise.kernels._evaluator import Evaluator


def attention_weights(scores: Scores, values: Tensor) -> Tensor:
    """Weights of each query over the keys; a query that may attend to nothing gets none."""
    if not scores.softmax:
        return values
    top = values.amax(-1, keepdim=True)
    shifted = torch.exp(values - torch.where(torch.isfinite(top), top, 0.0))
    return shifted / shifted.sum(-1, keepdim=True).clamp_min(torch.finfo(values.dtype).tiny)


def shift(run: "Evaluator", scores: Scores, side: int) -> Tensor:
    """The deterministic part of the scores at each input of a side, ``[n, heads or 1, P, S]``."""
    count = run.count(side)
    value = torch.zeros(count, 1, *scores.shape, dtype=run.dtype, device=run.device)
    if scores.query is not None and scores.key is not None and scores.growth == "inverse":
        mean = run.moment(scores.query, scores.key, "11" if side == 0 else "22", diagonal=False)
        if mean is not None:
            value = scores.scale * scores.size * mean.reshape(count, 1, *scores.shape) * _cosines(scores, mean)
    for mask in scores.masks:
        value = value + _mask(run, mask, side)
    return value


def _cosines(scores: Scores, like: Tensor) -> Tensor | float:
    if scores.angles is None:
        return 1.0
    of_query, of_key = (angle.to(like) for angle in scores.angles)
    return torch.cos(of_query.unsqueeze(1) - of_key).mean(2)


def _mask(run: "Evaluator", mask: Mask, side: int) -> Tensor:
    if mask.constant is not None:
        return mask.constant.to(dtype=run.dtype, device=run.device)
    assert mask.node is not None
    return mask.read(run.data[side][mask.node]).to(run.dtype)


def phases(first: Scores, second: Scores, run: "Evaluator") -> list[tuple[Tensor, Tensor]]:
    """Pairs ``phi(p, q)``, ``psi(r, s)`` whose products sum to the factor that rotations put on covariances of scores.

    In a plane turned by angles, ``Cov(S_pq, S'_rs)`` gets the mean over planes of ``cos(w_p - w_q - w'_r + w'_s)``.
    """
    if first.angles is None and second.angles is None:
        one, two = (torch.ones(one.shape, dtype=run.dtype, device=run.device) for one in (first, second))
        return [(one, two)]
    waves = torch.cat([_waves(first, run), _waves(second, run)])
    sites = first.shape[0] * first.shape[1]
    left, values, _ = torch.linalg.svd(waves, full_matrices=False)
    columns = (left * values)[:, values > 1e-9 * values[0]]
    one, two = columns[:sites], columns[sites:]
    return [(one[:, i].reshape(first.shape), two[:, i].reshape(second.shape)) for i in range(columns.shape[1])]


def _waves(scores: Scores, run: "Evaluator") -> Tensor:
    """``[P * S, 2 * planes]``: cosine and sine of the angle between query and key, over the root of the planes."""
    assert scores.angles is not None
    of_query, of_key = (angle.to(dtype=run.dtype, device=run.device) for angle in scores.angles)
    angle = (of_query.unsqueeze(1) - of_key).reshape(-1, of_query.shape[1])
    return torch.cat([torch.cos(angle), torch.sin(angle)], 1) / angle.shape[1] ** 0.5
