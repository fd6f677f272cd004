"""The section "Finite width": how much kernels differ between seeds, by theory and by the module itself."""

from dataclasses import dataclass
from math import isfinite

from torch import Tensor

from widthwise.forecast._cost import SPEED, forward_operations
from widthwise.forecast._grams import KernelChoice
from widthwise.forecast._run import Run
from widthwise.forecast._types_theory import FluctuationsSection
from widthwise.kernels import monte_carlo_kernel
from widthwise.program import Program
from widthwise.theory import EffectiveTheoryError, FiniteWidthReport, Fluctuations, fluctuations

DRAWS = 6
EXAMPLES = 32
MOST_SECONDS = 2.0  # for the measurement on the module itself
GRADIENTS = 3.0  # a gradient of one example, in forward passes


@dataclass(frozen=True)
class Spread:
    """Relative standard deviation of the module's own tangent kernel between initialisations."""

    value: float | None
    draws: int
    examples: int


def finite_width_section(run: Run, choice: KernelChoice) -> FluctuationsSection | None:
    """Predicted fluctuations, and those of the module's own kernel; None where neither is known."""
    found = None if choice.program is None else predicted(choice.program, run.train.inputs, run.train.outputs)
    spread = Spread(*run.stages.plain("fluctuations", lambda: _measure(run)))
    if found is not None:
        return _section(found, spread, found.report)
    return None if spread.value is None else _measured_only(spread)


def predicted(program: Program, inputs: Tensor, outputs: int) -> Fluctuations | None:
    """The theory's figures; None where no activation or no layer of growing width was recognised."""
    square = float(inputs.double().square().mean()) if inputs.is_floating_point() else 1.0
    try:
        return fluctuations(program, outputs=outputs, square=square or 1.0)
    except EffectiveTheoryError:
        return None


def _measure(run: Run) -> list[float | int | None]:
    """``[spread, draws, examples]`` of the empirical tangent kernel on a few samples; no spread if it costs much."""
    count = min(EXAMPLES, len(run.train))
    if not run.source.fresh:
        return [None, 0, 0]
    module = run.source.build(seed=run.settings.seed)
    parameters = sum(p.numel() for p in module.parameters())
    operations = GRADIENTS * forward_operations(module, run.train.inputs[:2]) + count * parameters
    if DRAWS * count * operations > MOST_SECONDS * SPEED:
        return [None, 0, 0]
    kernel = monte_carlo_kernel(run.source.make, run.train.inputs[:count], draws=DRAWS, seed=run.settings.seed)
    value = kernel.ntk_error * DRAWS**0.5  # from the error of the mean back to that of one network
    return [value if isfinite(value) else None, DRAWS, count]


def _section(found: Fluctuations, spread: Spread, report: FiniteWidthReport) -> FluctuationsSection:
    hidden = report.widths[1:-1] if report.exact else report.widths
    advised = len(hidden) / report.optimal_ratio if report.exact and isfinite(report.optimal_ratio) else None
    layers = report.flow
    return FluctuationsSection(
        exact=report.exact,
        widths=report.widths,
        activation=report.activation,
        nu=report.nu,
        ratio=report.ratio,
        strength=report.strength,
        optimal_ratio=report.optimal_ratio,
        relative_to_optimum=report.relative_to_optimum,
        verdict=report.verdict,
        advised_width=advised,
        relative_kernel=_number(report.relative_kernel),
        relative_ntk=_number(report.relative_ntk),
        relative_ntk_between=_number(report.relative_ntk_between),
        feature_learning=_number(report.feature_learning),
        layers_kernel=() if layers is None else tuple(float(v) for v in layers.relative_kernel),
        layers_ntk=() if layers is None else tuple(float(v) for v in layers.relative_ntk),
        measured_ntk=spread.value,
        measured_draws=spread.draws,
        measured_examples=spread.examples,
        sentence=found.sentence,
        notes=report.notes,
    )


def _measured_only(spread: Spread) -> FluctuationsSection:
    """No activation of the table, or no layer of growing width, was recognised."""
    nan = float("nan")
    return FluctuationsSection(
        exact=False, widths=(), activation="", nu=nan, ratio=nan, strength=nan, optimal_ratio=nan,
        relative_to_optimum=nan, verdict="unknown", advised_width=None, relative_kernel=None, relative_ntk=None,
        relative_ntk_between=None, feature_learning=None, layers_kernel=(), layers_ntk=(), measured_ntk=spread.value,
        measured_draws=spread.draws, measured_examples=spread.examples,
        sentence="The theory of finite width has no word on this network, so that its spread was only measured.",
        notes=(),
    )  # fmt: skip


def _number(value: float) -> float | None:
    return value if isfinite(value) else None
