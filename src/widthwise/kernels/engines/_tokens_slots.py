"""The operations of one program as they are written: slots taken and given back, tangents only where they differ."""

from collections.abc import Callable

import numpy as np

from widthwise.kernels.engines import _tokens_codes as code
from widthwise.kernels.engines._tokens_layout import Layout
from widthwise.kernels.engines._tokens_nodes import Matrix, Node, Nodes, Term
from widthwise.kernels.engines._tokens_uses import Uses


class Slots(Uses):
    """Operations, and the slots that hold the planes of nodes.

    Args:
        own: for inputs with themselves: the program works out what they bring along.
        tangents: whether tangents are wanted.

    Attributes:
        rules: what writes the operations of a node, by kind.
        wanted: features that the program reads: what, of which node, parameter.
        multiples: for each slot the factor by which its tangents are a multiple of its moments (they are then not
            written), or None.
        reads: places that pairs read: first, and how many.
        written: for each slot the operations of the sum that it holds.
    """

    rules: dict[str, Callable[[int, Node], None]]

    def __init__(self, nodes: Nodes, layout: Layout, *, own: bool, tangents: bool) -> None:
        super().__init__(nodes, own=own)
        self.layout, self.tangents = layout, tangents
        self.ops: list[np.ndarray] = []
        self.pars: list[np.ndarray] = []
        self.wanted: list[tuple] = []
        self.slots_of: dict[int, int] = {}
        self.multiples: dict[int, float | None] = {}
        self.written: dict[int, list[int]] = {}
        self.free: list[int] = []
        self.taken = 0
        self.done: set[tuple] = set()
        self.reads: list[tuple[int, int]] = []

    def _op(self, kind: int, size: int, **arguments: float) -> int:
        ints, reals = np.zeros(code.INTS, np.int64), np.zeros(code.REALS)
        ints[code.CODE], ints[code.N] = kind, size
        ints[[code.PHI, code.FIRST_AT, code.SECOND_AT, code.WAVES]] = -1
        reals[[code.SCALE, code.SCALE_T, code.SCALE_BEHIND, code.SCALE_T_BEHIND]] = 1.0
        for name, value in arguments.items():
            (reals if name in code.REAL_NAMES else ints)[getattr(code, name)] = value
        self.ops.append(ints)
        self.pars.append(reals)
        return len(self.ops) - 1

    def _take(self, index: int) -> int:
        if not self.free:
            self.free.append(self.taken)
            self.taken += 1
        slot = self.free.pop()
        self.slots_of[index] = slot
        return slot

    def _release(self, index: int) -> None:
        self.uses[index] -= 1
        if not self.uses[index]:
            self.free.append(self.slots_of[index])

    def _emit(self, index: int) -> int:
        """The slot that holds the plane of a node."""
        if index not in self.slots_of:
            node = self.nodes[index]
            self.rules[node.kind](index, node)
        return self.slots_of[index]

    def _multiple(self, slot: int, value: float | None) -> None:
        self.multiples[slot] = value if self.tangents else 0.0

    def _with_tangents(self, slot: int, size: int) -> None:
        """Write the tangents of a slot that are a multiple of its moments."""
        multiple = self.multiples[slot]
        if not self.tangents or multiple is None:
            return
        last = self.written.get(slot, [])
        if last and self.ops[-1][code.DST] == slot and last[-1] == len(self.ops) - 1:
            for place in last:
                self.ops[place][code.WRITES] = 1
        else:
            arguments = {"SCALE": 1.0, "RATIO": multiple, "WRITES": True}
            self._op(code.AFFINE, size, DST=slot, SRC=slot, **arguments)
        self.multiples[slot] = None

    def _in_place(self, index: int, node: Node, kind: int, *, writes: bool, **arguments: float) -> None:
        """An operation that overwrites its source, or a copy where that is still read."""
        child = node.children[0]
        source = self.slots_of[child]
        multiple = self.multiples[source]
        if writes:
            self._with_tangents(source, node.size)
            multiple = self.multiples[source]
        self._release(child)
        slot = self._take(index)
        tangents = self.tangents and multiple is None
        self._op(kind, node.size, **({"DST": slot, "SRC": source, "WRITES": tangents} | arguments))
        self._multiple(slot, multiple)
        self.written.pop(slot, None)

    def _moved(self, index: int, node: Node, kind: int, *, early: bool = False, **arguments: float) -> None:
        """An operation that needs its source until it is done, or (`early`) not once it begins to write."""
        child = node.children[0]
        source = self._emit(child)
        multiple = self.multiples[source]
        if early:
            self._release(child)
        slot = self._take(index)
        writes = self.tangents and multiple is None
        size = self.nodes[child].size
        self._op(kind, node.size, DST=slot, SRC=source, M=size, WRITES=writes, **arguments)
        if not early:
            self._release(child)
        self._multiple(slot, multiple)
        self.written.pop(slot, None)

    def _joined(self, child: int) -> dict[str, float]:
        """The linear map in front of an activation, taken from the program where it was the last operation."""
        slot = self.slots_of[child]
        if self.own or self.uses[child] > 1 or self.written.get(slot) != [len(self.ops) - 1]:
            return {}
        ints, reals = self.ops[-1], self.pars[-1]
        if ints[code.PLUS] or reals[code.CONSTANT0] or reals[code.CONSTANT_T0]:
            return {}
        self.ops.pop()
        self.pars.pop()
        self.multiples[slot] = None if self.tangents else 0.0
        names = {name: float(reals[getattr(code, name)]) for name in code.LINEAR}
        return {"READS": float(ints[code.READS]), "SRC": float(ints[code.SRC])} | names

    def _behind(self, slot: int, term: Term, numbers: dict[str, float]) -> bool:
        """Whether a linear map could be joined to the activation that was the last operation."""
        last = self.ops[-1]
        if self.own or (last[code.CODE], last[code.DST]) != (code.ACT, slot) or self.uses[term.node] > 1:
            return False
        if numbers.get("CONSTANT0") or numbers.get("CONSTANT_T0"):
            return False
        values = (term.scale, numbers.get("CONSTANT", 0.0), term.scale_t, term.ratio, numbers.get("CONSTANT_T", 0.0))
        for name, value in zip(code.BEHIND, values, strict=True):
            self.pars[-1][getattr(code, name)] = value
        return True

    def _feature(self, key: tuple) -> int:
        """Where a feature lies; the own program works it out when it is first met."""
        place, count = self._kept(key)
        if not self.own:
            self.reads.append((place, count))
            if key not in self.wanted:
                self.wanted.append(key)
            return place
        sources = self.sources_of(key)
        for source in sources:
            self._emit(source)
        if key not in self.done:
            self.done.add(key)
            self._work_out(key, place)
        for source in sources:
            self._release(source)
        return place

    def _kept(self, key: tuple) -> tuple[int, int]:
        """Where a feature begins, and how many numbers it has."""
        what = key[1]
        if key[0] == "weights":
            count = what.heads * what.shape[0] * what.shape[1]
        elif key[0] == "mixed":
            count = what.shape[0] * what.heads * self.layout.widths[key[2]]
        else:
            count = self.nodes[what].size
        return self.layout.keep(key, count), count

    def _work_out(self, key: tuple, place: int) -> None:
        what = key[1]
        if key[0] == "mixed":
            weights, _ = self._kept(("weights", what))
            if ("weights", what) not in self.done:
                self.done.add(("weights", what))
                self._work_out(("weights", what), weights)
            self._op(
                code.MIX, what.shape[0], M=what.shape[1], HEADS=what.heads, AT=place, GIVEN=weights,
                FIRST_AT=self.layout.starts["data", key[2]], COUNT=self.layout.widths[key[2]],
            )  # fmt: skip
            return
        if key[0] == "weights":
            first = self.layout.starts["mask", what.given[0]] if what.given else 0
            waves = self.layout.array(what.waves) if what.waves >= 0 else -1
            source = self.slots_of[what.key] if what.key >= 0 else -1
            self._op(
                code.SCORES, what.shape[0], M=what.shape[1], SRC=source, HEADS=what.heads, AT=place,
                MASK=self.layout.array(what.mask), MASK_GIVEN=first, COUNT=len(what.given), WAVES=waves,
                KIND=what.softmax, SCALE=what.scale,
            )  # fmt: skip
            return
        kind, node = key[:2]
        first, second = (key[2], key[3]) if kind == "norm" else (key[2], 0.0)
        size, slot = self.nodes[node].size, self.slots_of[node]
        self._op(code.VARIANCE, size, SRC=slot, AT=place, KIND=code.KINDS[kind], FIRST=first, SECOND=second)


def split(value: Matrix | None, tangent: Matrix | None) -> dict[str, float] | None:
    """Constants that are one number, and another for equal positions; None where they are not."""
    found: dict[str, float] = {}
    for array, end in ((value, ""), (tangent, "_T")):
        if array is None:
            continue
        apart = float(array[0, 1]) if len(array) > 1 else 0.0
        equal = float(array[0, 0]) - apart
        if not np.allclose(array, apart + equal * np.eye(len(array)), rtol=1e-15, atol=0):
            return None
        names = ("CONSTANT" + end, "CONSTANT0" if not end else "CONSTANT_T0")
        found |= {names[0]: apart, names[1]: equal}
    return found
