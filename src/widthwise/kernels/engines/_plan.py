"""From a graph of fields to a plan: the operations of the fused engine, stage by stage."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod

import numpy as np
import torch

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
from widthwise.kernels.engines import _codes as code
from widthwise.kernels.engines._maps import Grid, PositionMap, Shift, Unfit, all_shifts, grid_of, position_map
from widthwise.numerics import Activation
from widthwise.program import Weight

Contribution = Callable[[Weight, float, int], float]
Terms = tuple[tuple[float, Field], ...]


@dataclass(frozen=True)
class Feature:
    """One array that every input brings along: ``[n, rows * positions]``.

    Attributes:
        kind: ``raw`` (pixels of a data node), ``read`` (what an `Inputs` field reads), ``norm`` (scale of a
            normalisation) or what an activation needs of the variance of its source.
        source: the data node or the field.
        places: numbers per input.
    """

    kind: str
    source: str | Field
    places: int
    at: int
    rate: float = 0.0


@dataclass
class Plan:
    """What the fused engine does for one tile; made by `compile_plan`.

    Attributes:
        outputs: how many fields are evaluated.
        features: arrays that every input brings along.
        given: fields whose covariances between inputs are computed beforehand, as matrix products.
        places: numbers per input in all features.
        work: planes times positions touched per pair, summed over operations: a measure of cost.
    """

    outputs: int
    ops: np.ndarray
    pars: np.ndarray
    starts: np.ndarray
    shifts: np.ndarray
    shift_starts: np.ndarray
    where: np.ndarray
    lists: np.ndarray
    weights: np.ndarray
    features: tuple[Feature, ...]
    given: tuple[Inputs, ...]
    area: int
    buffer: int
    longest: int
    ring: int
    sums: int
    zero_tangents: bool
    work: float = 0.0

    @property
    def places(self) -> int:
        return sum(feature.places for feature in self.features)


def compile_plan(*outputs: Field, contribution: Contribution) -> Plan | None:
    """A plan for the moments and tangents of fields with themselves, None where the fused engine does not fit.

    Args:
        outputs: fields to evaluate; those with positions give their mean over equal positions.
        contribution: how much a trained parameter adds to the tangent kernel.
    """
    try:
        return _Compiler(contribution).compile(outputs)
    except Unfit:
        return None


@dataclass(frozen=True, eq=False)
class _Mean(Field):
    """The mean over equal positions, as a field without positions."""

    source: Field
    positions: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class _Raw(Field):
    """The pixels that a first convolution reads, before it cuts them into patches."""

    node: str
    positions: tuple[int, ...]
    channels: int


@dataclass
class _Stage:
    """Operations on one displacement at a time."""

    ops: list[np.ndarray] = field(default_factory=list)
    pars: list[np.ndarray] = field(default_factory=list)
    multiple: dict[int, Shift] = field(default_factory=dict)
    uses: Counter = field(default_factory=Counter)
    slots: dict[int, int] = field(default_factory=dict)
    free: list[int] = field(default_factory=list)
    taken: int = 0
    shifts: set[Shift] = field(default_factory=set)


class _Compiler:
    def __init__(self, contribution: Contribution) -> None:
        self.contribution = contribution
        self.stages: list[_Stage] = []
        self.features: list[Feature] = []
        self.known_features: dict[tuple, int] = {}
        self.given: list[Inputs] = []
        self.maps: dict[int, PositionMap | None] = {}
        self.levels: dict[int, int] = {}
        self.raws: dict[tuple[str, tuple[int, ...]], _Raw] = {}
        self.read: dict[int, list[Field]] = {}
        self.sums: dict[int, Terms] = {}
        self.boundaries: dict[int, Field] = {}
        self.buffers: dict[int, tuple[int, int]] = {}
        self.where: list[int] = []
        self.lists: list[int] = []
        self.weights: list[float] = []
        self.buffer = 0
        self.total_sums = 0
        self.slot_size = 1
        self.kept: list[Field] = []
        self.offset_tangents = False
        self.seen_sums: list[Sum] = []

    # -- structure ---------------------------------------------------------------------------------------------------

    def children(self, u: Field) -> list[Field]:
        """Fields whose states the state of `u` is made from; constants are not among them."""
        if id(u) not in self.read:
            self.kept.append(u)
            self.read[id(u)] = self._children(u)
        return self.read[id(u)]

    def _children(self, u: Field) -> list[Field]:
        if isinstance(u, (Inputs, _Raw)):
            return []
        if isinstance(u, Product):
            if u.contraction.key[0] == "flattened" and u.positions:
                raise Unfit("a matrix that contracts some of the positions")
            _variance(u)
            return [self._patched(u)]
        if isinstance(u, Sum):
            return [term for _, term in self._terms(u) if not isinstance(term, (Shared, Offset))]
        if isinstance(u, Concat):
            return list(u.parts)
        if isinstance(u, (Image, Moved, Gained, Normalised, _Mean)):
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
            raw = _Raw(u.source.node, image, u.contracted // prod(key[1]))
            self.raws[u.source.node, image] = raw
        return raw

    def _terms(self, u: Sum) -> Terms:
        """The terms of a sum, those of an earlier sum replaced by that sum."""
        if id(u) not in self.sums:
            _check_independent(u)
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
        return isinstance(u, _Mean) or (isinstance(u, Product) and u.contraction.key[0] == "flattened")

    def level(self, u: Field) -> int:
        """The stage that `u` belongs to."""
        if id(u) not in self.levels:
            below = max((self.level(child) for child in self.children(u)), default=0)
            self.levels[id(u)] = below + self.boundary(u)
        return self.levels[id(u)]

    # -- compilation -------------------------------------------------------------------------------------------------

    def compile(self, outputs: tuple[Field, ...]) -> Plan:
        roots = [_Mean(u) if u.positions else u for u in outputs]
        self.kept += roots
        top = max(self.level(u) for u in roots)
        self.stages = [_Stage() for _ in range(top + 1)]
        self.stages[top].shifts = {(0, 0)}
        for u in roots:
            self._visit(u, top, (1, 1))
        for level in range(top, -1, -1):
            self._wanted(level)
        for level in range(top + 1):
            for u in [u for u in self.boundaries.values() if self.levels[id(u)] == level + 1]:
                self._close(u, level)
        last = self.stages[top]
        for index, u in enumerate(roots):
            slot = self._emit(u, top)
            self._op(last, code.OUT, u, SRC=slot, INDEX=index)
        return self._plan(len(outputs))

    def _visit(self, u: Field, level: int, multiple: Shift) -> None:
        """Note uses and displacement multiples of everything that stage `level` computes for `u`."""
        stage = self.stages[level]
        stage.uses[id(u)] += 1
        known = stage.multiple.setdefault(id(u), multiple)
        if known != multiple:
            raise Unfit("branches of different stride are joined")
        if stage.uses[id(u)] > 1:
            return
        if self.boundary(u):
            self.levels.setdefault(id(u), level)
            if id(u) not in self.boundaries:
                self.boundaries[id(u)] = u
                self._visit(self.children(u)[0], self.level(u) - 1, (1, 1))
            return
        stride = (1, 1)
        if isinstance(u, Product) and u.contraction.key[0] in ("convolved", "patches"):
            stride = _convolution(u)[3]
        inner = (multiple[0] * stride[0], multiple[1] * stride[1])
        for child in self.children(u):
            self._visit(child, level, inner)

    def _wanted(self, level: int) -> None:
        """Displacements that the stage below needs for what `level` loads."""
        stage = self.stages[level]
        for key, u in self.boundaries.items():
            if key not in stage.multiple:
                continue
            my, mx = stage.multiple[key]
            below = self.stages[self.levels[key] - 1]
            shifts = {(my * dy, mx * dx) for dy, dx in stage.shifts} & all_shifts(grid_of(u.positions))
            if isinstance(u, Moved):
                found = self.maps[key]
                assert found is not None
                below.shifts |= found.needed(shifts)
            else:
                below.shifts.add((0, 0))
            self._reserve(u, shifts)

    def _reserve(self, u: Field, shifts: set[Shift]) -> None:
        """Room for the planes of a boundary: a sum per lane, or one plane per displacement."""
        grid = grid_of(u.positions)
        if not isinstance(u, Moved) or (self.maps[id(u)].reduces is not None):  # type: ignore[union-attr]
            if id(u) not in self.buffers:
                self.buffers[id(u)] = (self.total_sums, -1)
                self.total_sums += 1
            return
        if id(u) in self.buffers:
            raise Unfit("a pooled field is read in two stages")
        table = np.full((2 * grid[0] - 1, 2 * grid[1] - 1), -1, np.int64)
        for dy, dx in sorted(shifts):
            table[dy + grid[0] - 1, dx + grid[1] - 1] = self.buffer
            self.buffer += (grid[0] - abs(dy)) * (grid[1] - abs(dx))
        self.buffers[id(u)] = (-1, len(self.where))
        self.where += table.ravel().tolist()

    def _close(self, u: Field, level: int) -> None:
        """The operation that ends a stage for a boundary."""
        stage = self.stages[level]
        source = self.children(u)[0]
        slot = self._emit(source, level)
        index, where = self.buffers[id(u)]
        sites = prod(source.positions)
        if not isinstance(u, Moved):
            self._op(stage, code.FLAT, source, SRC=slot, INDEX=index, SCALE=1.0 / sites)
        elif index >= 0:
            weight = self.maps[id(u)].reduces  # type: ignore[union-attr]
            assert weight is not None
            self._op(stage, code.REDUCE, source, SRC=slot, INDEX=index, SCALE=weight * weight)
        else:
            found = self.maps[id(u)]
            assert found is not None
            rows, columns = self._targets(found.rows.matrix), self._targets(found.columns.matrix)
            target = dict(zip(("TH", "TW"), found.target, strict=True))
            self._op(stage, code.SCATTER, source, SRC=slot, WHERE=where, ROWS=rows, COLUMNS=columns, **target)
        self._release(source, stage)

    def _targets(self, matrix: np.ndarray) -> int:
        """Lists of the targets of each source position of one axis; returns where they start."""
        start, count = len(self.lists), matrix.shape[1]
        columns = [np.flatnonzero(column) for column in matrix.T]
        ends = np.cumsum([0, *(len(c) for c in columns)]) + start + count + 1
        self.lists += [int(end) for end in ends] + [int(target) for c in columns for target in c]
        self.weights += [0.0] * (count + 1) + [float(matrix[t, s]) for s, c in enumerate(columns) for t in c]
        return start

    # -- operations --------------------------------------------------------------------------------------------------

    def _op(self, stage: _Stage, kind: int, u: Field, **arguments: float) -> None:
        """Append an operation; grid and multiple are those of `u`."""
        ints, reals = np.zeros(code.INTS, np.int64), np.zeros(code.REALS)
        ints[code.CODE], ints[code.PHI] = kind, -1
        ints[code.H], ints[code.W] = grid_of(u.positions)
        ints[code.MY], ints[code.MX] = stage.multiple.get(id(u), (1, 1))
        for name, value in arguments.items():
            place = getattr(code, name)
            if name in code.REAL_NAMES:
                reals[place] = value
            else:
                ints[place] = value
        stage.ops.append(ints)
        stage.pars.append(reals)

    def _take(self, stage: _Stage, u: Field) -> int:
        self.slot_size = max(self.slot_size, prod(grid_of(u.positions)))
        if not stage.free:
            stage.free.append(stage.taken)
            stage.taken += 1
        slot = stage.free.pop()
        stage.slots[id(u)] = slot
        return slot

    def _release(self, u: Field, stage: _Stage) -> None:
        stage.uses[id(u)] -= 1
        if not stage.uses[id(u)]:
            stage.free.append(stage.slots[id(u)])

    def _emit(self, u: Field, level: int) -> int:
        """The slot that holds the state of `u` in stage `level`."""
        stage = self.stages[level]
        if id(u) in stage.slots:
            return stage.slots[id(u)]
        if self.boundary(u):
            return self._load(u, stage)
        if isinstance(u, (Inputs, _Raw)):
            return self._data(u, stage)
        if isinstance(u, Image):
            return self._image(u, level)
        if isinstance(u, Normalised):
            return self._rowwise(u, level, code.NORM, FEATURE=self._feature("norm", u, prod(u.positions)))
        terms: Terms = (
            self._terms(u) if isinstance(u, Sum)
            else tuple((c**0.5, part) for c, part in zip(u.fractions, u.parts, strict=True)) if isinstance(u, Concat)
            else ((self._gain(u), u.source),) if isinstance(u, Gained)
            else ((1.0, u.source),) if isinstance(u, Moved)
            else ((1.0, u),)
        )  # fmt: skip
        return self._linear(u, terms, level)

    def _gain(self, u: Gained) -> float:
        if self.contribution(u.weight, 0.0, 1):
            raise Unfit("a trained gain vector")
        return u.value

    def _load(self, u: Field, stage: _Stage) -> int:
        slot = self._take(stage, u)
        index, where = self.buffers[id(u)]
        self._op(stage, code.LOAD, u, DST=slot, INDEX=index, WHERE=max(where, 0))
        if isinstance(u, Product):
            ratio = self._ratio(u)
            self._op(stage, code.AFFINE, u, DST=slot, SRC=slot, SCALE=_variance(u), SCALE_T=_variance(u), RATIO=ratio)
        return slot

    def _data(self, u: Inputs | _Raw, stage: _Stage) -> int:
        slot = self._take(stage, u)
        if isinstance(u, Inputs) and not u.positions:
            self.given.append(u)
            self._op(stage, code.GIVEN, u, DST=slot, INDEX=len(self.given) - 1)
            return slot
        if isinstance(u, Inputs):
            raise Unfit("positions that a first layer reads by itself")
        feature = self._feature("raw", u, u.channels * prod(u.positions))
        self._op(stage, code.RAW, u, DST=slot, FEATURE=feature, CHANNELS=u.channels, SCALE=1.0 / u.channels)
        return slot

    def _image(self, u: Image, level: int) -> int:
        """An activation: joined to the operation that computes its source, if nothing else reads that."""
        stage = self.stages[level]
        phi = self._activation(u)
        slot = self._emit(u.source, level)
        alone = stage.uses[id(u.source)] == 1
        if alone and stage.ops[-1][code.CODE] in (code.CONV, code.AFFINE) and stage.ops[-1][code.DST] == slot:
            stage.slots[id(u)] = slot
            stage.uses[id(u.source)] -= 1
        else:
            self._copy(u, stage, slot, code.ACT)
        for name, value in phi.items():
            target = stage.pars if name in code.REAL_NAMES else stage.ops
            target[-1][getattr(code, name)] = value
        return stage.slots[id(u)]

    def _rowwise(self, u: Field, level: int, kind: int, **arguments: float) -> int:
        slot = self._emit(self.children(u)[0], level)
        self._copy(u, self.stages[level], slot, kind, **arguments)
        return self.stages[level].slots[id(u)]

    def _copy(self, u: Field, stage: _Stage, source: int, kind: int, **arguments: float) -> None:
        self._release(self.children(u)[0], stage)
        slot = self._take(stage, u)
        self._op(stage, kind, u, DST=slot, SRC=source, **arguments)

    def _activation(self, u: Image) -> dict[str, float]:
        """Which row function, its parameters and where its features are."""
        phi, sites = u.activation, prod(u.source.positions)
        slopes = abrelu_slopes(phi)
        if slopes is not None:
            first, second = (self._feature(kind, u.source, sites) for kind in ("std", "inverse_std"))
            names = {"FIRST": slopes[0], "SECOND": slopes[1]}
            return {"PHI": code.ABRELU, "FEATURE": first, "FEATURE2": second, **names}
        if phi.name == "erf":
            return {"PHI": code.ERF, "FEATURE": self._feature("erf", u.source, sites)}
        if phi.name == "gelu":
            first, second = (self._feature(kind, u.source, sites) for kind in ("variance", "gelu"))
            return {"PHI": code.GELU, "FEATURE": first, "FEATURE2": second}
        if phi.name.startswith("sin("):
            rate, swing = sine(phi)
            feature = self._feature("half", u.source, sites, rate)
            return {"PHI": code.SIN, "FEATURE": feature, "FIRST": rate, "SECOND": swing}
        raise Unfit(f"activation {phi.name}")

    def _linear(self, u: Field, terms: Terms, level: int) -> int:
        """A linear combination of products, other fields and constants, written into one slot."""
        stage = self.stages[level]
        planes = [(scale, term) for scale, term in terms if not isinstance(term, (Shared, Offset))]
        if not planes:
            raise Unfit("a sum of constants")
        constants = self._constants([(scale, term) for scale, term in terms if isinstance(term, (Shared, Offset))])
        steps = []
        for scale, term in planes:
            fused = isinstance(term, Product) and not self.boundary(term)
            fused = fused and id(term) not in stage.slots and (term is u or stage.uses[id(term)] == 1)
            inner = self.children(term)[0] if fused else term
            steps.append((scale, term, inner, self._emit(inner, level), fused))
        slot = -1
        for number, (scale, term, inner, source, fused) in enumerate(steps):
            kind, arguments = self._step(scale, term, fused)
            if not number:
                arguments.update(constants)
                if fused and _resizes(arguments):
                    slot = self._take(stage, u)
                    self._release(inner, stage)
                else:
                    self._release(inner, stage)
                    slot = self._take(stage, u)
            else:
                self._release(inner, stage)
            empty = isinstance(inner, (Inputs, _Raw))
            self._op(stage, kind, u, DST=slot, SRC=source, PLUS=number > 0, NO_TANGENT=empty, **arguments)
        return slot

    def _step(self, scale: float, term: Field, fused: bool) -> tuple[int, dict[str, float]]:
        square = scale * scale
        if not fused:
            return code.AFFINE, {"SCALE": square, "SCALE_T": square}
        assert isinstance(term, Product)
        ratio = self._ratio(term)
        if term.contraction.key[0] == "pointwise":
            value = square * _variance(term)
            return code.AFFINE, {"SCALE": value, "SCALE_T": value, "RATIO": ratio}
        if term.contraction.key[0] not in ("convolved", "patches"):
            raise Unfit(f"contraction {term.contraction.key[0]}")
        source, _, kernel, stride, padding, dilation = _convolution(term)
        value = square * _variance(term) / prod(kernel)
        names = ("SH", "SW", "KY", "KX", "SY", "SX", "PY", "PX", "DY", "DX")
        numbers = (*source, *kernel, *stride, *padding, *dilation)
        geometry = dict(zip(names, numbers, strict=True))
        return code.CONV, {"SCALE": value, "SCALE_T": value, "RATIO": ratio, **geometry}

    def _ratio(self, u: Product) -> float:
        own = self.contribution(u.weight, _variance(u), u.contracted)
        if own and not u.variance:
            raise Unfit("a trained matrix of variance zero")
        return own / _variance(u) if own else 0.0

    def _constants(self, terms: list[tuple[float, Field]]) -> dict[str, float]:
        found = {"CONSTANT": 0.0, "CONSTANT_T": 0.0, "CONSTANT0": 0.0, "CONSTANT_T0": 0.0}
        for scale, term in terms:
            assert isinstance(term, (Shared, Offset))
            own = [flag for flag, size in zip(term.own, term.positions, strict=True) if size > 1]
            if any(own) and not all(own):
                raise Unfit("a parameter with entries for some position axes")
            end = "0" if own and all(own) else ""
            variance = term.variance if isinstance(term, Shared) else 0.0
            if not isinstance(variance, float):
                raise Unfit("a variance that is differentiated")
            if isinstance(term, Offset) and term.value:
                raise Unfit("a constant")
            tangent = self.contribution(term.weight, variance, 1) if term.weight is not None else 0.0
            self.offset_tangents |= bool(tangent) and not variance
            found["CONSTANT" + end] += scale * scale * variance
            found["CONSTANT_T" + end] += scale * scale * tangent
        return found

    def _feature(self, kind: str, source: Field, places: int, rate: float = 0.0) -> int:
        key = (kind, id(source), rate)
        if key not in self.known_features:
            at = sum(feature.places for feature in self.features)
            name = source.node if isinstance(source, _Raw) else source
            self.features.append(Feature(kind, name, places, at, rate))
            self.known_features[key] = at
        return self.known_features[key]

    # -- result ------------------------------------------------------------------------------------------------------

    def _plan(self, outputs: int) -> Plan:
        ops = np.array([op for stage in self.stages for op in stage.ops])
        slots = max(stage.taken for stage in self.stages)
        for name in (code.DST, code.SRC):
            ops[:, name] *= self.slot_size
        shifts = [sorted(stage.shifts) for stage in self.stages]
        work = sum(
            float(max(0, op[code.H] - abs(dy * op[code.MY])) * max(0, op[code.W] - abs(dx * op[code.MX])))
            for stage, found in zip(self.stages, shifts, strict=True)
            for op in stage.ops
            for dy, dx in found
            if op[code.CODE] in (code.CONV, code.ACT) or op[code.PHI] >= 0
        )
        return Plan(
            outputs, ops, np.array([par for stage in self.stages for par in stage.pars]),
            np.cumsum([0, *(len(stage.ops) for stage in self.stages)]),
            np.array([shift for found in shifts for shift in found], np.int64).reshape(-1, 2),
            np.cumsum([0, *(len(found) for found in shifts)]),
            np.array(self.where or [0], np.int64), np.array(self.lists or [0], np.int64),
            np.array(self.weights or [0.0]), tuple(self.features), tuple(self.given),
            slots * self.slot_size, max(1, self.buffer), int(ops[:, (code.W, code.SW)].max()),
            int(((ops[:, code.KY] - 1) * ops[:, code.DY]).max()) + 2 if len(ops) else 2,
            max(1, self.total_sums), self.offset_tangents, work,
        )  # fmt: skip


def _convolution(u: Product) -> tuple[Grid, Grid, Grid, Grid, Grid, Grid]:
    """Source grid, result grid, kernel, stride, padding before and dilation of a convolution, two axes each."""
    key = u.contraction.key
    if key[0] == "patches":
        _, kernel, stride, padding, dilation, image = key
    else:
        _, image, kernel, stride, padding, dilation = key
    if len(image) > 2:
        raise Unfit("a convolution over three axes")
    missing = 2 - len(image)

    def whole(sizes: tuple[int, ...], fill: int) -> Grid:
        first, second = (fill,) * missing + tuple(sizes)
        return first, second

    before = tuple(pad[0] for pad in padding)
    if any(size < 2 for size in image) or any(first != last for first, last in padding):
        raise Unfit("an image axis of size one, or padding that differs between sides")
    result = grid_of(u.positions)
    if missing == 0 and len(u.positions) != 2:
        raise Unfit("an image axis of size one")
    return whole(image, 1), result, whole(kernel, 1), whole(stride, 1), whole(before, 0), whole(dilation, 1)


def _variance(u: Product) -> float:
    if not isinstance(u.variance, float):
        raise Unfit("a variance that is differentiated")
    return u.variance


def _resizes(arguments: dict[str, float]) -> bool:
    """Whether a convolution's result cannot overwrite its source."""
    if "KY" not in arguments:
        return False
    same = all(2 * arguments["P" + a] == (arguments["K" + a] - 1) * arguments["D" + a] for a in "YX")
    return not same or arguments["SY"] != 1 or arguments["SX"] != 1


