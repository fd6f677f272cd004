"""Forecasts made by hand: numbers of the size that Fashion-MNIST gives at P = 4000, and the degenerate cases."""

import math
from dataclasses import replace

from widthwise.forecast._types import (
    Criticality,
    DepthScales,
    Forecast,
    LearningPoint,
    NetworkSection,
    OverfittingSection,
    RuleRow,
    TaskSection,
    TrainingRow,
    WeightRow,
    WidthPoint,
    WidthSurface,
)
from widthwise.forecast._types_theory import AdviceRow, DynamicsSection, FluctuationsSection, ScalingRow

SAMPLES = 4000
SIZES = (30, 60, 120, 250, 500, 1000, 2000, 4000, 8000, 16000, 32000)
POWER = 0.9


def error_at(n: float, ridge: str) -> float:
    """A made-up curve: a power law down to a floor; zero ridge costs 14 % more."""
    return (0.09 + 1.9 * (n + 8) ** -0.32) * (1.0 if ridge == "optimal" else 1.14)


def learning_point(n: int, ridge: str) -> LearningPoint:
    predicted = error_at(n, ridge)
    spread = 0.02 if n <= SAMPLES else 0.02 + 0.03 * math.log2(n / SAMPLES)
    measured = predicted * (1 + 0.02 * math.sin(n)) if n <= SAMPLES // 2 else None
    accuracy = 1 - 0.62 * predicted
    return LearningPoint(
        n=n,
        ridge=ridge,  # type: ignore[arg-type]
        ridge_value=0.0 if ridge == "zero" else 0.8 * n**-0.1,
        predicted_mse=predicted,
        predicted_mse_low=predicted * (1 - spread),
        predicted_mse_high=predicted * (1 + spread),
        predicted_accuracy=accuracy,
        measured_mse=measured,
        measured_mse_stderr=None if measured is None else 0.3 * predicted * n**-0.5,
        measured_accuracy=None if measured is None else accuracy + 0.003,
        measured_accuracy_stderr=None if measured is None else 0.15 * n**-0.5,
        extrapolated=n > SAMPLES,
    )


def network_section(layers: int = 4) -> NetworkSection:
    names = ["features.conv0", *(f"features.conv{k}" for k in range(1, layers - 1)), "head"]
    weights = tuple(
        WeightRow(f"{name}.weight", "hidden", (64, 64, 3, 3), 576, 576, 0.0589 / (1 + k % 3), "module")
        for k, name in enumerate(names)
    )
    bias = WeightRow("head.bias", "bias", (10,), 1, 10, 0.0, "module")
    return NetworkSection(
        name="cnn",
        parameters=1_234_570,
        weights=(*weights, bias),
        criticality=Criticality(
            chi=0.993,
            verdict="critical",
            explanation="ReLU with He initialisation keeps the variance of signal and gradient",
            layers=tuple(names),
            forward=tuple(1.02 * 0.98**k for k in range(layers)),
            gradient=tuple(0.4 * 0.97 ** (layers - k) for k in range(layers)),
            depth=DepthScales("relu", 1.9, 0.01, 0.95, 19.5, 117.0, (0.95, 0.95), 0.9025, 0.047, None, "No borders."),
        ),
        rules=(
            RuleRow("conv2d", "aten.conv2d.default", "features.conv0", "exact", 0.0),
            RuleRow("relu", "aten.relu.default", "features.act0", "exact", 0.0),
            RuleRow("gelu", "aten.gelu.default", "features.act1", "quadrature", 2.3e-11),
        ),
        kernel="infinite",
        kernel_note="every node has an infinite-width rule",
    )


def task_section() -> TaskSection:
    index = tuple(sorted({round(10 ** (k / 10)) for k in range(37)}))
    return TaskSection(
        samples=SAMPLES,
        held_out=2000,
        inputs=784,
        outputs=10,
        alpha=1.2913,
        alpha_stderr=0.0312,
        beta=1.3187,
        beta_stderr=0.0224,
        noise=0.0412,
        noise_error=1.311,
        noise_error_stderr=0.028,
        target_power=POWER,
        eigenvalues=tuple(0.8 * k**-1.4 for k in index),
        eigenvalue_index=index,
        cumulative_power=tuple(0.93 * (1 - k**-0.35) + 0.01 for k in index),
        nngp_eigenvalues=tuple(0.5 * k**-1.7 for k in index),
        nngp_cumulative_power=tuple(0.93 * (1 - k**-0.32) + 0.01 for k in index),
    )


