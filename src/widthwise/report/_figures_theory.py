"""The figures on finite width and training time."""

from widthwise.core import Axis, Figure, Guide, Line, Points, Series
from widthwise.forecast._types import Forecast

FACTORS = tuple(2.0**power for power in range(-2, 5))  # widths shown, as multiples of the network's own


def finite_width_layers(forecast: Forecast) -> Figure | None:
    """Spread between initialisations layer by layer, of a perceptron."""
    found = forecast.fluctuations
    if found is None or len(found.layers_ntk) < 2:
        return None
    layers = tuple(float(place) for place in range(len(found.layers_ntk)))
    return Figure(
        "Spread between initialisations, layer by layer",
        Axis("layer", "category", tuple(str(layer) for layer in range(1, len(layers) + 1))),
        Axis("relative standard deviation"),
        (
            Line("variance of activations", layers, found.layers_kernel, 0, markers=True),
            Line("tangent kernel of one output", layers, found.layers_ntk, 1, markers=True),
        ),
        "Predicted standard deviation between random initialisations over the mean, to first order in 1/width. The "
        "first layer's is zero: given the data, its outputs are independent and Gaussian.",
    )


def finite_width(forecast: Forecast) -> Figure | None:
    """Spread and movement of the tangent kernel against width, of a perceptron."""
    found = forecast.fluctuations
    if found is None or found.relative_ntk is None or not found.ratio > 0:
        return None
    own = (len(found.widths) - 2) / found.ratio
    widths = tuple(factor * own for factor in FACTORS)
    series: list[Series] = [
        Guide(own, f"this network, {own:.0f}"),
        Line("tangent kernel, predicted", widths, tuple(found.relative_ntk / f**0.5 for f in FACTORS), 0, markers=True),
    ]
    if found.feature_learning:
        values = tuple(found.feature_learning / f for f in FACTORS)
        series.append(Line("its movement in training", widths, values, 2, markers=True))
    if found.measured_ntk is not None:
        series.append(Points("tangent kernel, measured", (own,), (found.measured_ntk,), slot=0))
    return Figure(
        "Finite-width effects against width",
        Axis("width of the hidden layers", "log"),
        Axis("relative size", "log"),
        tuple(series),
        "The same network at other widths: the spread between initialisations falls like 1/sqrt(width), the movement "
        "of the kernel in training (what it learns beyond its kernel) like 1/width.",
    )


def dynamics(forecast: Forecast) -> Figure | None:
    """Errors of the linearised network against training time."""
    found = forecast.dynamics
    if found is None or not found.steps:
        return None
    floor = 1e-3 * min(found.test_mse)  # below it the training error tells nothing
    shown = [place for place, value in enumerate(found.train_mse) if value > floor]
    series: list[Series] = [Guide(found.ridge_mse, "best ridge", "horizontal")]
    if found.best_steps is not None:
        series.append(Guide(found.best_steps, "best stop"))
    series += [
        Line("test error", found.steps, found.test_mse, 0),
        Line(
            "training error",
            tuple(found.steps[place] for place in shown),
            tuple(found.train_mse[place] for place in shown),
            1,
        ),
    ]
    return Figure(
        "Errors against training time",
        Axis("steps of gradient descent at half the largest stable rate", "log"),
        Axis("error (MSE)", "log"),
        tuple(series),
        f"Gradient flow of the network linearised at its initialisation, from outputs of zero, on {found.n} examples; "
        f"test error on {found.held_out} held-out ones. The horizontal line is the best ridge regression on the same "
        "examples.",
    )
