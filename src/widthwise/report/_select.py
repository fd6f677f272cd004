"""What several parts of the report pick out of a forecast."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from widthwise.forecast._types import Forecast, LearningPoint, WidthPoint
from widthwise.forecast._types_theory import AdviceRow

RIDGES = ("zero", "optimal")
CONFIDENCE = {"high": 0, "medium": 1, "low": 2}


def curve(forecast: Forecast, ridge: str) -> list[LearningPoint]:
    """The learning curve at one kind of ridge, by number of examples."""
    return sorted((point for point in forecast.learning_curve if point.ridge == ridge), key=lambda point: point.n)


def nearest(points: Iterable[LearningPoint], n: float, *, within: float = 1.15) -> LearningPoint | None:
    """The point whose number of examples is nearest to `n` in ratio, if that ratio is at most `within`."""
    points = list(points)
    if not points:
        return None
    best = min(points, key=lambda point: abs(math.log(point.n / n)))
    return best if abs(math.log(best.n / n)) <= math.log(within) else None


def now(forecast: Forecast) -> LearningPoint | None:
    """The prediction at the whole sample and the optimal ridge; at the largest size within it if it has none."""
    points = curve(forecast, "optimal") or curve(forecast, "zero")
    inside = [point for point in points if not point.extrapolated]
    known = inside or points
    return nearest(points, forecast.task.samples) or (known[-1] if known else None)


def later(forecast: Forecast) -> LearningPoint | None:
    """The prediction at twice the examples of `now`; the next larger one if there is none there."""
    here = now(forecast)
    if here is None:
        return None
    larger = [point for point in curve(forecast, here.ridge) if point.n > here.n]
    return nearest(larger, 2 * here.n) or (larger[0] if larger else None)


def best_advice(forecast: Forecast) -> AdviceRow | None:
    """The advice that cuts the error by the largest share; one of low confidence only where there is no other."""
    helpful = [row for row in forecast.advice if row.after < row.before and row.before > 0]
    sure = [row for row in helpful if row.confidence != "low"] or helpful
    return min(sure, key=lambda row: row.after / row.before, default=None)


@dataclass(frozen=True)
class Agreement:
    """How far measured points lie from the prediction, in relative error: ``|predicted / measured - 1|``."""

    points: int
    median: float
    worst: float
    worst_at: int


def agreement(points: Iterable[LearningPoint | WidthPoint]) -> Agreement | None:
    """Agreement over the measured points; None where nothing was measured."""
    rows = [
        (abs(point.predicted_mse / point.measured_mse - 1), point.width if isinstance(point, WidthPoint) else point.n)
        for point in points
        if point.measured_mse
    ]
    if not rows:
        return None
    errors = sorted(error for error, _ in rows)
    middle = len(errors) // 2
    median = errors[middle] if len(errors) % 2 else (errors[middle - 1] + errors[middle]) / 2
    worst, at = max(rows)
    return Agreement(len(rows), median, worst, at)


def width_groups(forecast: Forecast) -> dict[tuple[int, str], list[WidthPoint]]:
    """The width curve split into lines, by number of examples and kind of ridge, each in order of width."""
    groups: dict[tuple[int, str], list[WidthPoint]] = {}
    for n in sorted({point.n for point in forecast.width_curve}):
        for ridge in RIDGES:
            points = [point for point in forecast.width_curve if (point.n, point.ridge) == (n, ridge)]
            if points:
                groups[n, ridge] = sorted(points, key=lambda point: point.width)
    return groups
