"""What a forecast was asked for, with every default filled in."""

from dataclasses import dataclass
from math import ceil, log2

from widthwise.core import DataError, Value
from widthwise.data import DataSet

DEFAULT_SAMPLES = 4000
DEFAULT_HELD_OUT = 2000
SMALLEST = 30
EXTRAPOLATION = (2, 4, 8)


@dataclass(frozen=True)
class Settings(Value):
    """Settings of a forecast; equal settings and data give equal forecasts on one machine.

    Attributes:
        samples: P, the examples that the forecast may look at.
        held_out: examples on which errors are measured, never seen by the prediction.
        sizes: numbers of examples at which kernel regression is predicted and measured.
        draws: random training sets per size, at most.
        kernel: ``"auto"``, ``"infinite"``, ``"monte-carlo"`` or ``"empirical"``.
        parametrization: of the NTK, see `widthwise.infinite`.
        training_seconds: budget of the training check, zero to leave it out.
        seed: of everything random.
    """

    samples: int
    held_out: int
    sizes: tuple[int, ...]
    draws: int
    kernel: str
    parametrization: str
    training_seconds: float
    seed: int


def default_sizes(samples: int) -> tuple[int, ...]:
    """From 30 (or fewer) by factors of about two up to half of the samples."""
    top = samples // 2
    low = min(SMALLEST, max(2, top // 4))
    steps = max(1, round(log2(max(top / low, 1.0))))
    sizes = {round(low * (top / low) ** (i / steps)) for i in range(steps + 1)}
    return tuple(sorted(size for size in sizes if size >= 2))


def split_sizes(data: DataSet, samples: int | None, held_out: int | None) -> tuple[int, int]:
    """P and the number held out: as asked, or as large as the defaults and the data allow.

    Raises:
        DataError: more is asked for than there is, or too little is left for a forecast.
    """
    total = len(data)
    separate = data.test is not None
    if samples is None:
        samples = min(DEFAULT_SAMPLES, total if separate else ceil(total * 2 / 3))
    if held_out is None:
        spare = len(data.test) if data.test is not None else total - samples
        held_out = min(DEFAULT_HELD_OUT, spare)
    limit = total if separate else total - max(held_out, 1)
    if samples < 8 or held_out < 2:
        raise DataError(
            f"data set {data.name} has {total} examples, of which {samples} to learn from and {held_out} held out; "
            "a forecast needs at least 8 and 2."
        )
    if samples > limit:
        raise DataError(
            f"{samples} samples and {held_out} held out were asked for, but data set {data.name} has {total} examples; "
            f"ask for at most {limit} samples."
        )
    return samples, held_out
