"""How often each plane is read, and sums of sums written as one."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from widthwise.kernels.engines import _codes
from widthwise.kernels.engines._plan_rules import Transform
from widthwise.kernels.engines._tokens_nodes import Node, Nodes, Term
from widthwise.kernels.engines._tokens_scores import Weights

Sum = tuple[list[Term], int]


class Uses:
    """Reads the graph of nodes for one program.

    Args:
        own: for inputs with themselves: features are worked out from nodes too.

    Attributes:
        plain: how often the graph reads each node.
        uses: how often operations are still to read its plane.
    """

    def __init__(self, nodes: Nodes, *, own: bool) -> None:
        self.nodes, self.own = nodes, own
        self.plain: Counter[int] = Counter()
        self.uses: Counter[int] = Counter()
        self.sums: dict[int, Sum] = {}

    def sources_of(self, key: tuple) -> list[int]:
        """The nodes whose planes a feature is worked out from."""
        if key[0] in ("weights", "mixed"):
            return [key[1].key] if key[1].key >= 0 else []
        return [key[1]]

    def count(self, roots: list[int]) -> None:
        """How often the plane of each node is read."""
        self.plain = Counter(roots)
        for node in self._below(roots, self._needs):
            self.plain.update(self._needs(node))
        self.uses = Counter(roots)
        for node in self._below(roots, self._reads):
            self.uses.update(self._reads(node))

    def _below(self, roots: list[int], below: Callable[[int], list[int]]) -> list[int]:
        seen: dict[int, None] = {}
        stack = list(roots)
        while stack:
            node = stack.pop()
            if node not in seen:
                seen[node] = None
                stack.extend(below(node))
        return list(seen)

    def _needs(self, index: int) -> list[int]:
        """Nodes below, as the graph has them."""
        node = self.nodes[index]
        found = list(node.children)
        if self.own:
            found += [source for key in self.features_of(node) for source in self.sources_of(key)]
        return found

    def _reads(self, index: int) -> list[int]:
        """The same after sums of sums have been joined."""
        if self.nodes[index].kind != "sum":
            return self._needs(index)
        return [term.node for term in self.sum_of(index)[0]]

    def features_of(self, node: Node) -> list[tuple]:
        """Features that the operation of a node reads."""
        if node.kind == "act":
            transform: Transform = node.argument
            rate = transform.first if transform.phi == _codes.SIN else 0.0
            return [(kind, node.children[0], rate) for kind in transform.features]
        if node.kind == "norm":
            statistic, eps, pooled = node.argument
            return [("norm", statistic, eps, pooled)]
        if node.kind == "mixed":
            return [("mixed", node.argument[1], node.argument[0])]
        if node.kind == "map" and isinstance(node.argument[1], Weights):
            return [("weights", node.argument[1])]
        return []

    def sum_of(self, index: int) -> Sum:
        """Terms and constants of a sum, with the sums that it alone reads."""
        if index not in self.sums:
            node = self.nodes[index]
            terms: dict[int, Term] = {}
            size = node.size
            value, tangent = np.zeros((size, size)), np.zeros((size, size))
            if node.fixed >= 0:
                value, tangent = self.nodes.constants(node.fixed)
            for term in node.terms:
                inner = self._inner(term.node)
                if inner is None:
                    _join(terms, term)
                    continue
                for below in inner[0]:
                    _join(terms, term.of(below))
                if inner[1] >= 0:
                    first, second = term.of_fixed(*self.nodes.constants(inner[1]))
                    value, tangent = value + first, tangent + second
            fixed = self.nodes.fixed(value, tangent) if value.any() or tangent.any() else -1
            self.sums[index] = (list(terms.values()), fixed)
        return self.sums[index]

    def _inner(self, index: int) -> Sum | None:
        """The terms of a sum within a sum, where nothing is lost by working them out there."""
        node = self.nodes[index]
        if node.kind != "sum":
            return None
        found = self.sum_of(index)
        return found if self.plain[index] == 1 or (len(found[0]) == 1 and found[1] < 0) else None


def _join(terms: dict[int, Term], term: Term) -> None:
    """Add a term to those of the same node."""
    if term.node in terms:
        old = terms[term.node]
        term = replace(
            old, scale=old.scale + term.scale, scale_t=old.scale_t + term.scale_t, ratio=old.ratio + term.ratio
        )
    terms[term.node] = term