def abrelu_slopes(phi: Activation) -> tuple[float, float] | None:
    """Slopes below and above zero of the piecewise linear activations with a kink at zero, None for others."""
    if phi.name != "identity" and not phi.name.startswith(("relu", "leaky_relu(", "abrelu(", "absolute")):
        return None
    if phi.name.startswith("relu6"):
        return None
    at = phi.function(torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64))
    return (-float(at[0]), float(at[2])) if float(at[1]) == 0.0 else None


def sine(phi: Activation) -> tuple[float, float]:
    """w^2 and cos(2 phase) of sin(w x + phase)."""
    zero = torch.zeros((), dtype=torch.float64)
    rate = 1.0 / phi.scale
    value, slope = float(phi.function(zero)), float(phi.derivative(zero)) / rate
    return rate * rate, slope * slope - value * value


def _check_independent(u: Sum) -> None:
    """The terms of a sum have no cross moments: at most one is no Gaussian, and no two share a matrix.

    Raises:
        Unfit: they might.
    """
    seen: set[str] = set()
    images = 0
    for _, term in u.terms:
        if isinstance(term, Offset):
            if term.value:
                raise Unfit("a constant")
            continue
        images += not term.gaussian
        own = _atoms(term)
        if own & seen:
            raise Unfit("terms of a sum that share a matrix")
        seen |= own
    if images > 1:
        raise Unfit("a sum of two activations")


def _atoms(u: Field) -> set[str]:
    """Names of the matrices and vectors whose randomness a field carries, above the last matrix."""
    if isinstance(u, (Product, Shared)):
        return {u.weight.name}
    if isinstance(u, Offset):
        return {u.weight.name} if u.weight is not None else set()
    if isinstance(u, Sum):
        return {name for _, term in u.terms for name in _atoms(term)}
    if isinstance(u, Concat):
        return {name for part in u.parts for name in _atoms(part)}
    if isinstance(u, (Image, Moved, Gained, Normalised)):
        return _atoms(u.source)
    raise Unfit(type(u).__name__)
