"""Figures of the learning curve: test error and accuracy against the number of examples."""

from widthwise.core import Axis, Band, Figure, Guide, Line, Points, Series
from widthwise.forecast._types import Forecast, LearningPoint
from widthwise.report._select import RIDGES, curve

LEGEND = {"optimal": "optimal ridge", "zero": "zero ridge"}
SLOT = {"optimal": 0, "zero": 1}


def learning_curve(forecast: Forecast) -> Figure | None:
    """Predicted and measured test error against number of examples."""
    if not forecast.learning_curve:
        return None
    series: list[Series] = [*sample_guide(forecast)]
    if forecast.task.target_power > 0:
        series.append(Guide(forecast.task.target_power, "error of predicting the mean", "horizontal"))
    for ridge in RIDGES:
        series += _curve_series(curve(forecast, ridge), ridge, "mse")
    return Figure(
        "Test error against number of examples",
        Axis("number of training examples", "log"),
        Axis("test error (MSE)", "log"),
        tuple(series),
        "Lines: predicted; dashed with a lighter band: extrapolated beyond the sample. Bands: the prediction's own "
        "interval. Markers: kernel regression measured on held-out data, with one standard error. Where one colour "
        "hides the other, both ridges give the same error.",
    )


def accuracy_curve(forecast: Forecast) -> Figure | None:
    """Predicted and measured test accuracy against number of examples."""
    known = [p for p in forecast.learning_curve if p.predicted_accuracy is not None or p.measured_accuracy is not None]
    if not known:
        return None
    series: list[Series] = [*sample_guide(forecast)]
    for ridge in RIDGES:
        series += _curve_series(curve(forecast, ridge), ridge, "accuracy")
    return Figure(
        "Test accuracy against number of examples",
        Axis("number of training examples", "log"),
        Axis("test accuracy (share correct)"),
        tuple(series),
        "Lines: predicted; dashed: extrapolated beyond the sample. Markers: measured on held-out data, with one "
        "standard error.",
    )


def sample_guide(forecast: Forecast) -> list[Guide]:
    return [Guide(float(forecast.task.samples), f"your sample, n = {forecast.task.samples}")]


def _curve_series(points: list[LearningPoint], ridge: str, quantity: str) -> list[Series]:
    predicted = [point for point in points if getattr(point, f"predicted_{quantity}") is not None]
    measured = [point for point in points if getattr(point, f"measured_{quantity}") is not None]
    inside = [point for point in predicted if not point.extrapolated]
    outside = [point for point in predicted if point.extrapolated]
    beyond = inside[-1:] + outside if outside else []
    slot = SLOT[ridge]
    series: list[Series] = []
    if quantity == "mse":
        series += [_band(part, slot, light) for part, light in ((inside, False), (beyond, True)) if part]
    if inside:
        series.append(_line(inside, f"predicted, {LEGEND[ridge]}", quantity, slot, dashed=False))
    if beyond:
        series.append(_line(beyond, f"extrapolated, {LEGEND[ridge]}", quantity, slot, dashed=True))
    if measured:
        errors = (getattr(point, f"measured_{quantity}_stderr") for point in measured)
        series.append(
            Points(
                f"measured, {LEGEND[ridge]}",
                tuple(float(point.n) for point in measured),
                tuple(getattr(point, f"measured_{quantity}") for point in measured),
                tuple(error or 0.0 for error in errors),
                slot,
            )
        )
    return series


def _band(points: list[LearningPoint], slot: int, light: bool) -> Band:
    low, high = (tuple(getattr(p, f"predicted_mse_{end}") for p in points) for end in ("low", "high"))
    return Band(tuple(float(point.n) for point in points), low, high, slot, light)


def _line(points: list[LearningPoint], name: str, quantity: str, slot: int, dashed: bool) -> Line:
    values = tuple(getattr(point, f"predicted_{quantity}") for point in points)
    return Line(name, tuple(float(point.n) for point in points), values, slot, dashed, markers=len(points) == 1)
