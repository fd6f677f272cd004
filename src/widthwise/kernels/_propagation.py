"""Signals and small differences from station to station of any network with exact rules."""

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, nan, prod
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from widthwise.core import ModelError, UnsupportedOperation, Value
from widthwise.kernels._batch import Given
from widthwise.kernels._coordinates_values import Contribution, Coordinates
from widthwise.kernels._evaluator import Evaluator, Pair
from widthwise.kernels._fields import Field, Inputs, Product, Sum, Tokens
from widthwise.kernels._limit import Limit, infinite
from widthwise.kernels._pieces import base_name
from widthwise.kernels._recursion import deep_recursion
from widthwise.kernels._stations import Station, entries, stations
from widthwise.kernels._walks import below
from widthwise.program import Weight

BAND = 0.05  # of the logarithm of chi, per step
TRIES = 6
SAMPLES, MOST_SITES = 4096, 2048
Verdict = Literal["ordered", "critical", "chaotic", "unknown"]


@dataclass(frozen=True)
class Propagation(Value):
    """Growth of signals and of small differences between stations, which every signal passes.

    Attributes:
        layers: modules whose outputs they are: layers of a chain, blocks of a residual network.
        q: ``[layers]`` mean square of an entry.
        chi: ``[steps]`` growth of the mean square of a small random difference, and of squared gradients on the way
            back (chi_perp), between hidden stations.
        chi_parallel: ``[steps]`` growth of a small change of q itself; NaN where moments are sampled.
        slope: ``[steps]`` of the map of correlations near one: ``chi_l q_l / q_{l+1}``. Below 1 inputs become alike.
        gradient_ratio: squared gradient at the first station over that at the last: the product of chi.
        residual: whether stations add branches to what they take.
        verdict: ``"critical"`` where gradients at both ends are within a factor e, or chi within 5 % of 1 in the
            geometric mean; else ``"ordered"`` or ``"chaotic"``.
        mend: what to multiply weights by, in one sentence.
        mended_ratio: gradient ratio of the network so mended; NaN where nothing is to be mended.
    """

    layers: tuple[str, ...]
    q: Float[np.ndarray, "layers"]
    chi: Float[np.ndarray, "steps"]
    chi_parallel: Float[np.ndarray, "steps"]
    slope: Float[np.ndarray, "steps"]
    gradient_ratio: float
    residual: bool
    verdict: Verdict
    mend: str
    mended_ratio: float


def propagation(limit: Limit, x: Given) -> Propagation:
    """Carry variances and a small difference through a network, whatever its blocks are.

    A difference in the first matrices' outputs is carried through every later operation by the rules of the tangent
    kernel with no other parameter adding to it; derivatives of variances are those of the recursion by a factor of the
    inputs. For a plain chain this is the mean-field recursion (arXiv:1611.01232, equations 3 and 5).

    Raises:
        ModelError: there is no hidden station, or samples are needed at too many positions.
    """
    if limit.method == "exact" and not _differentiable(limit) and not limit.joins_examples:
        limit = _coordinates(limit)
    places = stations(limit)
    hidden = [place for place in places if place.field is not limit.output]
    seen = _pass(limit, places, x)
    kept = [i for i in range(len(hidden)) if seen.difference[i] > 0]
    if not kept:
        raise ModelError("no station that all signals pass lies between the inputs and the output.")
    q, t, change = (np.array(values)[kept] for values in (seen.q, seen.difference, seen.change))
    chi = t[1:] / t[:-1]
    ratio = float(t[-1] / t[0])
    residual = any(places[i].joins for i in kept)
    verdict = verdict_of(chi)
    mend, mended = "", nan
    if verdict in ("ordered", "chaotic"):
        target = 0.8 if residual and ratio > 1 else 0.0  # branches of weight zero alone leave gradients as they are
        mend, mended = mended_by(lambda factor: _log_chi_with(limit, x, exp(factor)), np.log(chi), target)
    ends = [len(hidden)] if len(places) > len(hidden) else []
    return Propagation(
        tuple(places[i].name for i in [*kept, *ends]), np.array([seen.q[i] for i in [*kept, *ends]]), chi,
        change[1:] / change[:-1], chi * q[:-1] / q[1:], ratio, residual, verdict, mend, mended,
    )  # fmt: skip


def verdict_of(chi: np.ndarray) -> Verdict:
    """By the geometric mean, and by what it comes to over the depth."""
    if not len(chi):
        return "unknown"
    total = float(np.log(chi).sum())
    if abs(total) <= 1 or abs(total) / len(chi) <= BAND:
        return "critical"
    return "ordered" if total < 0 else "chaotic"


@dataclass(frozen=True)
class _Passed:
    """At every station: mean square, that of a difference, and the derivative of the first by a factor of the data."""

    q: list[float]
    difference: list[float]
    change: list[float]


def _pass(limit: Limit, places: list[Station], x: Given) -> _Passed:
    first = {one.weight.name for one in entries(limit.output)}

    def seed(weight: Weight, variance: float | Tensor, fan_in: int) -> float | Tensor:
        return variance if weight.name in first else 0.0

    if limit.method == "sampled":
        return _by_samples(limit, places, x, seed)
    run = _Scaled(limit.evaluator(x, None, torch.float64, seed), differentiable=_differentiable(limit))
    with deep_recursion():
        squares = [_mean(run.moment(place.field, place.field, "11", diagonal=True)) for place in places]
        moving = [_mean(run.tangent(place.field, place.field, "11", diagonal=True)) for place in places]
    q, difference = ([float(value.detach()) for value in values] for values in (squares, moving))
    return _Passed(q, difference, [_derivative(value, run.factor) for value in squares])


