"""Ordered, critical or chaotic: how a small difference between inputs grows through a network's layers."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from widthwise.core import Value
from widthwise.kernels._fields import Field, Image, Local
from widthwise.kernels._fields_batch import BatchImage
from widthwise.kernels._limit import Limit
from widthwise.kernels._stations import entries
from widthwise.kernels._walks import children
from widthwise.program import Weight

CRITICAL_BAND = 0.05


@dataclass(frozen=True)
class Susceptibility(Value):
    """Growth of a small perturbation between the first and the last preactivations.

    Attributes:
        chi: factor per nonlinear layer in mean square, geometric mean over depth; None for fewer than two.
        depth: nonlinear layers between the two.
        verdict: ``"ordered"`` (chi < 0.95), ``"critical"``, ``"chaotic"`` (chi > 1.05), or ``"unknown"``.
    """

    chi: float | None
    depth: int
    verdict: Literal["ordered", "critical", "chaotic", "unknown"]


def susceptibility(limit: Limit, x: Tensor) -> Susceptibility:
    """chi of a network at initialisation, averaged over inputs (arXiv:1611.01232, equation 5, for any program).

    A perturbation that starts in the first layer's preactivations is carried through every later weight and activation
    with the rules of the tangent kernel, with no other weight adding to it.

    >>> import torch, widthwise as ww
    >>> linear = torch.nn.Linear
    >>> net = torch.nn.Sequential(linear(4, 64), torch.nn.ReLU(), linear(64, 64), torch.nn.ReLU(), linear(64, 1))
    >>> program = ww.trace(net, torch.randn(2, 4))
    >>> susceptibility(ww.infinite(program, weight_std=2**0.5, bias_std=0.0), torch.randn(8, 4)).verdict
    'critical'
    """
    if limit.method == "sampled":
        return Susceptibility(None, 0, "unknown")
    nonlinear = [f for f in limit.fields() if isinstance(f, (Image, Local, BatchImage))]
    if not nonlinear:
        return Susceptibility(None, 0, "unknown")
    last = nonlinear[-1]
    source = last.source if isinstance(last, Image) else last.core.source if isinstance(last, BatchImage) else last
    found = entries(source)
    depth = _depth(source)
    if depth == 0 or not found:
        return Susceptibility(None, depth, "unknown")
    first = {entry.weight.name for entry in found}

    def seed(weight: Weight, variance: float | Tensor, fan_in: int) -> float | Tensor:
        return variance if weight.name in first else 0.0

    run = limit.evaluator(x, None, torch.float64, seed)
    start = sum(_mean(run.tangent(entry, entry, "11", diagonal=True)) for entry in found) / len(found)
    end = _mean(run.tangent(source, source, "11", diagonal=True))
    if start <= 0 or end <= 0:
        return Susceptibility(None, depth, "unknown")
    chi = (end / start) ** (1 / depth)
    return Susceptibility(chi, depth, _verdict(chi))


def _verdict(chi: float) -> Literal["ordered", "critical", "chaotic"]:
    if abs(chi - 1) <= CRITICAL_BAND:
        return "critical"
    return "ordered" if chi < 1 else "chaotic"


def _mean(values: Tensor | None) -> float:
    return 0.0 if values is None else float(values.mean())


def _depth(field: Field) -> int:
    """Most nonlinearities on a path down to the data."""
    known: dict[int, int] = {}

    def depth(node: Field) -> int:
        if id(node) not in known:
            deepest = max((depth(inner) for inner in children(node)), default=0)
            known[id(node)] = deepest + isinstance(node, (Image, Local, BatchImage))
        return known[id(node)]

    return depth(field)
