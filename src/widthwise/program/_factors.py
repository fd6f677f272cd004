"""Union-find over atomic axes that can also be split, for the pass that labels the axes of every tensor."""

from collections.abc import Iterable, Sequence
from math import prod

Ids = tuple[int, ...]
"""The factors of one tensor axis, outermost first. Size 1 axes have none."""


class Factors:
    """The atomic axes of one program while its operations are read.

    A factor can turn out to be the same as another (`unify`) or to consist of an outer and an inner part (`split`);
    whoever holds its id sees that through `leaves`. Flags say where a factor comes from and what happens to it;
    parts inherit them and merged factors pool them (all but "unknown", which one known side ends).
    """

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.flags: list[set[str]] = []
        self.links: list[tuple[Ids, Ids]] = []
        self.viewed: list[int] = []
        self._same_as: list[int | None] = []
        self._parts: list[tuple[int, int] | None] = []

    def fresh(self, size: int, *flags: str) -> Ids:
        """A new axis of `size` entries, unrelated to the others."""
        if size == 1:
            return ()
        self.sizes.append(size)
        self.flags.append(set(flags))
        self._same_as.append(None)
        self._parts.append(None)
        return (len(self.sizes) - 1,)

    def leaves(self, ids: Iterable[int]) -> Ids:
        """The atomic factors that `ids` consist of, as known now."""
        found: list[int] = []
        for one in ids:
            root = one
            while (above := self._same_as[root]) is not None:
                root = above
            parts = self._parts[root]
            found.extend((root,) if parts is None else self.leaves(parts))
        return tuple(found)

    def size(self, ids: Iterable[int]) -> int:
        """Number of entries along the axis."""
        return prod(self.sizes[one] for one in ids)

    def flag(self, ids: Iterable[int], *names: str) -> None:
        """Remember something about every atomic factor of an axis."""
        for leaf in self.leaves(ids):
            self.flags[leaf].update(names)

    def derive(self, size: int, sources: Sequence[Ids]) -> Ids:
        """A new axis that holds entries of `sources` (a slice, a concatenation): it inherits where they come from."""
        new = self.fresh(size)
        origin = tuple(leaf for source in sources for leaf in self.leaves(source))
        if not new or not origin:
            return new
        pooled = set().union(*(self.flags[leaf] for leaf in origin))
        kept = {"made"} if "made" in pooled else pooled & {"batch", "input", "spatial", "param", "unknown"}
        self.flag(new, *kept)
        self.links.append((new, origin))
        return new

    def split(self, leaf: int, outer: int) -> tuple[int, int]:
        """Part an atomic factor into `outer` times the rest."""
        first, second = self.fresh(outer)[0], self.fresh(self.sizes[leaf] // outer)[0]
        self._parts[leaf] = (first, second)
        for part in (first, second):
            self.flags[part].update(self.flags[leaf])
        return first, second

    def unify(self, one: Ids, other: Ids) -> bool:
        """State that two axes run over the same index; False where their factors cannot be lined up."""
        while True:
            left, right = self.leaves(one), self.leaves(other)
            differing = [pair for pair in zip(left, right, strict=False) if pair[0] != pair[1]]
            if not differing:
                return len(left) == len(right)
            a, b = differing[0]
            small, large = sorted((self.sizes[a], self.sizes[b]))
            if small == large:
                self._same_as[b] = a
                unknown = {"unknown"} & self.flags[a] & self.flags[b]
                self.flags[a] = (self.flags[a] | self.flags[b]) - {"unknown"} | unknown
            elif small == 0 or large % small:
                return False
            else:
                self.split(a if self.sizes[a] == large else b, small)

    def regroup(self, ids: Ids, sizes: Sequence[int]) -> list[Ids]:
        """The axes of a row-major reshape to `sizes`, with factors split where a cut falls inside one.

        Where cuts cannot be lined up (3 x 4 to 4 x 3), the axes concerned get new factors.
        """
        if 0 in sizes:
            return [self.fresh(size) for size in sizes]
        axes: list[Ids] = []
        rest = self.leaves(ids)
        position = 0
        while position < len(sizes):
            inside, outside, end = _aligned(self, rest, sizes[position:])
            group = sizes[position : position + outside]
            axes.extend(self._cut(rest[:inside], group))
            rest, position = self.leaves(rest[inside:]), position + end
        return axes

    def _cut(self, ids: Ids, sizes: Sequence[int]) -> list[Ids]:
        axes: list[Ids] = []
        rest = list(self.leaves(ids))
        for size in sizes:
            axis: list[int] = []
            while size > 1:
                leaf, *others = rest
                have = self.sizes[leaf]
                if size % have == 0:
                    axis.append(leaf)
                    rest, size = others, size // have
                elif have % size == 0:
                    self.viewed.append(leaf)
                    self.split(leaf, size)
                    axis, rest = list(self.leaves(axis)), list(self.leaves(rest))
                else:
                    return [self.derive(one, [ids]) for one in sizes]
            axes.append(tuple(axis))
        return axes


def _aligned(factors: Factors, ids: Ids, sizes: Sequence[int]) -> tuple[int, int, int]:
    """The smallest number of leading factors and of leading sizes (at least one) with equal products."""
    inside, outside, have, want = 0, 1, 1, sizes[0]
    while have != want:
        if have < want:
            have *= factors.sizes[ids[inside]]
            inside += 1
        else:
            want *= sizes[outside]
            outside += 1
    return inside, outside, outside
