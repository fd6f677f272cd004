"""Attention weights as the token machine sees them: constants, or a softmax that each input works out for itself."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from widthwise.kernels._fields import Field, Offset, Product, Shared, Sum
from widthwise.kernels._fields_attention import Mask, Scores
from widthwise.kernels._origins import independent
from widthwise.kernels.engines._maps import Unfit
from widthwise.kernels.engines._tokens_nodes import Matrix, Nodes


@dataclass(frozen=True)
class Weights:
    """Weights of ``scale * K_k(p, s) * waves(p, s) + masks``, softmax over s or not.

    Attributes:
        key: node of the keys (which the queries equal), -1 where scores are masks alone.
        mask: array of constants ``[heads, P, S]``.
        given: masks that are data, by their place in `Nodes.masks`.
        waves: array of cosines of rotations ``[P, S]``, -1 for none.
    """

    key: int
    scale: float
    softmax: bool
    heads: int
    shape: tuple[int, int]
    mask: int
    given: tuple[int, ...]
    waves: int


def weights_of(scores: Scores, node: Callable[[Field], int], nodes: Nodes) -> Weights | Matrix:
    """The weights; an array ``[heads, P, S]`` where they are the same for all inputs.

    Raises:
        Unfit: they are random, or need more than the covariance of the keys.
    """
    if scores.random:
        raise Unfit("random attention scores")
    constant = np.zeros((1, *scores.shape))
    given: list[Mask] = []
    for mask in scores.masks:
        if mask.constant is None:
            given.append(mask)
        else:
            constant = constant + mask.constant.double().numpy()[0]
    key = -1
    if scores.query is not None and scores.key is not None:
        if tied(scores.query, scores.key):
            key = node(scores.key)
        elif not (independent((scores.query,), (scores.key,)) and _centred(scores)):
            raise Unfit("queries and keys that share a matrix without being equal")
    if key < 0 and not given:
        return attended(constant) if scores.softmax else constant
    if key >= 0 and nodes[key].kind == "fixed":
        raise Unfit("keys that are constants")
    if key >= 0 and scores.shape != (nodes[key].size,) * 2:
        raise Unfit("other queries than keys")
    waves = -1
    if key >= 0 and scores.angles is not None:
        one, two = (angle.double() for angle in scores.angles)
        waves = nodes.array(torch.cos(one.unsqueeze(1) - two).mean(2).numpy())
    places = tuple(nodes.mask(mask) for mask in given)
    scale = scores.scale * scores.size
    return Weights(key, scale, scores.softmax, len(constant), scores.shape, nodes.array(constant), places, waves)


def attended(scores: Matrix) -> Matrix:
    """The softmax over the last axis; a row that may attend to nothing gets zeros."""
    top = scores.max(-1, keepdims=True)
    shifted = np.exp(scores - np.where(np.isfinite(top), top, 0.0))
    return shifted / np.maximum(shifted.sum(-1, keepdims=True), np.finfo(np.float64).tiny)


def _centred(scores: Scores) -> bool:
    return scores.query is not None and scores.key is not None and scores.query.gaussian and scores.key.gaussian


def tied(query: Field, key: Field) -> bool:
    """Whether two fields are the same products of the same matrices and vectors."""
    return query is key or _identity(query) == _identity(key)


def _identity(u: Field) -> tuple:
    if isinstance(u, Sum):
        return ("sum", frozenset((scale, _identity(term)) for scale, term in u.terms))
    if isinstance(u, Product):
        return ("product", u.weight.name, u.contraction.key, id(u.source))
    if isinstance(u, Shared):
        return ("shared", u.weight.name, u.positions, u.own)
    if isinstance(u, Offset):
        return ("offset", u.weight and u.weight.name, u.value, u.positions, u.own)
    return ("field", id(u))
