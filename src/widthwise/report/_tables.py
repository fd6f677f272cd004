"""The tables of a forecast as values, drawn by the page and by the terminal."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from widthwise.forecast._types import Forecast, LearningPoint
from widthwise.report._numbers import MISSING, count, interval, number, percent, with_error
from widthwise.report._select import curve, width_groups


@dataclass(frozen=True)
class Table:
    """Cells as text. `numeric` names the columns that are aligned to the right."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = frozenset()

    @property
    def long(self) -> bool:
        """Whether the page folds it away at first."""
        return len(self.rows) > 12


def table(title: str, columns: Sequence[str], kinds: str, rows: Sequence[tuple[str, ...]]) -> Table:
    """A table; `kinds` has one letter per column: ``n`` for numbers, ``t`` for text."""
    numeric = frozenset(place for place, kind in enumerate(kinds) if kind == "n")
    return Table(title, tuple(columns), tuple(rows), numeric)


def weights(forecast: Forecast) -> Table:
    """Every trained tensor."""
    columns = ("weight", "role", "shape", "fan-in", "fan-out", "init std", "init read from")
    rows = [
        (
            row.name,
            row.role,
            " \N{MULTIPLICATION SIGN} ".join(map(str, row.shape)) or "scalar",
            count(row.fan_in),
            count(row.fan_out),
            number(row.init_std),
            row.init_source,
        )
        for row in forecast.network.weights
    ]
    return table("Weights", columns, "tttnnnt", rows)


def layers(forecast: Forecast) -> Table:
    """Signal and gradient per layer."""
    found = forecast.network.criticality
    rows = []
    for place, name in enumerate(found.layers):
        forward, gradient = (
            values[place] if place < len(values) else None for values in (found.forward, found.gradient)
        )
        rows.append((name, number(forward), number(gradient)))
    return table("Signal through the depth", ("layer", "forward", "gradient"), "tnn", rows)


def rules(forecast: Forecast) -> Table:
    """Which kernel rule each node used."""
    rows = [
        (row.node, row.op, row.module_path or MISSING, row.rule, number(row.error, 2)) for row in forecast.network.rules
    ]
    return table("Kernel rules", ("node", "operation", "module", "rule", "error"), "ttttn", rows)


def task(forecast: Forecast) -> Table:
    """The exponents and the noise."""
    found = forecast.task
    rows = [
        ("examples (P)", count(found.samples)),
        ("held out for testing", count(found.held_out)),
        ("inputs per example", count(found.inputs)),
        ("outputs", count(found.outputs)),
        ("alpha, exponent of the eigenvalues", with_error(found.alpha, found.alpha_stderr)),
        ("beta, exponent of the target's power", with_error(found.beta, found.beta_stderr)),
        ("noise variance, summed over outputs", number(found.noise)),
        ("error on pure unit noise at zero ridge", with_error(found.noise_error, found.noise_error_stderr)),
        ("power of the targets (error of predicting the mean)", number(found.target_power)),
    ]
    return table("The task in numbers", ("quantity", "value"), "tn", rows)


def spectrum(forecast: Forecast) -> Table:
    """Eigenvalues and cumulative power at the stored indices."""
    found = forecast.task
    columns = (found.eigenvalues, found.cumulative_power, found.nngp_eigenvalues, found.nngp_cumulative_power)
    rows = [
        (
            count(index),
            *(
                (percent if part % 2 else number)(values[place] if place < len(values) else None)
                for part, values in enumerate(columns)
            ),
        )
        for place, index in enumerate(found.eigenvalue_index)
    ]
    names = ("mode", "NTK eigenvalue", "NTK power up to here", "NNGP eigenvalue", "NNGP power up to here")
    return table("Spectrum", names, "n" * len(names), rows)


def learning(forecast: Forecast, ridge: str) -> Table:
    """The learning curve at one kind of ridge."""
    points = curve(forecast, ridge)
    accurate = any(point.predicted_accuracy is not None or point.measured_accuracy is not None for point in points)
    names = ["n", "ridge", "predicted MSE", "interval", "measured MSE"]
    names += ["predicted accuracy", "measured accuracy"] if accurate else []
    rows = [_learning_row(point, accurate) for point in points]
    return table(f"Learning curve at {ridge} ridge", [*names, "kind"], "n" * len(names) + "t", rows)


def _learning_row(point: LearningPoint, accurate: bool) -> tuple[str, ...]:
    cells = [
        count(point.n),
        number(point.ridge_value, 2),
        number(point.predicted_mse),
        interval(point.predicted_mse_low, point.predicted_mse_high),
        with_error(point.measured_mse, point.measured_mse_stderr),
    ]
    if accurate:
        cells += [percent(point.predicted_accuracy), accuracy(point.measured_accuracy, point.measured_accuracy_stderr)]
    return (*cells, "extrapolated" if point.extrapolated else "within the sample")


