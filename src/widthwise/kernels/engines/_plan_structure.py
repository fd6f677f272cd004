"""Which fields a field is made from, and the stage that each belongs to."""

from math import prod

from widthwise.kernels._fields import (
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
)
from widthwise.kernels.engines._maps import PositionMap, Unfit, position_map
from widthwise.kernels.engines._plan_rules import check_independent, variance_of
from widthwise.kernels.engines._plan_types import Contribution, Mean, Raw, Terms


class Structure:
    """The graph of fields below the outputs, read once."""

    def __init__(self, contribution: Contribution) -> None:
        self.contribution = contribution
        self.maps: dict[int, PositionMap | None] = {}
        self.levels: dict[int, int] = {}
        self.raws: dict[tuple[str, tuple[int, ...]], Raw] = {}
        self.read: dict[int, list[Field]] = {}
        self.sums: dict[int, Terms] = {}
        self.kept: list[Field] = []
        self.seen_sums: list[Sum] = []

    def children(self, u: Field) -> list[Field]:
        """Fields whose states the state of `u` is made from; constants are not among them."""
        if id(u) not in self.read:
            self.kept.append(u)
            self.read[id(u)] = self._children(u)
        return self.read[id(u)]

    def _children(self, u: Field) -> list[Field]:
        if isinstance(u, (Inputs, Raw)):
            return []
        if isinstance(u, Product):
            if u.contraction.key[0] == "flattened" and u.positions:
                raise Unfit("a matrix that contracts some of the positions")
            variance_of(u)
            return [self._patched(u)]
        if isinstance(u, Sum):
            return [term for _, term in self._terms(u) if not isinstance(term, (Shared, Offset))]
        if isinstance(u, Concat):
            return list(u.parts)
        if isinstance(u, (Image, Moved, Gained, Normalised, Mean)):
            return [u.source]
        raise Unfit(type(u).__name__)

    def _patched(self, u: Product) -> Field:
        """The source of a product: for a first convolution the pixels themselves."""
        key = u.contraction.key
        if not isinstance(u.source, Inputs) or key[0] != "patches" or len(key) == 1:
            return u.source
        image = key[5]
        raw = self.raws.get((u.source.node, image))
        if raw is None:
            raw = Raw(u.source.node, image, u.contracted // prod(key[1]))
            self.raws[u.source.node, image] = raw
        return raw

    def _terms(self, u: Sum) -> Terms:
        """The terms of a sum, those of an earlier sum replaced by that sum."""
        if id(u) not in self.sums:
            check_independent(u)
            for _, term in u.terms:
                if not isinstance(term, (Shared, Offset)):
                    self.level(term)
            own = {(id(term), scale) for scale, term in u.terms}
            best: Sum | None = None
            for other in self.seen_sums:
                inner = {(id(term), scale) for scale, term in other.terms}
                if inner < own and (best is None or len(other.terms) > len(best.terms)):
                    best = other
            terms = u.terms
            if best is not None and len(best.terms) > 1:
                rest = [(s, t) for s, t in u.terms if (id(t), s) not in {(id(b), a) for a, b in best.terms}]
                terms = ((1.0, best), *rest)
            self.sums[id(u)] = terms
            self.seen_sums.append(u)
        return self.sums[id(u)]

    def boundary(self, u: Field) -> bool:
        """Whether `u` joins different displacements of its source, so that a new stage begins after it."""
        if isinstance(u, Moved):
            if id(u) not in self.maps:
                self.maps[id(u)] = position_map(u.move, u.source.positions)
            return self.maps[id(u)] is not None
        return isinstance(u, Mean) or (isinstance(u, Product) and u.contraction.key[0] == "flattened")

    def level(self, u: Field) -> int:
        """The stage that `u` belongs to."""
        if id(u) not in self.levels:
            below = max((self.level(child) for child in self.children(u)), default=0)
            self.levels[id(u)] = below + self.boundary(u)
        return self.levels[id(u)]