def width_points(sizes: tuple[int, ...] = (1000,)) -> tuple[WidthPoint, ...]:
    """Both ridges at each width of each size; the optimal ridge differs from width to width."""
    points = []
    for n in sizes:
        for width in (32, 64, 128, 256, 512):
            for ridge, value in (("zero", 1e-9), ("optimal", 30 / width)):
                predicted = error_at(n, ridge) * (1 + 30 / width)
                measured = predicted * (1 + 0.01 * math.cos(width))
                points.append(WidthPoint(width, 4 * width, n, ridge, value, predicted, measured, 0.004))  # type: ignore[arg-type]
    return tuple(points)


def surface() -> WidthSurface:
    sizes, widths = (250, 1000, 4000, 16000), (32, 64, 128, 256, 512)
    mse = tuple(tuple(error_at(n, "optimal") * (1 + 30 / width) for width in widths) for n in sizes)
    return WidthSurface(
        sizes, widths, mse, "more data: doubling it lowers the error by 13 %, doubling the width by 3 %"
    )


def training_row(n: int, test_mse: float) -> TrainingRow:
    return TrainingRow(
        width=64,
        parameters=1_234_570,
        n=n,
        steps=400,
        lr=0.05,
        train_mse=0.03,
        test_mse=test_mse,
        test_accuracy=0.861,
        kernel_mse=error_at(n, "optimal"),
        kernel_accuracy=0.84,
        diverged=False,
        seconds=12.3,
    )


def fluctuations() -> FluctuationsSection:
    """A perceptron with two hidden layers of 256, measured too."""
    return FluctuationsSection(
        exact=True,
        widths=(784, 256, 256, 10),
        activation="relu",
        nu=5.0,
        ratio=1 / 128,
        strength=5 / 128,
        optimal_ratio=0.016,
        relative_to_optimum=0.488,
        verdict="near the optimum",
        advised_width=125.0,
        relative_kernel=0.14,
        relative_ntk=0.16,
        relative_ntk_between=0.11,
        feature_learning=0.012,
        layers_kernel=(0.0, 0.1, 0.14),
        layers_ntk=(0.0, 0.09, 0.16),
        measured_ntk=0.17,
        measured_draws=6,
        measured_examples=32,
        sentence="Between two seeds the NTK differs by about 16 %.",
        notes=("one draw stands for the variance.",),
    )


def dynamics() -> DynamicsSection:
    steps = tuple(0.2 * 3.0**k for k in range(12))
    return DynamicsSection(
        n=1200,
        held_out=600,
        rate=0.01,
        largest_rate=0.02,
        condition_number=2e5,
        steps=steps,
        train_mse=tuple(0.9 / (1 + step / 50) for step in steps),
        test_mse=tuple(0.2 + 0.7 / (1 + step / 60) + step / 5e6 for step in steps),
        test_accuracy=tuple(0.9 - 0.8 / (1 + step / 60) for step in steps),
        final_mse=0.26,
        best_steps=steps[9],
        best_mse=0.2165,
        ridge_value=0.4,
        ridge_mse=0.214,
        stopping_ridge=0.3,
        module_rate=0.6,
        module_rate_examples=128,
        parametrization="ntk",
    )


SCALING = (
    ScalingRow("input", ("features.conv0.weight",), "finite fan-in, growing fan-out", 1.0, 1.0, 1.0, 2.0),
    ScalingRow(
        "hidden", tuple(f"features.conv{k}.weight" for k in range(1, 6)), "both fans grow", 0.707, 1.0, 0.5, 1.0
    ),
    ScalingRow("output", ("head.weight",), "growing fan-in, finite fan-out", 0.5, 1.0, 0.5, 0.5),
)


def make_forecast() -> Forecast:
    return Forecast(
        network=network_section(),
        task=task_section(),
        learning_curve=tuple(learning_point(n, ridge) for ridge in ("zero", "optimal") for n in SIZES),
        width_curve=width_points(),
        width_surface=surface(),
        overfitting=OverfittingSection(
            n=4000,
            cost=1.14,
            coefficient=1.31,
            verdict="tempered",
            optimal_ridge=0.35,
            optimal_fitting_ratio=0.12,
            obligatory=True,
            explanation="beta is above alpha, so the best ridge leaves little training error",
        ),
        training=(training_row(1000, 0.27), training_row(4000, 0.185)),
        training_note="the learning rate is the best of three",
        advice=(
            AdviceRow("Double the data, to 8000 examples", 0.224, 0.197, "high", "the learning curve is still falling"),
            AdviceRow("Double the width, to 128", 0.224, 0.218, "medium", "the width curve is nearly flat here"),
            AdviceRow("Set the ridge (weight decay) to 0.35", 0.255, 0.224, "high", "zero ridge costs 14 %"),
        ),
        notes=("Beyond 4000 examples the eigenvalues are continued by their power law.",),
        data={
            "name": "fashion-mnist",
            "samples": 70000,
            "input_shape": [1, 28, 28],
            "outputs": 10,
            "classes": ["a", "b"],
            "source": "package",
        },
        settings={"samples": 4000, "seed": 0, "kernel": "auto", "ridge": None},
        seconds={"kernel": 41.2, "spectrum": 7.9, "learning curve": 22.1, "training": 24.6},
        fluctuations=fluctuations(),
        dynamics=dynamics(),
        scaling=SCALING,
        scaling_notes=("Attention scores are divided by the head size.",),
    )


