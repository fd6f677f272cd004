"""The operations that compute each field of a stage."""

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
from widthwise.kernels.engines import _codes as code
from widthwise.kernels.engines._maps import Unfit
from widthwise.kernels.engines._plan_rules import convolution, resizes, transform_of, variance_of
from widthwise.kernels.engines._plan_stages import Stage, Stages
from widthwise.kernels.engines._plan_types import Contribution, Feature, Raw, Terms


class Operations(Stages):
    """Writes operations; their results are in slots."""

    def __init__(self, contribution: Contribution) -> None:
        super().__init__(contribution)
        self.features: list[Feature] = []
        self.known_features: dict[tuple, int] = {}
        self.given: list[Inputs] = []
        self.offset_tangents = False

    def _emit(self, u: Field, level: int) -> int:
        """The slot that holds the state of `u` in stage `level`."""
        stage = self.stages[level]
        if id(u) in stage.slots:
            return stage.slots[id(u)]
        if self.boundary(u):
            return self._load(u, stage)
        if isinstance(u, (Inputs, Raw)):
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

    def _load(self, u: Field, stage: Stage) -> int:
        slot = self._take(stage, u)
        index, where = self.buffers[id(u)]
        self._op(stage, code.LOAD, u, DST=slot, INDEX=index, WHERE=max(where, 0))
        if isinstance(u, Product):
            ratio = self._ratio(u)
            self._op(
                stage, code.AFFINE, u, DST=slot, SRC=slot, SCALE=variance_of(u), SCALE_T=variance_of(u), RATIO=ratio
            )
        return slot

    def _data(self, u: Inputs | Raw, stage: Stage) -> int:
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

    def _copy(self, u: Field, stage: Stage, source: int, kind: int, **arguments: float) -> None:
        self._release(self.children(u)[0], stage)
        slot = self._take(stage, u)
        self._op(stage, kind, u, DST=slot, SRC=source, **arguments)

    def _activation(self, u: Image) -> dict[str, float]:
        """Which row function, its parameters and where its features are."""
        found, sites = transform_of(u.activation), prod(u.source.positions)
        rate = found.first if found.phi == code.SIN else 0.0
        names: dict[str, float] = {"PHI": found.phi, "FIRST": found.first, "SECOND": found.second}
        for name, kind in zip(("FEATURE", "FEATURE2"), found.features, strict=False):
            names[name] = self._feature(kind, u.source, sites, rate)
        return names

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
                if fused and resizes(arguments):
                    slot = self._take(stage, u)
                    self._release(inner, stage)
                else:
                    self._release(inner, stage)
                    slot = self._take(stage, u)
            else:
                self._release(inner, stage)
            empty = isinstance(inner, (Inputs, Raw))
            self._op(stage, kind, u, DST=slot, SRC=source, PLUS=number > 0, NO_TANGENT=empty, **arguments)
        return slot

    def _step(self, scale: float, term: Field, fused: bool) -> tuple[int, dict[str, float]]:
        square = scale * scale
        if not fused:
            return code.AFFINE, {"SCALE": square, "SCALE_T": square}
        assert isinstance(term, Product)
        ratio = self._ratio(term)
        if term.contraction.key[0] == "pointwise":
            value = square * variance_of(term)
            return code.AFFINE, {"SCALE": value, "SCALE_T": value, "RATIO": ratio}
        if term.contraction.key[0] not in ("convolved", "patches"):
            raise Unfit(f"contraction {term.contraction.key[0]}")
        source, _, kernel, stride, padding, dilation = convolution(term)
        value = square * variance_of(term) / prod(kernel)
        names = ("SH", "SW", "KY", "KX", "SY", "SX", "PY", "PX", "DY", "DX")
        numbers = (*source, *kernel, *stride, *padding, *dilation)
        geometry = dict(zip(names, numbers, strict=True))
        return code.CONV, {"SCALE": value, "SCALE_T": value, "RATIO": ratio, **geometry}

    def _ratio(self, u: Product) -> float:
        own = self.contribution(u.weight, variance_of(u), u.contracted)
        if own and not u.variance:
            raise Unfit("a trained matrix of variance zero")
        return own / variance_of(u) if own else 0.0

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
            name = source.node if isinstance(source, Raw) else source
            self.features.append(Feature(kind, name, places, at, rate))
            self.known_features[key] = at
        return self.known_features[key]