def accuracy(value: float | None, error: float | None) -> str:
    """An accuracy in per cent with its standard error in points.

    >>> accuracy(0.8734, 0.0031)
    '87.3 ± 0.3 %'
    """
    if value is None or error is None or not math.isfinite(value) or not math.isfinite(error):
        return percent(value)
    return f"{100 * value:.1f} \N{PLUS-MINUS SIGN} {100 * error:.1f} %"


def width(forecast: Forecast) -> Table:
    """Error against width."""
    columns = ("width", "features", "n", "ridge", "predicted MSE", "measured MSE")
    rows = [
        (
            count(point.width),
            count(point.features),
            count(point.n),
            "zero" if point.ridge == "zero" else f"optimal, {number(point.ridge_value, 2)}",
            number(point.predicted_mse),
            with_error(point.measured_mse, point.measured_mse_stderr),
        )
        for points in width_groups(forecast).values()
        for point in points
    ]
    return table("Width, last layer trained only", columns, "nnntnn", rows)


def surface(forecast: Forecast) -> Table:
    """The (n, width) surface."""
    found = forecast.width_surface
    if found is None:
        return table("Predicted error by examples and features", ("n",), "n", [])
    columns = ["n \N{REVERSE SOLIDUS} features", *(count(width) for width in found.width)]
    rows = [(count(n), *(number(value) for value in values)) for n, values in zip(found.n, found.mse, strict=True)]
    return table(
        "Predicted error by examples (rows) and features of the last layer (columns)", columns, "n" * len(columns), rows
    )


def overfitting(forecast: Forecast) -> Table:
    """What interpolating costs."""
    found = forecast.overfitting
    rows = [
        ("verdict", found.verdict),
        ("examples", count(found.n)),
        ("cost: error at zero ridge / at optimal ridge", number(found.cost)),
        ("overfitting coefficient E0, the bound of the cost", number(found.coefficient)),
        ("optimal ridge", number(found.optimal_ridge)),
        ("train / test error at the optimal ridge", number(found.optimal_fitting_ratio)),
        ("near-interpolation needed", "yes" if found.obligatory else "no"),
    ]
    return table("Ridge and overfitting in numbers", ("quantity", "value"), "tn", rows)


def training(forecast: Forecast) -> Table:
    """The trained networks beside the kernel."""
    names = ["width", "parameters", "n", "steps", "learning rate", "train MSE", "test MSE", "kernel MSE"]
    accurate = any(row.test_accuracy is not None or row.kernel_accuracy is not None for row in forecast.training)
    names += ["test accuracy", "kernel accuracy"] if accurate else []
    rows = [
        (
            count(row.width),
            count(row.parameters),
            count(row.n),
            count(row.steps),
            number(row.lr),
            number(row.train_mse),
            "diverged" if row.diverged else number(row.test_mse),
            number(row.kernel_mse),
            *((percent(row.test_accuracy), percent(row.kernel_accuracy)) if accurate else ()),
            number(row.seconds, 2),
        )
        for row in forecast.training
    ]
    return table("Training check in numbers", [*names, "seconds"], "n" * (len(names) + 1), rows)


def advice(forecast: Forecast) -> Table:
    """Each step with its expected effect."""
    columns = ("step", "MSE before", "MSE after", "change", "confidence", "because")
    rows = [
        (
            row.action,
            number(row.before),
            number(row.after),
            change(row.before, row.after),
            row.confidence,
            row.because,
        )
        for row in forecast.advice
    ]
    return table("Advice", columns, "tnnntt", rows)


def change(before: float, after: float) -> str:
    """The relative change, with its sign."""
    if not before > 0 or not math.isfinite(after):
        return MISSING
    share = after / before - 1
    return ("+" if share > 0 else "") + percent(share, 0)


def mapping(title: str, values: dict[str, Any]) -> Table:
    """Settings, data or seconds: one row per entry, nested ones by dotted names."""
    rows = [(name, _plain_cell(value)) for name, value in _flat(values)]
    return table(title, ("name", "value"), "tt", rows)


def seconds(forecast: Forecast) -> Table:
    """Wall time per stage."""
    rows = [(stage, number(value)) for stage, value in forecast.seconds.items()]
    total = (
        [("total", number(sum(forecast.seconds.values())))] if len(rows) > 1 and "total" not in forecast.seconds else []
    )
    return table("Time", ("stage", "seconds"), "tn", rows + total)


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        found += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(f"{prefix}{name}", value)]
    return found


def _plain_cell(value: Any) -> str:
    match value:
        case None:
            return MISSING
        case bool():
            return "yes" if value else "no"
        case int():
            return count(value)
        case float():
            return number(value, 4)
        case list() | tuple():
            return ", ".join(_plain_cell(item) for item in value) or MISSING
    return str(value)