def regression() -> Forecast:
    """No accuracies, and targets that are noise for the most part."""
    base = make_forecast()
    none = {"predicted_accuracy": None, "measured_accuracy": None, "measured_accuracy_stderr": None}
    return replace(
        base,
        learning_curve=tuple(replace(point, **none) for point in base.learning_curve),
        training=tuple(replace(row, test_accuracy=None, kernel_accuracy=None) for row in base.training),
        task=replace(base.task, outputs=1, noise=0.7),
    )


def bare() -> Forecast:
    """An empirical kernel on a network with one weight; nothing measured, no width, no training, no advice."""
    base = make_forecast()
    none = {
        "measured_mse": None,
        "measured_mse_stderr": None,
        "measured_accuracy": None,
        "measured_accuracy_stderr": None,
    }
    return replace(
        base,
        network=replace(
            base.network,
            weights=base.network.weights[:1],
            criticality=Criticality(None, "unknown", "there is no infinite-width rule for max pooling"),
            rules=(),
            kernel="empirical",
            kernel_note="max pooling has no infinite-width rule",
        ),
        task=replace(
            base.task, noise_error=None, noise_error_stderr=None, nngp_eigenvalues=(), nngp_cumulative_power=()
        ),
        learning_curve=tuple(replace(point, **none) for point in base.learning_curve if not point.extrapolated),
        width_curve=(),
        width_surface=None,
        training=(),
        training_note="",
        advice=(),
        notes=(),
        settings={},
        seconds={},
        fluctuations=None,
        dynamics=None,
        scaling=(),
        scaling_notes=(),
    )


def not_finite() -> Forecast:
    """Infinite and undefined numbers wherever a computation may yield them; a training run that diverged."""
    base = make_forecast()
    nan, inf = math.nan, math.inf
    points = tuple(
        replace(point, predicted_mse_low=nan, predicted_mse_high=inf, measured_mse_stderr=nan)
        for point in base.learning_curve
    )
    return replace(
        base,
        task=replace(base.task, alpha=nan, alpha_stderr=nan, beta=nan, beta_stderr=inf, noise=nan, target_power=0.0),
        learning_curve=points,
        width_curve=tuple(replace(point, predicted_mse=inf) for point in base.width_curve),
        overfitting=replace(base.overfitting, cost=inf, optimal_fitting_ratio=nan, coefficient=inf),
        fluctuations=replace(
            fluctuations(),
            exact=False,
            widths=(),
            activation="",
            nu=nan,
            ratio=nan,
            strength=nan,
            optimal_ratio=nan,
            relative_to_optimum=nan,
            verdict="unknown",
            advised_width=None,
            relative_kernel=None,
            relative_ntk=None,
            relative_ntk_between=None,
            feature_learning=None,
            layers_kernel=(),
            layers_ntk=(),
            sentence="Measured.",
        ),
        dynamics=replace(
            dynamics(),
            test_mse=(inf,) * 12,
            train_mse=(nan,) * 12,
            final_mse=inf,
            best_steps=None,
            best_mse=inf,
            stopping_ridge=None,
            module_rate=None,
            test_accuracy=(),
        ),
        training=(replace(base.training[0], width=None, diverged=True, test_mse=inf, train_mse=nan),),
        network=replace(
            base.network, criticality=replace(base.network.criticality, forward=(1.0, 0.0, nan, inf), depth=None)
        ),
    )


def many_weights() -> Forecast:
    """A network of 150 layers."""
    base = make_forecast()
    return replace(base, network=network_section(layers=150))


CASES = {
    "usual": make_forecast,
    "regression": regression,
    "bare": bare,
    "not finite": not_finite,
    "many weights": many_weights,
}
