"""The figures of a forecast: one function per section, each from numbers to a `Figure`."""

import math
from collections.abc import Callable

from widthwise.core import Axis, Bars, Figure, Guide, Heatmap, Line, Points, Series
from widthwise.forecast._types import Forecast, WidthPoint
from widthwise.report._curve_figures import LEGEND, SLOT, accuracy_curve, learning_curve, sample_guide
from widthwise.report._figures_theory import dynamics, finite_width, finite_width_layers
from widthwise.report._select import curve, width_groups
from widthwise.report._words import width_caveat


def figures(forecast: Forecast) -> dict[str, Figure]:
    """The figures of `forecast` by name, without those that have nothing to show (no accuracy, no widths, ...)."""
    makers: dict[str, Callable[[Forecast], Figure | None]] = {
        "depth_profile": depth_profile,
        "spectrum": spectrum,
        "target_power": target_power,
        "learning_curve": learning_curve,
        "accuracy_curve": accuracy_curve,
        "width_curve": width_curve,
        "width_surface": width_surface,
        "finite_width_layers": finite_width_layers,
        "finite_width": finite_width,
        "overfitting": overfitting,
        "dynamics": dynamics,
        "training": training,
        "advice": advice,
    }
    made = {name: make(forecast) for name, make in makers.items()}
    return {name: figure for name, figure in made.items() if figure is not None}


def depth_profile(forecast: Forecast) -> Figure | None:
    """Mean square of activations and of gradients, layer by layer, at initialisation."""
    found = forecast.network.criticality
    if not found.layers:
        return None
    lines = (("activations, forward", found.forward, 0), ("gradients, backward", found.gradient, 1))
    places = tuple(float(place) for place in range(len(found.layers)))
    series = tuple(
        Line(name, places[: len(values)], values, slot, markers=len(values) <= 40)
        for name, values, slot in lines
        if values
    )
    return Figure(
        "Signal through the depth at initialisation",
        Axis("layer, from input to output", "category", found.layers),
        Axis("mean square per entry", "log"),
        series,
        "Mean square of each layer's output and of the gradient of a random projection of the network's output. "
        "Level lines mean that signal and gradient keep their size through the depth.",
    )


def spectrum(forecast: Forecast) -> Figure | None:
    """Eigenvalues of the kernel on the sample, with the fitted slope."""
    task = forecast.task
    if not task.eigenvalues:
        return None
    index = tuple(float(place) for place in task.eigenvalue_index)
    series: list[Series] = [Line("tangent kernel (NTK)", index, task.eigenvalues, 0)]
    if task.nngp_eigenvalues:
        series.append(Line("last-layer kernel (NNGP)", index, task.nngp_eigenvalues, 2))
    guide = _power_guide(index, task.eigenvalues, task.alpha)
    if guide is not None:
        series.append(guide)
    return Figure(
        "Spectrum of the kernel on the data",
        Axis("index of the mode", "log"),
        Axis("eigenvalue of K/P", "log"),
        tuple(series),
        f"Eigenvalues of the kernel matrix divided by the {task.samples} examples. The dashed line falls with the "
        "exponent alpha, which is estimated from regression tests, not fitted to these values: the last eigenvalues "
        "of a finite sample always bend down too early.",
    )


