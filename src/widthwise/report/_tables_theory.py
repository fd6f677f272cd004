"""The tables on depth scales, finite width, training time and scaling."""

from widthwise.forecast._types import Forecast
from widthwise.report._numbers import MISSING, count, number, percent
from widthwise.report._tables import Table, table

PATH_ROWS = 2  # every so many times are shown


def depth(forecast: Forecast) -> Table:
    """Depth scales of a plain feed-forward network."""
    found = forecast.network.criticality.depth
    if found is None:
        return table("Depth scales", ("quantity", "value"), "tn", [])
    scales = (found.correlation_depth, found.trainable_depth)
    reach, trained = ("infinite" if scale is None else number(scale) for scale in scales)
    rows = [
        ("activation", found.activation),
        ("sigma_w^2 of hidden layers (variance times fan-in)", number(found.weight_variance)),
        ("sigma_b^2 of hidden layers", number(found.bias_variance)),
        ("chi_1, growth of squared gradients per layer at depth", number(found.chi_1)),
        (
            "depth scale of correlations, layers",
            reach,
        ),
        ("trainable depth, about, layers", trained),
        ("squared gradient, first hidden layer / last", number(found.gradient_ratio)),
        ("sum of 1/width over hidden layers", number(found.inverse_widths)),
        ("spread of the log of squared norms between seeds", number(found.log_spread)),
    ]
    return table("Depth scales", ("quantity", "value"), "tn", rows)


def finite_width(forecast: Forecast) -> Table:
    """Fluctuations and depth over width."""
    found = forecast.fluctuations
    if found is None:
        return table("Finite width in numbers", ("quantity", "value"), "tn", [])
    rows = [
        ("a plain perceptron, which the theory describes", "yes" if found.exact else "no"),
        ("hidden widths", ", ".join(count(width) for width in _hidden(found.widths, found.exact)) or MISSING),
        ("depth over width: sum of 1/n", number(found.ratio)),
        (f"nu of {found.activation or 'the activation'}", number(found.nu)),
        ("strength of finite-width effects: nu times that", number(found.strength)),
        ("r*, best depth over width", number(found.optimal_ratio)),
        ("width at which this depth is best", _whole(found.advised_width)),
        ("spread of the output's variance between seeds, predicted", percent(found.relative_kernel)),
        ("spread of the tangent kernel, predicted", percent(found.relative_ntk)),
        ("spread of the tangent kernel, measured", percent(found.measured_ntk)),
        ("tangent kernel between two outputs, beside its mean", percent(found.relative_ntk_between)),
        ("movement of the tangent kernel in training, relative", percent(found.feature_learning)),
    ]
    return table("Finite width in numbers", ("quantity", "value"), "tn", rows)


def _hidden(widths: tuple[int, ...], exact: bool) -> tuple[int, ...]:
    return widths[1:-1] if exact else widths


def _whole(value: float | None) -> str:
    return MISSING if value is None else count(round(value))


def dynamics(forecast: Forecast) -> Table:
    """Stopping, rates and the ridge."""
    found = forecast.dynamics
    if found is None:
        return table("Training time in numbers", ("quantity", "value"), "tn", [])
    never = "never" if found.best_steps is None else number(found.best_steps)
    rows = [
        ("examples trained on", count(found.n)),
        ("examples tested on", count(found.held_out)),
        ("largest stable rate, in the kernel's own parametrization", number(found.largest_rate)),
        ("rate in whose steps time is counted", number(found.rate)),
        ("condition number of the kernel", number(found.condition_number)),
        ("best stopping time, steps", never),
        ("test error there", number(found.best_mse)),
        ("test error of training for ever", number(found.final_mse)),
        ("test error at the best ridge", number(found.ridge_mse)),
        ("best ridge", number(found.ridge_value)),
        ("ridge that the best stopping time amounts to", number(found.stopping_ridge)),
        ("largest stable rate of the module, torch.nn.MSELoss", number(found.module_rate)),
    ]
    return table("Training time in numbers", ("quantity", "value"), "tn", rows)


def path(forecast: Forecast) -> Table:
    """Errors at times."""
    found = forecast.dynamics
    if found is None:
        return table("Errors in time", ("steps",), "n", [])
    names = ("steps", "train MSE", "test MSE", *(("test accuracy",) if found.test_accuracy else ()))
    columns = (found.steps, found.train_mse, found.test_mse)
    rows = [
        (
            *(number(column[place]) for column in columns),
            *((percent(found.test_accuracy[place]),) if found.test_accuracy else ()),
        )
        for place in range(0, len(found.steps), PATH_ROWS)
    ]
    return table("Errors in time", names, "n" * len(names), rows)


def scaling(forecast: Forecast, *, short: bool = False) -> Table:
    """What a doubling of the width multiplies, by role."""
    names = ["role", "weights", "initial scale", "Adam rate", "SGD rate"]
    rows = [
        (
            row.role,
            count(len(row.weights)),
            f"\N{MULTIPLICATION SIGN} {number(row.init_factor)}",
            f"\N{MULTIPLICATION SIGN} {number(row.adam_factor)}",
            f"\N{MULTIPLICATION SIGN} {number(row.sgd_factor)}",
        )
        for row in forecast.scaling
    ]
    title = "What a doubling of the width multiplies"
    if short:
        return table(title, names, "tnnnn", rows)
    more = [
        (
            *cells,
            f"\N{MULTIPLICATION SIGN} {number(row.multiplier_factor)}",
            _names(row.weights),
            row.reason,
        )
        for cells, row in zip(rows, forecast.scaling, strict=True)
    ]
    return table(title, [*names, "layer input", "which", "why"], "tnnnnntt", more)


def _names(weights: tuple[str, ...], most: int = 3) -> str:
    shown = ", ".join(weights[:most])
    return shown if len(weights) <= most else f"{shown} and {count(len(weights) - most)} more"