def _by_samples(limit: Limit, places: list[Station], x: Given, seed: Contribution) -> _Passed:
    """Samples of one coordinate at all inputs and positions, which form one batch."""
    data = limit.data_of(x)
    count = next(iter(data.values())).shape[0]
    sites = count * max(prod(field.positions) for field in below(limit.output))
    if sites > MOST_SITES:
        raise ModelError(f"samples at {sites} inputs and positions take too long; give at most {MOST_SITES} as x.")
    with torch.no_grad(), deep_recursion():
        run = Coordinates(data, (count,), seed, samples=SAMPLES, seed=0)
        run.evaluate([place.field for place in places])
        grams = [
            [_mean(run.gram(place.field, place.field, tangent=tangent)) for place in places]
            for tangent in (False, True)
        ]
    q, difference = ([float(value) for value in values] for values in grams)
    return _Passed(q, difference, [nan] * len(places))


def _differentiable(limit: Limit) -> bool:
    return not limit.joins_examples and all(row.rule != "sampled" for row in limit.certificate)


class _Scaled(Evaluator):
    """An evaluator of one set of inputs, whose second moments it multiplies by a factor (of one)."""

    def __init__(self, run: Evaluator, *, differentiable: bool) -> None:
        super().__init__(run.data, run.contribution, dtype=run.dtype, same=True, samples=run.samples)
        self.factor = torch.ones((), dtype=run.dtype, requires_grad=differentiable)

    def moment(self, u: Field, v: Field, pair: Pair, *, diagonal: bool) -> Tensor | None:
        value = super().moment(u, v, pair, diagonal=diagonal)
        return self.factor * value if value is not None and _is_data(u) and _is_data(v) else value

    def mean(self, u: Field, side: int) -> Tensor | None:
        value = super().mean(u, side)
        return self.factor.sqrt() * value if value is not None and _is_data(u) else value


def _is_data(field: Field) -> bool:
    return isinstance(field, Inputs) or (isinstance(field, Tokens) and field.batched)


def _derivative(value: Tensor, factor: Tensor) -> float:
    if not value.requires_grad:
        return nan
    (found,) = torch.autograd.grad(value, factor, retain_graph=True, allow_unused=True)
    return nan if found is None else float(found)


def _mean(values: Tensor | None) -> Tensor:
    return torch.zeros((), dtype=torch.float64) if values is None else values.mean()


def mended_by(log_chi: Callable[[float], np.ndarray], before: np.ndarray, target: float) -> tuple[str, float]:
    """A factor of the hidden matrices that brings gradients at both ends within a factor e, found by secants.

    It has to make the median step milder too: in front of norms a factor moves gradients of one step alone.

    Args:
        log_chi: logarithms of chi at every step, by the logarithm of the factor.
        before: without a factor.
    """
    logs, steps = [0.0, -0.1 if before.sum() > 0 else 0.1], [before]
    for _ in range(TRIES):
        steps.append(log_chi(logs[-1]))
        (x0, x1), (y0, y1) = logs[-2:], (float(one.sum()) for one in steps[-2:])
        if abs(y1 - target) <= 0.01 or y0 == y1:
            break
        logs.append(min(max(x1 + (target - y1) * (x1 - x0) / (y1 - y0), -5.0), 5.0))
    best = min(range(1, len(steps)), key=lambda i: abs(float(steps[i].sum())))
    total = float(steps[best].sum())
    if not abs(total) < abs(before.sum()) / 2 or np.median(np.abs(steps[best])) > 0.9 * np.median(np.abs(before)):
        return "No factor of the hidden matrices mends it; skip connections, or fewer layers, do.", nan
    return (
        f"Multiply the standard deviations of the hidden matrices by {exp(logs[best]):.3g}: squared gradients at the "
        f"first of the layers are then {exp(total):.3g} times those at the last.",
        exp(total),
    )


def _log_chi_with(limit: Limit, x: Given, factor: float) -> np.ndarray:
    """Logarithms of chi with the matrices times a factor, but for those that read the data or give the output."""
    products = [one for one in below(limit.output) if isinstance(one, (Product, Tokens))]
    terms = limit.output.terms if isinstance(limit.output, Sum) else ((1.0, limit.output),)
    outer = {id(one) for one in (*entries(limit.output), *(term for _, term in terms))}
    scales = {
        base_name(one.weight): float(one.variance) ** 0.5 * (1.0 if id(one) in outer else factor) for one in products
    }
    how: Literal["exact", "sampled"] = "exact" if limit.method == "exact" else "sampled"
    mended = infinite(limit.program, limit.parametrization, scales, limit.lowering.scales.bias_std, method=how)
    places = stations(mended)
    seen = _pass(mended, [place for place in places if place.field is not mended.output], x).difference
    return np.diff(np.log([value for value in seen if value > 0]))


def _coordinates(limit: Limit) -> Limit:
    """The same limit by samples of one coordinate, which cost less than those of every pair; or as it is."""
    try:
        return infinite(
            limit.program,
            limit.parametrization,
            limit.lowering.scales.weight_std,
            limit.lowering.scales.bias_std,
            method="sampled",
        )
    except UnsupportedOperation:
        return limit
