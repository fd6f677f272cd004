"""The section "Finite width" of a report: numbers and figures."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from widthwise.core import Axis, Figure, Guide, Line, Value
from widthwise.program import Program
from widthwise.theory.effective._flow import Flow
from widthwise.theory.effective._report import FiniteWidthReport, finite_width_report

FACTORS = 2.0 ** np.arange(-2, 5)  # widths shown, as multiples of the network's own


@dataclass(frozen=True)
class Fluctuations(Value):
    """Numbers and figures of a network's finite-width effects.

    Attributes:
        report: the numbers.
        sentence: the main result in words.
        figures: by name: ``"layers"``, fluctuations layer by layer, and ``"width"``, against width; empty for
            networks that are no perceptron.
    """

    report: FiniteWidthReport
    sentence: str
    figures: dict[str, Figure] = field(default_factory=dict, metadata={"plain": False})


def fluctuations(program: Program | None = None, **options: Any) -> Fluctuations:
    """Finite-width effects of a traced network, ready for a report.

    Args:
        program: from `trace`.
        options: as `finite_width_report` takes them.

    Raises:
        EffectiveTheoryError: as `finite_width_report`.

    >>> found = fluctuations(widths=[10, 64, 64, 1], activation="tanh")
    >>> found.sentence
    'Between two seeds the NTK differs by about 5 %; depth over width is 0.12 times its optimum.'
    """
    report = finite_width_report(program, **options)
    figures = {} if report.flow is None else {"layers": _layers(report.flow), "width": _widths(report)}
    return Fluctuations(report, _sentence(report), figures)


def _sentence(report: FiniteWidthReport) -> str:
    ratio = f"depth over width is {report.relative_to_optimum:.2g} times its optimum"
    if report.verdict == "unknown":
        ratio = f"{report.activation} has no critical initialisation, so no best depth over width is known"
    if report.flow is None:
        return f"{ratio[0].upper()}{ratio[1:]}, if the network behaves like a perceptron of its widths."
    return f"Between two seeds the NTK differs by about {100 * report.relative_ntk:.2g} %; {ratio}."


def _layers(flow: Flow) -> Figure:
    layers = tuple(float(layer) for layer in range(1, len(flow.K) + 1))
    lines = (
        _line("kernel", layers, flow.relative_kernel, 0),
        _line("NTK of one neuron", layers, flow.relative_ntk, 1),
        _line("NTK between neurons", layers, flow.relative_ntk_between, 2),
    )
    caption = (
        "Standard deviation between random initialisations over the mean, from the recursions at order 1/width. "
        "The first layer is exactly Gaussian and does not fluctuate."
    )
    return Figure("Fluctuations between seeds", Axis("layer"), Axis("relative standard deviation"), lines, caption)


def _widths(report: FiniteWidthReport) -> Figure:
    assert report.flow is not None
    hidden = report.widths[1:-1]
    widths = tuple(float(factor * len(hidden) / sum(1 / width for width in hidden)) for factor in FACTORS)
    shrink = 1 / np.sqrt(FACTORS)
    lines: tuple[Line | Guide, ...] = (
        _line("kernel", widths, report.relative_kernel * shrink, 0),
        _line("NTK", widths, report.relative_ntk * shrink, 1),
        _line("feature learning", widths, report.feature_learning / FACTORS, 2),
        Guide(widths[2], "this network"),
    )
    caption = (
        "The same network at other widths: fluctuations fall like 1/sqrt(width), the movement of the NTK in training "
        "like 1/width."
    )
    return Figure("Finite-width effects", Axis("width", "log"), Axis("relative size", "log"), lines, caption)


def _line(name: str, x: Sequence[float], y: np.ndarray, slot: int) -> Line:
    return Line(name, tuple(x), tuple(float(value) for value in y), slot=slot, markers=True)
