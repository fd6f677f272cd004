"""What a limit says of itself: the rule of each node, and what counts as trained."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from widthwise.core import DataError, Value
from widthwise.kernels._evaluator import Contribution
from widthwise.kernels._fields import Concat, Moved
from widthwise.kernels._fields_attention import Attended
from widthwise.kernels._registry import Several

Parametrization = Literal["ntk", "plain", "standard"]


@dataclass(frozen=True)
class CertificateRow(Value):
    """How one node was read: ``exact``, ``quadrature`` (relative error), ``sampled`` (relative standard error) or
    ``concrete`` (computed on the data itself, no random weight involved)."""

    node: str
    op: str
    module_path: str
    rule: str
    error: float


def contribution_of(parametrization: Parametrization) -> Contribution:
    """What a trained weight's own term in the NTK is multiplied by.

    ``ntk``: W = sigma w / sqrt(fan-in) with w trained: sigma^2 (constants at initialisation are not trained);
    ``plain``: W' with W = W' / sqrt(fan-in) trained: 1; ``standard``: W itself trained: fan-in.
    """
    factors: dict[str, Callable[[float | Tensor, int], float | Tensor]] = {
        "ntk": lambda variance, fan_in: variance,
        "plain": lambda variance, fan_in: 1.0,
        "standard": lambda variance, fan_in: float(fan_in),
    }
    if parametrization not in factors:
        raise DataError(f"parametrization {parametrization!r} is not one of {', '.join(factors)}.")
    factor = factors[parametrization]
    return lambda weight, variance, fan_in: factor(variance, fan_in) if weight.value.requires_grad else 0.0


def parts_of(value: object) -> list[object]:
    """A lowered value and what it is put together from, where each part is read by itself."""
    inner = value.results if isinstance(value, Several) else getattr(value, "parts", ())
    return [value, *(found for part in inner for found in parts_of(part))]


def rule_mixes(value: object) -> bool:
    """Whether a lowered value is a position map that is no copy of positions."""
    parts = value.parts if isinstance(value, Concat) else (value,)
    return any(isinstance(part, Attended) or (isinstance(part, Moved) and not part.move.gathers) for part in parts)
