"""Writes the operations of one program: nodes in order, slots taken and given back."""

import numpy as np

from widthwise.kernels.engines import _tokens_codes as code
from widthwise.kernels.engines._maps import Unfit
from widthwise.kernels.engines._plan_rules import Transform
from widthwise.kernels.engines._tokens_layout import Layout
from widthwise.kernels.engines._tokens_nodes import Matrix, Node, Nodes, Term
from widthwise.kernels.engines._tokens_scores import Weights
from widthwise.kernels.engines._tokens_slots import Slots, split

CLOSE = 1e-14


class Writer(Slots):
    """Writes one program; arguments as for `Slots`.

    Attributes:
        offset_tangents: whether a sum adds a tangent where it adds no variance.
    """

    def __init__(self, nodes: Nodes, layout: Layout, *, own: bool, tangents: bool) -> None:
        super().__init__(nodes, layout, own=own, tangents=tangents)
        self.offset_tangents = False
        self.rules = {
            "data": self._data, "mixed": self._mixed, "tokens": self._tokens, "sum": self._linear, "map": self._map,
            "gather": self._gather, "taps": self._taps, "blocks": self._blocks, "act": self._act, "norm": self._norm,
            "centre": self._centre, "diagonal": self._diagonal,
        }  # fmt: skip

    def write(self, roots: list[int]) -> None:
        """All operations for these outputs."""
        self.count(roots)
        self._outputs(roots)

    def _outputs(self, roots: list[int]) -> None:
        for index, root in enumerate(roots):
            slot = self._emit(root)
            multiple = self.multiples[slot]
            arguments = {"RATIO": 0.0 if multiple is None else multiple, "READS": multiple is None}
            self._op(code.OUT, self.nodes[root].size, SRC=slot, INDEX=index, **arguments)
            self._release(root)

    def write_features(self, wanted: list[tuple], roots: list[int]) -> None:
        """All operations that work these features out, and those that they need in turn; then those for outputs."""
        self.count([*(source for key in wanted for source in self.sources_of(key)), *roots])
        for key in wanted:
            self._feature(key)
        self._outputs(roots)

    def _data(self, index: int, node: Node) -> None:
        width = self.layout.widths[node.argument]
        self._gram(index, node, self._known("data", node.argument, node.size * width), width)

    def _mixed(self, index: int, node: Node) -> None:
        number, weights = node.argument
        place = self._feature(self.features_of(node)[0])
        self._gram(index, node, place, weights.heads * self.layout.widths[number])

    def _known(self, kind: str, number: int, count: int) -> int:
        """Where something that is read begins."""
        place = self.layout.starts[kind, number]
        self.reads.append((place, count))
        return place

    def _gram(self, index: int, node: Node, at: int, width: int) -> None:
        slot = self._take(index)
        self.written.pop(slot, None)
        self._op(code.GRAM, node.size, DST=slot, AT=at, COUNT=width, SCALE=1.0 / width)
        self._multiple(slot, 0.0)

    def _tokens(self, index: int, node: Node) -> None:
        place, variance, own = node.argument
        if not variance:
            raise Unfit("a table without variance")
        slot = self._take(index)
        at = self._known("tokens", place, node.size)
        self.written.pop(slot, None)
        self._op(code.TOKENS, node.size, DST=slot, AT=at, KIND=self.nodes.tokens[place].padding, SCALE=variance)
        self._multiple(slot, own / variance)

    def _sum_terms(self, index: int) -> tuple[list[Term], Matrix | None, Matrix | None]:
        terms, fixed = self.sum_of(index)
        return (terms, None, None) if fixed < 0 else (terms, *self.nodes.constants(fixed))

    def _common(self, terms: list[Term], value: Matrix | None, tangent: Matrix | None) -> float | None:
        """The factor by which all tangents of a sum are a multiple of its moments, None where there is none."""
        if not self.tangents:
            return 0.0
        found: float | None = None
        for term in terms:
            inner = self.multiples[self.slots_of[term.node]]
            if inner is None or not term.scale:
                return None
            own = (term.scale_t * inner + term.ratio) / term.scale
            if found is not None and abs(own - found) > CLOSE * abs(found):
                return None
            found = own
        assert found is not None
        if value is not None and tangent is not None and not np.allclose(tangent, found * value, rtol=CLOSE, atol=0):
            return None
        return found

    def _linear(self, index: int, node: Node) -> None:
        terms, value, tangent = self._sum_terms(index)
        if value is not None and tangent is not None:
            self.offset_tangents |= bool(((tangent != 0) & (value == 0)).any())
        for term in terms:
            self._emit(term.node)
        multiple = self._common(terms, value, tangent)
        written, slot = [], -1
        numbers = split(value, tangent)
        alone = terms[0].node
        if len(terms) == 1 and numbers is not None and self._behind(self.slots_of[alone], terms[0], numbers):
            self._release(alone)
            self._take(index)
            self.written.pop(self.slots_of[index], None)
            return
        for place, term in enumerate(terms):
            source = self.slots_of[term.node]
            inner = self.multiples[source]
            ratio = term.ratio + (0.0 if inner is None else term.scale_t * inner)
            self._release(term.node)
            if not place:
                slot = self._take(index)
            arguments = {
                "SCALE": term.scale, "SCALE_T": term.scale_t, "RATIO": ratio, "READS": inner is None,
                "WRITES": multiple is None, "PLUS": place > 0,
            }  # fmt: skip
            arguments |= numbers if not place and numbers is not None else {}
            written.append(self._op(code.AFFINE, node.size, DST=slot, SRC=source, **arguments))
        if numbers is None and value is not None and tangent is not None:
            at, given = (self.layout.array(self.nodes.array(one)) for one in (value, tangent))
            arguments = {"AT": at, "GIVEN": given, "WRITES": multiple is None, "PLUS": True}
            written.append(self._op(code.ADD, node.size, DST=slot, **arguments))
        self._multiple(slot, multiple)
        self.written[slot] = written

    def _act(self, index: int, node: Node) -> None:
        self._emit(node.children[0])
        places = [self._feature(key) for key in self.features_of(node)]
        transform: Transform = node.argument
        names = dict(zip(("FIRST_AT", "SECOND_AT"), places, strict=False))
        arguments = {"PHI": transform.phi, "FIRST": transform.first, "SECOND": transform.second, **names}
        before = self._joined(node.children[0])
        self._in_place(index, node, code.ACT, writes=not before, **(arguments | {"READS": self.tangents} | before))

    def _norm(self, index: int, node: Node) -> None:
        place = self._feature(self.features_of(node)[0])
        self._emit(node.children[0])
        self._in_place(index, node, code.NORM, writes=False, FIRST_AT=place)

    def _centre(self, index: int, node: Node) -> None:
        self._emit(node.children[0])
        place = self._known("mean", node.argument, node.size)
        self._in_place(index, node, code.CENTRE, writes=True, FIRST_AT=place)

    def _map(self, index: int, node: Node) -> None:
        what = node.argument[1]
        if isinstance(what, Weights):
            place = self._feature(("weights", what))
            self._moved(index, node, code.MAP, early=what.heads == 1, HEADS=what.heads, AT=place, GIVEN=1)
        else:
            heads = len(self.nodes.arrays[what])
            self._moved(index, node, code.MAP, early=heads == 1, HEADS=heads, AT=self.layout.array(what), GIVEN=0)

    def _gather(self, index: int, node: Node) -> None:
        self._moved(index, node, code.GATHER, AT=self.layout.listed(node.argument))

    def _taps(self, index: int, node: Node) -> None:
        count = len(node.argument[0])
        at = self.layout.listed(tuple(place for row in node.argument for place in row))
        self._moved(index, node, code.TAPS, AT=at, COUNT=count)

    def _diagonal(self, index: int, node: Node) -> None:
        self._moved(index, node, code.DIAGONAL)

    def _blocks(self, index: int, node: Node) -> None:
        sources = [self._emit(child) for child in node.children]
        factors = {self.multiples[source] for source in sources}
        multiple = factors.pop() if len(factors) == 1 else None
        if multiple is None:
            for child, source in zip(node.children, sources, strict=True):
                self._with_tangents(source, self.nodes[child].size)
        slot = self._take(index)
        writes = self.tangents and multiple is None
        self._op(code.ZERO, node.size, DST=slot, WRITES=writes)
        for child, places in zip(node.children, node.argument, strict=True):
            at, source = self.layout.listed(places), self.slots_of[child]
            self._op(code.PLACE, node.size, DST=slot, SRC=source, M=len(places), AT=at, WRITES=writes)
            self._release(child)
        self._multiple(slot, multiple)
        self.written.pop(slot, None)