def _power_guide(index: tuple[float, ...], values: tuple[float, ...], alpha: float) -> Line | None:
    middle = len(index) // 2
    if not math.isfinite(alpha) or len(index) < 3 or values[middle] <= 0:
        return None
    at = (index[middle // 4], index[-1])
    y = tuple(values[middle] * (place / index[middle]) ** -alpha for place in at)
    return Line(f"slope \N{MINUS SIGN}{alpha:.2f}", at, y, 3, dashed=True)


def target_power(forecast: Forecast) -> Figure | None:
    """Share of the target's power in the leading modes."""
    task = forecast.task
    if not task.cumulative_power:
        return None
    index = tuple(float(place) for place in task.eigenvalue_index)
    series = [Line("tangent kernel (NTK)", index, task.cumulative_power, 0)]
    if task.nngp_cumulative_power:
        series.append(Line("last-layer kernel (NNGP)", index, task.nngp_cumulative_power, 2))
    return Figure(
        "Where the target's power lies",
        Axis("modes counted, largest eigenvalue first", "log"),
        Axis("share of the target's power", limits=(0.0, 1.0)),
        tuple(series),
        "Cumulative share of the target's mean square in the leading modes of the kernel. The sooner the line rises, "
        "the fewer examples the network needs.",
    )


def width_curve(forecast: Forecast) -> Figure | None:
    """Predicted and measured test error against width, with only the last layer trained."""
    groups = width_groups(forecast)
    if not groups:
        return None
    one_size = len({n for n, _ in groups}) == 1
    series: list[Series] = []
    for place, ((n, ridge), points) in enumerate(groups.items()):
        label = LEGEND[ridge] if one_size else f"{LEGEND[ridge]}, n = {n}"
        slot = SLOT[ridge] if one_size else place
        x = tuple(float(point.width) for point in points)
        series.append(Line(f"predicted, {label}", x, tuple(p.predicted_mse for p in points), slot, markers=len(x) == 1))
        measured = [point for point in points if point.measured_mse is not None]
        if measured:
            series.append(
                Points(
                    f"measured, {label}",
                    tuple(float(point.width) for point in measured),
                    tuple(point.measured_mse for point in measured if point.measured_mse is not None),
                    tuple(point.measured_mse_stderr or 0.0 for point in measured),
                    slot,
                )
            )
    return Figure(
        "Test error against width",
        Axis("width of the network", "log"),
        Axis("test error (MSE)", "log"),
        (*_peak_guide(forecast), *series),
        " ".join(filter(None, (_width_caption(groups), width_caveat(forecast)))),
    )


def _width_caption(groups: dict[tuple[int, str], list[WidthPoint]]) -> str:
    sizes = " or ".join(str(n) for n in sorted({n for n, _ in groups}))
    return (
        f"Only the last layer is trained, on {sizes} examples. Lines: predicted; markers: measured with the module "
        "itself at that width, with one standard error."
    )


def _peak_guide(forecast: Forecast) -> list[Guide]:
    sizes = {point.n for point in forecast.width_curve}
    ratios = {point.features / point.width for point in forecast.width_curve}
    widths = [point.width for point in forecast.width_curve]
    if len(sizes) != 1 or not ratios or max(ratios) > 1.01 * min(ratios):
        return []
    at = sizes.pop() / ratios.pop()
    return [Guide(at, "features = examples")] if min(widths) < at < max(widths) else []


def width_surface(forecast: Forecast) -> Figure | None:
    """Predicted test error over numbers of examples and widths."""
    surface = forecast.width_surface
    if surface is None:
        return None
    by_width = tuple(zip(*surface.mse, strict=True))
    return Figure(
        "Predicted test error by examples and features",
        Axis("number of training examples", "category", tuple(str(n) for n in surface.n)),
        Axis("features of the last layer", "category", tuple(str(width) for width in surface.width)),
        (Heatmap(by_width, "test error (MSE)"),),
        "Each cell is the predicted test error at the optimal ridge with only the last layer trained; darker is "
        "better. Step right for more data, up for more features (more width).",
    )


def overfitting(forecast: Forecast) -> Figure | None:
    """Ratio of the predicted test error at zero ridge to that at the optimal one, against number of examples."""
    best = {point.n: point for point in curve(forecast, "optimal") if point.predicted_mse > 0}
    pairs = [(point, best[point.n]) for point in curve(forecast, "zero") if point.n in best]
    if not pairs:
        return None
    predicted = [(float(zero.n), zero.predicted_mse / tuned.predicted_mse, zero.extrapolated) for zero, tuned in pairs]
    inside = [row for row in predicted if not row[2]]
    outside = [row for row in predicted if row[2]]
    series: list[Series] = [*sample_guide(forecast), Guide(1.0, "no cost", "horizontal")]
    for rows, name, dashed in (
        (inside, "predicted", False),
        (inside[-1:] + outside if outside else [], "extrapolated", True),
    ):
        if rows:
            x, y = tuple(row[0] for row in rows), tuple(row[1] for row in rows)
            series.append(Line(name, x, y, 0, dashed, markers=len(x) == 1))
    measured = [
        (float(zero.n), zero.measured_mse / tuned.measured_mse)
        for zero, tuned in pairs
        if zero.measured_mse is not None and tuned.measured_mse
    ]
    if measured:
        series.append(Points("measured", tuple(x for x, _ in measured), tuple(y for _, y in measured), slot=0))
    return Figure(
        "What fitting every label costs",
        Axis("number of training examples", "log"),
        Axis("error at zero ridge / at optimal ridge", limits=_cost_limits(series)),
        tuple(series),
        "Ratio of the test error of interpolation (zero ridge) to the best that any ridge reaches. At 1, fitting every "
        "label costs nothing.",
    )


def _cost_limits(series: list[Series]) -> tuple[float, float]:
    """Room below 1 for the label of the sample's size."""
    values = [y for item in series if isinstance(item, Line | Points) for y in item.y if math.isfinite(y)]
    low, high = min([1.0, *values]), max([1.05, *values])
    return low - 0.15 * (high - low), high + 0.08 * (high - low)


def training(forecast: Forecast) -> Figure | None:
    """The trained network beside the kernel's prediction."""
    rows = forecast.training
    if not rows:
        return None
    names = tuple(
        (f"width {row.width}, n = {row.n}" if row.width is not None else f"n = {row.n}")
        + (" (diverged)" if row.diverged else "")
        for row in rows
    )
    return Figure(
        "The trained network beside the kernel's prediction",
        Axis("test error (MSE)"),
        Axis("", "category", names),
        (
            Bars("kernel's prediction", tuple(row.kernel_mse for row in rows), 0),
            Bars("network, trained", tuple(math.nan if row.diverged else row.test_mse for row in rows), 3),
        ),
        "Shorter is better. Where the network's bar is the shorter one, it gained from learning features that the "
        "fixed kernel does not have; where it is the longer one, the short training budget or its noise cost more.",
    )


def advice(forecast: Forecast) -> Figure | None:
    """Expected test error before and after each piece of advice."""
    rows = forecast.advice
    if not rows:
        return None
    return Figure(
        "Expected effect of each step",
        Axis("test error (MSE)"),
        Axis("", "category", tuple(row.action for row in rows)),
        (
            Bars("now", tuple(row.before for row in rows), 5),
            Bars("after", tuple(row.after for row in rows), 0),
        ),
        "Expected test error before and after each step, on its own.",
    )
