"""Fields of attention: scores between positions, and values averaged with the weights that they give."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Literal

from torch import Tensor

from widthwise.kernels._fields import Field, Local, Rescaled, Sizes

Growth = Literal["root", "inverse"]
"""How the scale of the scores falls with the head size: like ``1/sqrt(d)`` or like ``1/d``."""


@dataclass(frozen=True, eq=False)
class Mask:
    """What is added to the scores: data or a constant, the same for every coordinate of a head.

    Attributes:
        node: name of the data node that holds it; None for a constant.
        read: its tensor to ``[n or 1, heads or 1, P, S]``, with minus infinity where nothing is attended to.
        constant: that array, where it is one.
    """

    node: str | None
    read: Callable[[Tensor], Tensor]
    constant: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Scores:
    """``scale * q_p . k_q`` plus masks, for every pair of a query and a key position.

    Attributes:
        query, key: the fields; None where the weights are data (``scale`` is then 0).
        scale: all constant factors.
        size: entries of a head that the product sums over.
        growth: how the scale falls with the head size. ``"root"``: scores are random, a Gaussian field over position
            pairs; ``"inverse"``: they are ``scale * size * E[q_p k_q]``.
        masks: what is added to them.
        softmax: whether weights are the softmax of scores over keys, or the scores themselves.
        queries, keys: numbers of positions.
        angles: rotation of each query (and key) position in each plane of a head, ``[P, planes]`` and ``[S, planes]``.
    """

    query: Field | None
    key: Field | None
    scale: float
    size: int
    growth: Growth
    masks: tuple[Mask, ...]
    softmax: bool
    queries: Sizes
    keys: Sizes
    angles: tuple[Tensor, Tensor] | None = None

    @property
    def random(self) -> bool:
        """Whether scores differ from head to head."""
        return self.query is not None and self.growth == "root"

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of query and of key positions."""
        return prod(self.queries), prod(self.keys)


@dataclass(frozen=True, eq=False)
class Attended(Field):
    """``y_p = sum_q A_pq v_q`` with attention weights A from scores, which differ from head to head.

    Its moments are means over infinitely many heads. Given the weights it is Gaussian where the value is.
    """

    value: Field
    scores: Scores

    @property
    def positions(self) -> Sizes:  # type: ignore[override]
        return self.scores.queries

    @property
    def gaussian(self) -> bool:  # type: ignore[override]
        return self.value.gaussian and not self.scores.random

    @property
    def sources(self) -> tuple[Field, ...]:
        """The fields that it is made from."""
        made = (self.value, self.scores.query, self.scores.key)
        return tuple(field for field in made if field is not None)


@dataclass(frozen=True, eq=False)
class Rotated(Rescaled):
    """A field whose coordinates are turned in planes, by an angle for each position and plane (rotary positions).

    Attributes:
        angles: ``[P, planes]``.
    """

    source: Field
    angles: Tensor


@dataclass(frozen=True, eq=False)
class Gated(Local):
    """The product of two fields made from independent weights: its moments are products of theirs."""
