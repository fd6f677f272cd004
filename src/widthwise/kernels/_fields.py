"""Random vector families: the lazy expressions that a program becomes when its widths go to infinity.

A `Field` stands for one coordinate of a wide vector at every input and position. Nothing is computed when it is built:
`Evaluator` asks for second moments and tangents of pairs of fields on demand, so that weight sharing, skips and
diagonal-only propagation need no flags (covariance recursion of arXiv:1902.04760).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from widthwise.kernels._contractions import Contraction, Move, Sizes
from widthwise.numerics import Activation
from widthwise.program import Weight


class Field:
    """One coordinate of a wide vector, at every input and at positions of the given sizes.

    Attributes:
        positions: sizes of the position axes, outermost first.
        gaussian: whether all its values over inputs and positions are jointly Gaussian with mean zero.
    """

    positions: Sizes
    gaussian: bool = False


@dataclass(frozen=True, eq=False)
class Inputs(Field):
    """Concrete data with a finite feature axis: the moment of two inputs is their mean product over features.

    Attributes:
        node: name of the data node.
        read: its tensor to ``[n, prod(positions), features]`` (patches, where a convolution reads it).
    """

    node: str
    read: Callable[[Tensor], Tensor]
    positions: Sizes


@dataclass(frozen=True, eq=False)
class Tokens(Field):
    """Rows of a random table, looked up by index (embedding): moment = variance * [same index].

    Attributes:
        node: name of the node that holds the indices.
        batched: whether the indices depend on the inputs.
        padding: the row that is zero and not trained; -1 for none.
    """

    node: str
    weight: Weight
    variance: float | Tensor
    positions: Sizes
    batched: bool = True
    padding: int = -1
    gaussian: bool = True


@dataclass(frozen=True, eq=False)
class Shared(Field):
    """A random parameter vector (bias, positional parameter): the same for every input.

    Attributes:
        own: for each position axis, whether the parameter has an independent entry per position there.
    """

    weight: Weight
    variance: float | Tensor
    positions: Sizes
    own: tuple[bool, ...]
    gaussian: bool = True


@dataclass(frozen=True, eq=False)
class Offset(Field):
    """A constant added to every coordinate; its parameter, if any, is trained (`own` as for `Shared`)."""

    weight: Weight | None
    value: float
    positions: Sizes
    own: tuple[bool, ...] = ()

    @property
    def gaussian(self) -> bool:  # type: ignore[override]
        return self.value == 0.0


@dataclass(frozen=True, eq=False)
class Product(Field):
    """A random matrix times a field: Gaussian, with covariance ``variance * mean over what is contracted``.

    Attributes:
        weight: the matrix (or filter bank); equal weights share their randomness.
        variance: variance of an entry times the number of entries contracted (sigma_w squared).
        contracted: that number (fan-in).
        contraction: how position axes are contracted or moved.
        transposed: whether it is the transpose of what other fields multiply by (only the sampler reads that).
    """

    weight: Weight
    variance: float | Tensor
    contracted: int
    source: Field
    contraction: Contraction
    gaussian: bool = True
    transposed: bool = False

    @property
    def positions(self) -> Sizes:  # type: ignore[override]
        return self.contraction.positions


@dataclass(frozen=True, eq=False)
class Sum(Field):
    """A linear combination of fields with equal positions."""

    terms: tuple[tuple[float, Field], ...]

    @property
    def positions(self) -> Sizes:  # type: ignore[override]
        return self.terms[0][1].positions

    @cached_property
    def gaussian(self) -> bool:  # type: ignore[override]
        return all(term.gaussian for _, term in self.terms)


@dataclass(frozen=True, eq=False)
class Moved(Field):
    """A fixed linear map of the position axes (pooling, slicing, padding, reordering)."""

    source: Field
    move: Move

    @property
    def positions(self) -> Sizes:  # type: ignore[override]
        return self.move.positions

    @property
    def gaussian(self) -> bool:  # type: ignore[override]
        return self.source.gaussian


class Rescaled(Field):
    """A field times numbers that are not random: it keeps its source's positions, and is Gaussian if that is."""

    source: Field

    @property
    def positions(self) -> Sizes:  # type: ignore[override]
        return self.source.positions

    @property
    def gaussian(self) -> bool:  # type: ignore[override]
        return self.source.gaussian


