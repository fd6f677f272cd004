"""What a forecast was asked for, with every default filled in."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, isfinite, log2
from typing import get_args

from widthwise.core import DataError, Value
from widthwise.data import DataSet
from widthwise.kernels import Parametrization

DEFAULT_SAMPLES = 4000
DEFAULT_HELD_OUT = 2000
FEWEST_SAMPLES = 64  # exponents and the calibration need leave-one-out errors of several block sizes
FEWEST_HELD_OUT = 2
SMALLEST_SIZE = 30
EXTRAPOLATION = (2, 4, 8)
KERNELS = ("auto", "infinite", "exact", "sampled", "monte-carlo", "empirical")


@dataclass(frozen=True)
class Settings(Value):
    """Settings of a forecast; equal settings and data give equal forecasts on one machine.

    Attributes:
        samples: P, the examples that the forecast may look at.
        held_out: examples on which errors are measured, never seen by the prediction.
        sizes: numbers of examples at which kernel regression is predicted and measured, besides P itself.
        draws: random training sets per size, at most.
        kernel: ``"auto"``, ``"infinite"`` (``"exact"`` or ``"sampled"`` rules), ``"monte-carlo"`` or ``"empirical"``.
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


def read_settings(
    data: DataSet,
    *,
    samples: int | None,
    held_out: int | None,
    sizes: Sequence[int] | None,
    draws: int,
    kernel: str,
    parametrization: str,
    training_seconds: float,
    seed: int,
) -> Settings:
    """Fill in the defaults and check every value, before any work starts.

    Raises:
        DataError: a value is out of range or unknown, or the data set is too small for it.
    """
    _check_one_of("kernel", kernel, KERNELS)
    _check_one_of("parametrization", parametrization, get_args(Parametrization))
    if draws < 1:
        raise DataError(f"draws is {draws}; give at least 1 random training set per size.")
    if seed < 0:
        raise DataError(f"seed is {seed}; give a whole number of at least 0.")
    if not (isfinite(training_seconds) and training_seconds >= 0):
        raise DataError(f"training_seconds is {training_seconds}; give a number of seconds, or 0 for no training.")
    samples, held_out = split_sizes(data, samples, held_out)
    chosen = default_sizes(samples) if sizes is None else _checked_sizes(sizes, samples)
    return Settings(samples, held_out, chosen, draws, kernel, parametrization, float(training_seconds), seed)


def _check_one_of(what: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise DataError(f"{what} '{value}' is not known; give one of {', '.join(known)}.")


def _checked_sizes(sizes: Sequence[int], samples: int) -> tuple[int, ...]:
    if len(sizes) == 0:
        raise DataError("sizes is empty; give numbers of examples, or leave it out.")
    for size in sizes:
        if not 2 <= size <= samples:
            raise DataError(f"size {size} does not fit {samples} samples; give sizes from 2 to {samples}.")
    return tuple(sorted({int(size) for size in sizes} - {samples}))


def default_sizes(samples: int) -> tuple[int, ...]:
    """From 30 (or fewer) by factors of about two up to half of the samples.

    >>> default_sizes(1000)
    (30, 61, 122, 247, 500)
    """
    top = samples // 2
    low = min(SMALLEST_SIZE, max(2, top // 4))
    steps = max(1, round(log2(max(top / low, 1.0))))
    sizes = {round(low * (top / low) ** (i / steps)) for i in range(steps + 1)}
    return tuple(sorted(size for size in sizes if size >= 2))


def one_pool(data: DataSet, samples: int | None, held_out: int | None) -> DataSet:
    """The data without its official test part, if the rest is large enough to hold examples out of it.

    The theory is about test points from where the samples come from, and official test parts often differ a little.
    """
    wanted = (DEFAULT_SAMPLES if samples is None else samples) + (DEFAULT_HELD_OUT if held_out is None else held_out)
    return data if data.test is None or len(data) < wanted else replace(data, test=None)


def split_sizes(data: DataSet, samples: int | None, held_out: int | None) -> tuple[int, int]:
    """P and the number held out: as asked, or as large as the defaults and the data allow.

    Raises:
        DataError: more is asked for than there is, or too little is left for a forecast.
    """
    total, separate = len(data), data.test is not None
    room = total if separate else total - (FEWEST_HELD_OUT if held_out is None else held_out)
    if samples is None:
        wanted = total if separate else max(FEWEST_SAMPLES, ceil(total * 2 / 3))
        samples = max(min(DEFAULT_SAMPLES, wanted, room), 0)
    spare = len(data.test) if data.test is not None else total - samples
    if held_out is None:
        held_out = min(DEFAULT_HELD_OUT, spare)
    if min(total, room) < FEWEST_SAMPLES:
        raise DataError(
            f"data set {data.name} has {total} examples, {max(total - room, 0)} of them held out; a forecast needs at "
            f"least {FEWEST_SAMPLES} samples and {FEWEST_HELD_OUT} held out, so give more data or hold out fewer."
        )
    if samples > room:
        raise DataError(
            f"{samples} samples were asked for, but data set {data.name} has {total} examples; "
            f"ask for at most {room} samples."
        )
    if samples < FEWEST_SAMPLES:
        raise DataError(f"{samples} samples are too few for a forecast; ask for at least {FEWEST_SAMPLES}.")
    if held_out < FEWEST_HELD_OUT:
        raise DataError(f"{held_out} held-out examples are too few to measure on; ask for at least {FEWEST_HELD_OUT}.")
    if held_out > spare:
        raise DataError(
            f"{held_out} held-out examples were asked for, but data set {data.name} has {spare} to hold out; "
            f"ask for at most {spare}."
        )
    return samples, held_out
