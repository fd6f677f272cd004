"""From fields to nodes: what each kind of field does to the plane of covariances between all positions."""

from collections import Counter
from collections.abc import Callable
from itertools import product
from math import prod

import numpy as np
import torch

from widthwise.kernels._fields import (
    Centred,
    Concat,
    Field,
    Gained,
    Image,
    Inputs,
    Moved,
    Normalised,
    Offset,
    Product,
    Shared,
    Sum,
    Tokens,
)
from widthwise.kernels._fields_attention import Attended
from widthwise.kernels._fields_stacked import Stacked
from widthwise.kernels._origins import independent
from widthwise.kernels.engines._maps import Unfit
from widthwise.kernels.engines._plan_rules import transform_of, variance_of
from widthwise.kernels.engines._plan_types import Contribution
from widthwise.kernels.engines._tokens_nodes import Node, Nodes, Term, check_size, same_entry
from widthwise.kernels.engines._tokens_scores import Weights, weights_of

MOST_POSITIONS = 1024


class Reader:
    """Reads fields into nodes, each once.

    Args:
        contribution: how much a trained parameter adds to the tangent kernel.
        numbered: what an `Inputs` field reads of one input that holds 1, 2, 3, ...: ``[1, positions, features]``.

    Attributes:
        widths: features of each of the nodes' data.
    """

    def __init__(self, contribution: Contribution, numbered: Callable[[Inputs], torch.Tensor]) -> None:
        self.contribution, self.numbered = contribution, numbered
        self.data: dict[tuple, int] = {}
        self.widths: list[int] = []
        self.nodes = Nodes()
        self.found: dict[int, int] = {}
        self.kept: list[Field] = []
        self.sums: list[tuple[Counter, int]] = []
        self.means: list[Field] = []
        self.rules: dict[type[Field], Callable[..., int]] = {
            Inputs: self._inputs, Tokens: self._tokens, Shared: self._constant, Offset: self._constant,
            Product: self._product, Sum: self._sum, Concat: self._concat, Stacked: self._stacked, Moved: self._moved,
            Gained: self._gained, Normalised: self._normalised, Centred: self._centred, Image: self._image,
            Attended: self._attended,
        }  # fmt: skip

    def node(self, u: Field) -> int:
        """The node of a field.

        Raises:
            Unfit: the token machine has no operation for it.
        """
        if id(u) not in self.found:
            rule = self.rules.get(type(u))
            if rule is None:
                raise Unfit(type(u).__name__)
            check_size(u.positions, MOST_POSITIONS)
            self.kept.append(u)
            self.found[id(u)] = rule(u)
        return self.found[id(u)]

    def _inputs(self, u: Inputs) -> int:
        seen = self.numbered(u)
        key = (u.node, u.positions, seen.shape, seen.double().numpy().tobytes())
        if key not in self.data:
            self.data[key] = len(self.nodes.data)
            self.nodes.data.append(u)
            self.widths.append(seen.shape[2])
        return self.nodes.add(Node("data", prod(u.positions), argument=self.data[key]))

    def _tokens(self, u: Tokens) -> int:
        if not isinstance(u.variance, float):
            raise Unfit("a variance that is differentiated")
        own = self.contribution(u.weight, u.variance, 1)
        same = [t for t in self.nodes.tokens if (t.node, t.padding, t.batched) == (u.node, u.padding, u.batched)]
        if not same:
            self.nodes.tokens.append(u)
        place = self.nodes.tokens.index(same[0] if same else u)
        return self.nodes.add(Node("tokens", prod(u.positions), argument=(place, u.variance, own)))

    def _constant(self, u: Shared | Offset) -> int:
        variance = u.variance if isinstance(u, Shared) else 0.0
        if not isinstance(variance, float):
            raise Unfit("a variance that is differentiated")
        if isinstance(u, Offset) and u.value:
            raise Unfit("a constant")
        same = same_entry(u.own, u.positions)
        own = self.contribution(u.weight, variance, 1) if u.weight is not None else 0.0
        return self.nodes.fixed(variance * same, own * same)

    def _product(self, u: Product) -> int:
        variance, kind = variance_of(u), u.contraction.key[0]
        own = self.contribution(u.weight, variance, u.contracted)
        source, term = self.node(u.source), (variance, variance, own)
        if kind == "convolved":
            source, share = self._taps(source, u)
            term = (variance * share, variance * share, own * share)
        elif kind == "flattened":
            source = self._flattened(source, u)
        elif kind not in ("pointwise", "patches"):
            raise Unfit(f"contraction {kind}")
        return self._scaled(source, *term, pending=False)

    def _scaled(self, source: int, scale: float, scale_t: float, ratio: float, pending: bool) -> int:
        node = self.nodes[source]
        term = Term(source, scale, scale_t, ratio)
        if node.kind == "fixed":
            return self.nodes.fixed(*term.of_fixed(*self.nodes.constants(source)))
        return self.nodes.add(Node("sum", node.size, (source,), terms=(term,), pending=pending))

    def _taps(self, source: int, u: Product) -> tuple[int, float]:
        """The sum over taps of equally shifted pairs of positions, and what makes it a mean."""
        if len(u.contraction.key) > 6:
            raise Unfit("a convolution of moved positions")
        _, image, kernel, stride, padding, dilation = u.contraction.key
        if self.nodes[source].kind == "fixed":
            raise Unfit("a convolution of constants")
        axes = []
        for size, taps, jump, (before, after), step in zip(image, kernel, stride, padding, dilation, strict=True):
            out = (size + before + after - step * (taps - 1) - 1) // jump + 1
            places = np.arange(out)[:, None] * jump - before + np.arange(taps) * step
            axes.append(np.where((places >= 0) & (places < size), places, -1))
        table = []
        for entry in product(*(range(len(axis)) for axis in axes)):
            row = []
            for tap in product(*(range(axis.shape[1]) for axis in axes)):
                places = [axis[i, j] for axis, i, j in zip(axes, entry, tap, strict=True)]
                row.append(-1 if min(places) < 0 else int(np.ravel_multi_index(places, image)))
            table.append(tuple(row))
        return self.nodes.add(Node("taps", len(table), (source,), tuple(table))), 1.0 / prod(kernel)

    def _flattened(self, source: int, u: Product) -> int:
        """The mean over equal positions."""
        if u.positions:
            raise Unfit("a matrix that contracts some of the positions")
        if self.nodes[source].kind == "fixed":
            value, tangent = (np.trace(one).reshape(1, 1) / len(one) for one in self.nodes.constants(source))
            return self.nodes.fixed(value, tangent)
        return self.nodes.add(Node("diagonal", 1, (source,)))

    def _sum(self, u: Sum) -> int:
        terms = [term for _, term in u.terms]
        self._check_apart(tuple(terms), u.gaussian)
        parts = [(self.node(term), scale * scale) for scale, term in u.terms]
        own = Counter(parts)
        below = [found for found in self.sums if found[0] < own and found[0].total() > 1]
        best = max(below, key=lambda found: found[0].total(), default=(Counter(), -1))
        self.sums.append((own, -1))
        rest = list((own - best[0]).elements())
        found = self._total(prod(u.positions), rest + ([(best[1], 1.0)] if best[0] else []))
        self.sums[-1] = (own, found)
        return found

    def _check_apart(self, terms: tuple[Field, ...], gaussian: bool) -> None:
        """Fields that are added, or stand side by side, have no cross moments."""
        if any(isinstance(term, Offset) and term.value for term in terms):
            raise Unfit("a constant")
        varied = [term for term in terms if not isinstance(term, Offset)]
        if sum(not term.gaussian for term in varied) > 1:
            raise Unfit("a sum of two activations")
        if not independent(*((term,) for term in varied)):
            raise Unfit("terms of a sum that share a matrix")

    def _total(self, size: int, parts: list[tuple[int, float]]) -> int:
        terms: list[Term] = []
        value, tangent = np.zeros((size, size)), np.zeros((size, size))
        for node, square in parts:
            if self.nodes[node].kind == "fixed":
                first, second = self.nodes.constants(node)
                value, tangent = value + square * first, tangent + square * second
            else:
                terms.append(Term(node, square, square, 0.0))
        fixed = self.nodes.fixed(value, tangent) if value.any() or tangent.any() else -1
        return self.nodes.total(size, terms, fixed)

    def _concat(self, u: Concat) -> int:
        parts = list(zip(map(self.node, u.parts), u.fractions, strict=True))
        return self._total(prod(u.positions), parts)

    def _stacked(self, u: Stacked) -> int:
        self._check_apart(u.parts, u.gaussian)
        size = prod(u.positions)
        places = np.arange(size).reshape(u.positions)
        children, starts, start = [], [], 0
        value, tangent = np.zeros((size, size)), np.zeros((size, size))
        for part, length in zip(u.parts, u.lengths, strict=True):
            index = places.take(range(start, start + length), u.axis).ravel()
            node, start = self.node(part), start + length
            if self.nodes[node].kind == "fixed":
                first, second = self.nodes.constants(node)
                value[np.ix_(index, index)], tangent[np.ix_(index, index)] = first, second
            else:
                children.append(node)
                starts.append(tuple(index.tolist()))
        fixed = self.nodes.fixed(value, tangent) if value.any() or tangent.any() else -1
        if not children:
            return self.nodes.total(size, [], fixed)
        pending = any(self.nodes[child].pending for child in children)
        blocks = self.nodes.add(Node("blocks", size, tuple(children), tuple(starts), pending=pending))
        return self.nodes.total(size, [Term(blocks, 1.0, 1.0, 0.0)], fixed)

    def _moved(self, u: Moved) -> int:
        sites = check_size(u.source.positions, MOST_POSITIONS)
        units = torch.eye(sites, dtype=torch.float64).reshape(-1, *u.source.positions)
        matrix = u.move.apply(units).reshape(sites, -1).T.numpy()
        even = bool(np.allclose(matrix.sum(1), 1.0, rtol=1e-15, atol=0))
        return self._inside(self.node(u.source), even, lambda node: self.nodes.mapped(node, matrix[None]))

    def _inside(self, source: int, even: bool, apply: Callable[[int], int]) -> int:
        """A map of positions moved inside a scale (and a constant, where weights sum to one): one pass less.

        Args:
            even: whether the map leaves constants as they are.
        """
        node = self.nodes[source]
        value, tangent = self.nodes.constants(node.fixed) if node.fixed >= 0 else (np.zeros((1, 1)),) * 2
        same = bool((value == value[0, 0]).all() and (tangent == tangent[0, 0]).all())
        if len(node.terms) != 1 or node.kind != "sum" or (node.fixed >= 0 and not (even and same)):
            return apply(source)
        term = node.terms[0]
        inner = apply(term.node)
        size = self.nodes[inner].size
        fixed = -1
        if node.fixed >= 0:
            fixed = self.nodes.fixed(np.full((size, size), value[0, 0]), np.full((size, size), tangent[0, 0]))
        terms = (Term(inner, term.scale, term.scale_t, term.ratio),)
        return self.nodes.add(Node("sum", size, (inner,), terms=terms, fixed=fixed, pending=node.pending))

    def _gained(self, u: Gained) -> int:
        own = self.contribution(u.weight, 0.0, 1)
        source = self.node(u.source)
        pending = bool(own) or self.nodes[source].pending
        if pending and self.nodes[source].kind == "fixed":
            raise Unfit("a trained gain of constants")
        return self._scaled(source, u.value**2, u.value**2, own, pending)

    def _normalised(self, u: Normalised) -> int:
        source, statistic = self.node(u.source), self.node(u.statistic)
        if "fixed" in (self.nodes[source].kind, self.nodes[statistic].kind):
            raise Unfit("a normalisation of constants")
        argument = (statistic, u.eps, u.pooled)
        return self.nodes.add(Node("norm", prod(u.positions), (source,), argument, pending=self.nodes[source].pending))

    def _centred(self, u: Centred) -> int:
        source = self.node(u.source)
        if u.source.gaussian:
            return source
        if u.pooled or self.nodes[source].kind == "fixed":
            raise Unfit("a mean over positions")
        self.means.append(u.source)
        node = Node("centre", prod(u.positions), (source,), len(self.means) - 1, pending=self.nodes[source].pending)
        return self.nodes.add(node)

    def _image(self, u: Image) -> int:
        source = self.node(u.source)
        if self.nodes[source].pending:
            raise Unfit("a trained gain vector in front of an activation")
        if self.nodes[source].kind == "fixed":
            raise Unfit("an activation of constants")
        return self.nodes.add(Node("act", prod(u.positions), (source,), transform_of(u.activation)))

    def _attended(self, u: Attended) -> int:
        value = self.node(u.value)
        weights = weights_of(u.scores, self.node, self.nodes)
        if not isinstance(weights, Weights):
            even = bool(np.allclose(weights.sum(2), 1.0, rtol=1e-15, atol=0))
            return self._inside(value, even, lambda node: self.nodes.mapped(node, weights))
        if self.nodes[value].kind == "fixed":
            raise Unfit("attention to constants")
        size = u.scores.shape[0]

        def apply(node: int) -> int:
            pending, kind, count = self.nodes[node].pending, self.nodes[node].kind, self.nodes[node].size
            if kind == "data" and size * self.widths[self.nodes[node].argument] <= count * (count + size):
                return self.nodes.add(Node("mixed", size, argument=(self.nodes[node].argument, weights)))
            return self.nodes.add(Node("map", size, (node,), ("scores", weights), pending=pending))

        open_rows = not weights.given and bool(np.isfinite(self.nodes.arrays[weights.mask]).any(2).all())
        return self._inside(value, weights.softmax and open_rows, apply)