@dataclass(frozen=True, eq=False)
class Normalised(Rescaled):
    """A field divided by the root mean square of a statistic: ``source / sqrt(E statistic^2 + eps)``.

    Attributes:
        pooled: whether the mean also runs over all positions.
    """

    source: Field
    statistic: Field
    eps: float
    pooled: bool


@dataclass(frozen=True, eq=False)
class Centred(Field):
    """A field minus its mean over coordinates (and over positions, if pooled).

    Attributes:
        gaussian: whether the source is a Gaussian field plus a constant.
    """

    source: Field
    pooled: bool
    gaussian: bool = False

    @property
    def positions(self) -> Sizes:  # type: ignore[override]
        return self.source.positions


@dataclass(frozen=True, eq=False)
class Gained(Rescaled):
    """A field times a trained vector whose entries all start at one value."""

    source: Field
    weight: Weight
    value: float


@dataclass(frozen=True, eq=False)
class Image(Field):
    """An activation of a Gaussian field: its moments are V-transforms."""

    activation: Activation
    source: Field

    @property
    def positions(self) -> Sizes:  # type: ignore[override]
        return self.source.positions


@dataclass(frozen=True, eq=False)
class Local(Field):
    """Any elementwise function of fields at the same input and position: its moments are sampled."""

    function: Callable[..., Tensor]
    sources: tuple[Field, ...]
    name: str

    @property
    def positions(self) -> Sizes:  # type: ignore[override]
        return self.sources[0].positions


@dataclass(frozen=True, eq=False)
class Concat(Field):
    """Coordinates that fall into blocks of different law; `fractions` of the width, summing to one."""

    parts: tuple[Field, ...]
    fractions: tuple[float, ...]

    @property
    def positions(self) -> Sizes:  # type: ignore[override]
        return self.parts[0].positions

    @cached_property
    def gaussian(self) -> bool:  # type: ignore[override]
        return all(part.gaussian for part in self.parts)


def combine(terms: list[tuple[float, Field]]) -> Field:
    """Linear combination, flattened; distributes over concatenations."""
    if len(terms) == 1 and terms[0][0] == 1.0:
        return terms[0][1]
    flat: dict[int, tuple[float, Field]] = {}
    for scale, term in terms:
        for inner, field in term.terms if isinstance(term, Sum) else ((1.0, term),):
            before = flat.get(id(field), (0.0, field))[0]
            flat[id(field)] = (before + scale * inner, field)
    kept = [pair for pair in flat.values() if pair[0] != 0.0] or [(0.0, terms[0][1])]
    concat = next((field for _, field in kept if isinstance(field, Concat)), None)
    if concat is not None:
        return _combine_blocks(kept, concat)
    if len(kept) == 1 and kept[0][0] == 1.0:
        return kept[0][1]
    return Sum(tuple(kept))


def _combine_blocks(terms: list[tuple[float, Field]], like: Concat) -> Field:
    def part(field: Field, index: int) -> Field:
        if not isinstance(field, Concat):
            return field
        if field.fractions != like.fractions:
            raise ValueError("sum of concatenations that are split at different places")
        return field.parts[index]

    blocks = [combine([(scale, part(field, i)) for scale, field in terms]) for i in range(len(like.parts))]
    return Concat(tuple(blocks), like.fractions)


def blockwise(function: Callable[[Field], Field], field: Field) -> Field:
    """Apply `function` to a field, or to each block of a concatenation."""
    if isinstance(field, Concat):
        return Concat(tuple(function(part) for part in field.parts), field.fractions)
    return function(field)
