"""Fields read as a graph of planes: covariances between all positions of two inputs, equal ones only once.

A node stands for the plane ``K[p, r]`` of one field at position p of the left and r of the right input, with its
tangents T. Fields that are written differently but mean the same (a token picked before and after a sum, queries and
keys of tied matrices) become one node.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np

from widthwise.kernels._fields import Inputs, Sizes, Tokens
from widthwise.kernels._fields_attention import Mask
from widthwise.kernels.engines._maps import Unfit

Matrix = np.ndarray


@dataclass(frozen=True)
class Term:
    """``scale K``, and ``scale_t T + ratio K`` for the tangents, of a node."""

    node: int
    scale: float
    scale_t: float
    ratio: float

    def of(self, inner: "Term") -> "Term":
        """This term of a node that is `inner` alone."""
        ratio = self.scale_t * inner.ratio + self.ratio * inner.scale
        return Term(inner.node, self.scale * inner.scale, self.scale_t * inner.scale_t, ratio)

    def of_fixed(self, value: Matrix, tangent: Matrix) -> tuple[Matrix, Matrix]:
        """This term of constants."""
        return self.scale * value, self.scale_t * tangent + self.ratio * value


@dataclass(frozen=True)
class Node:
    """A plane of ``size x size`` numbers.

    Attributes:
        kind: ``data``, ``mixed`` (data of positions averaged with attention weights: ``argument`` is its number, and
            a `Weights`), ``tokens``, ``fixed`` (constants), ``sum`` (`terms` and constants), ``map`` (weights of its
            one child's positions: ``argument`` is a matrix or a `Weights`), ``gather`` (positions), ``taps``
            (table of positions), ``blocks`` (children at starts), ``act``, ``norm``, ``centre``, ``diagonal``.
        argument: what else it needs; equal for equal nodes.
        pending: whether its tangents hold those of gain vectors, which no activation may follow.
    """

    kind: str
    size: int
    children: tuple[int, ...] = ()
    argument: Any = None
    terms: tuple[Term, ...] = ()
    fixed: int = -1
    pending: bool = False


class Nodes:
    """All nodes, each once, and the arrays that they refer to."""

    def __init__(self) -> None:
        self.all: list[Node] = []
        self.known: dict[Hashable, int] = {}
        self.arrays: list[Matrix] = []
        self.known_arrays: dict[tuple, int] = {}
        self.data: list[Inputs] = []
        self.tokens: list[Tokens] = []
        self.masks: list[Mask] = []

    def add(self, node: Node) -> int:
        """The number of a node."""
        if node not in self.known:
            self.known[node] = len(self.all)
            self.all.append(node)
        return self.known[node]

    def __getitem__(self, index: int) -> Node:
        return self.all[index]

    def array(self, values: Matrix) -> int:
        """The number of an array of constants."""
        values = np.ascontiguousarray(values, dtype=np.float64)
        key = (values.shape, values.tobytes())
        if key not in self.known_arrays:
            self.known_arrays[key] = len(self.arrays)
            self.arrays.append(values)
        return self.known_arrays[key]

    def mask(self, mask: Mask) -> int:
        """The number of a mask that is data."""
        known = [place for place, other in enumerate(self.masks) if other is mask]
        if not known:
            self.masks.append(mask)
        return known[0] if known else len(self.masks) - 1

    def fixed(self, value: Matrix, tangent: Matrix) -> int:
        """Constants: moments and tangents."""
        return self.add(Node("fixed", len(value), argument=(self.array(value), self.array(tangent))))

    def constants(self, index: int) -> tuple[Matrix, Matrix]:
        """The arrays of a node of constants."""
        first, second = self[index].argument
        return self.arrays[first], self.arrays[second]

    def total(self, size: int, terms: list[Term], fixed: int) -> int:
        """A sum of terms and constants."""
        if not terms:
            return fixed if fixed >= 0 else self.fixed(np.zeros((size, size)), np.zeros((size, size)))
        if len(terms) == 1 and fixed < 0 and (terms[0].scale, terms[0].scale_t, terms[0].ratio) == (1.0, 1.0, 0.0):
            return terms[0].node
        ordered = tuple(sorted(terms, key=lambda term: term.node))
        pending = any(self[term.node].pending for term in ordered)
        return self.add(Node("sum", size, tuple(t.node for t in ordered), terms=ordered, fixed=fixed, pending=pending))

    def mapped(self, child: int, matrix: Matrix) -> int:
        """A constant linear map of positions, ``[heads, to, from]``; a plain choice of positions is seen as one."""
        node = self[child]
        if len(matrix) == 1 and matrix.shape[1] == node.size and np.array_equal(matrix[0], np.eye(node.size)):
            return child
        if node.kind == "fixed":
            value, tangent = (_through(matrix, one) for one in self.constants(child))
            return self.fixed(value, tangent)
        size, pending = matrix.shape[1], node.pending
        if len(matrix) == 1 and ((matrix == 1).sum(2) == 1).all() and (np.abs(matrix).sum(2) == 1).all():
            places = tuple(int(place) for place in matrix[0].argmax(1))
            return self.add(Node("gather", size, (child,), places, pending=pending))
        return self.add(Node("map", size, (child,), ("fixed", self.array(matrix)), pending=pending))


def _through(matrix: Matrix, value: Matrix) -> Matrix:
    """The mean over heads of ``M K M^T``."""
    return np.mean([one @ value @ one.T for one in matrix], 0)


def same_entry(own: tuple[bool, ...], positions: Sizes) -> Matrix:
    """1 where both positions read the same entry of a parameter that has its own entries along some axes."""
    found = np.ones((1, 1))
    flags = own or (False,) * len(positions)
    for flag, size in zip(flags, positions, strict=True):
        found = np.kron(found, np.eye(size) if flag else np.ones((size, size)))
    return found


def check_size(positions: Sizes, most: int) -> int:
    """How many positions there are.

    Raises:
        Unfit: more than `most`.
    """
    size = int(np.prod(positions, dtype=np.int64))
    if size > most:
        raise Unfit("too many positions")
    return size
