"""What a plan is: features of the inputs, operations, displacements; and fields that plans alone know."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from widthwise.kernels._fields import Field, Inputs
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


@dataclass(frozen=True, eq=False)
class Mean(Field):
    """The mean over equal positions, as a field without positions."""

    source: Field
    positions: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Raw(Field):
    """The pixels that a first convolution reads, before it cuts them into patches."""

    node: str
    positions: tuple[int, ...]
    channels: int
