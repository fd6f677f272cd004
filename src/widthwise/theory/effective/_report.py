"""What finite width does to a network: fluctuations between seeds, feature learning, depth against width."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from typing import Literal

import numpy as np

from widthwise.core import Value
from widthwise.numerics import Activation
from widthwise.program import Program
from widthwise.theory.effective._critical import Criticality, critical
from widthwise.theory.effective._flow import Flow, PerLayer, check_widths, flow, with_critical
from widthwise.theory.effective._gauss import EffectiveTheoryError, Elementwise, as_activation
from widthwise.theory.effective._network import Perceptron, read
from widthwise.theory.effective._ratio import optimal_ratio

Verdict = Literal["kernel-like", "near the optimum", "too deep for its width", "unknown"]
Rates = Literal["standard", "ntk"]

NEAR = 3.0  # factor around r* that counts as near it
KEPT = (0.1, 10.0)  # change of kernel or gradients from first to last layer beyond which a note is due


@dataclass(frozen=True)
class FiniteWidthReport(Value):
    """Finite-width effects of one network at initialisation.

    Attributes:
        widths: n_0 .. n_L of a perceptron; the hidden widths that were found for any other network.
        activation: its name.
        exact: whether the network is a perceptron, so that `flow` describes it; else only nu and the ratios are known.
        nu: growth of V / (n K^2) per layer at criticality.
        ratio: depth over width, the sum of 1/n over hidden layers.
        strength: nu times ratio, the parameter in which the theory expands.
        optimal_ratio: r*, for the number of outputs.
        relative_to_optimum: ratio / r*.
        verdict: in words.
        relative_kernel: relative standard deviation of the output's variance between seeds (NaN if not `exact`).
        relative_ntk: that of the NTK of one output.
        relative_ntk_between: root mean square of the NTK between two outputs, over its mean.
        feature_learning: size of the dNTK over n theta^2: relative movement of the NTK while the network learns.
        criticality: class and critical initialisation of the activation.
        flow: the layers, where exact.
        notes: what was assumed, and what should be changed.
    """

    widths: tuple[int, ...]
    activation: str
    exact: bool
    nu: float
    ratio: float
    strength: float
    optimal_ratio: float
    relative_to_optimum: float
    verdict: Verdict
    relative_kernel: float
    relative_ntk: float
    relative_ntk_between: float
    feature_learning: float
    criticality: Criticality
    flow: Flow | None
    notes: tuple[str, ...]


def finite_width_report(
    program: Program | None = None,
    *,
    widths: Sequence[int] | None = None,
    activation: Activation | Elementwise | str | None = None,
    C_b: PerLayer | None = None,
    C_W: PerLayer | None = None,
    outputs: int | None = None,
    square: float = 1.0,
    rates: Rates = "standard",
) -> FiniteWidthReport:
    """How much of a network's behaviour is an effect of its finite width.

    Args:
        program: from `trace`; widths, activation and initial variances are read off it. For networks that are no
            perceptron the sum of 1/width over the layers is used, and the notes say so.
        widths, activation, C_b, C_W: instead of, or over what the program says (C_b, C_W left out: critical).
        outputs: number of outputs n_L for r*; from the widths if left out.
        square: mean square of the inputs' features.
        rates: ``"standard"``: one learning rate for all parameters (lambda_b = 1, lambda_W = n_{l-1});
            ``"ntk"``: lambda_b = lambda_W = 1.

    Raises:
        EffectiveTheoryError: neither a program nor widths and an activation, or numbers that do not fit.

    >>> report = finite_width_report(widths=[10, 64, 64, 64, 1], activation="relu")
    >>> round(report.ratio, 4), round(report.strength, 3), report.verdict
    (0.0469, 0.234, 'near the optimum')
    """
    net = _network(program, widths, activation, C_b, C_W)
    if net.activation is None:
        raise EffectiveTheoryError("no activation was recognised in the network; name it with activation=.")
    found = critical(net.activation)
    hidden = net.widths[1:-1] if net.exact else net.widths
    ratio = float(sum(1 / width for width in hidden))
    count = outputs or (net.widths[-1] if net.exact else 1)
    best = float("nan") if isnan(found.nu) else optimal_ratio(found.nu, count)
    described = _flow(net, square, rates) if net.exact else None
    nan = float("nan")
    names = ("relative_kernel", "relative_ntk", "relative_ntk_between", "feature_learning")
    values = {name: nan if described is None else float(getattr(described, name)[-1]) for name in names}
    notes = (*net.notes, *_notes(net, found, described))
    return FiniteWidthReport(
        net.widths, net.activation.name, net.exact, found.nu, ratio, found.nu * ratio, best, ratio / best,
        _verdict(ratio / best), **values, criticality=found, flow=described, notes=notes,
    )  # fmt: skip


def _network(
    program: Program | None,
    widths: Sequence[int] | None,
    activation: Activation | Elementwise | str | None,
    C_b: PerLayer | None,
    C_W: PerLayer | None,
) -> Perceptron:
    given = None if program is None else read(program)
    if given is None and (widths is None or activation is None):
        raise EffectiveTheoryError("nothing to report on; give a traced program, or widths= and activation=.")
    f = given.activation if activation is None and given is not None else as_activation(activation or "identity")
    if given is not None and widths is None:
        if not given.exact:
            return Perceptron(given.widths, f, (), (), given.notes, False)
        C_b = given.C_b if C_b is None else C_b
        C_W = given.C_W if C_W is None else C_W
        return Perceptron(given.widths, f, _numbers(C_b), _numbers(C_W), given.notes, True)
    assert widths is not None and f is not None
    C_b, C_W = with_critical(f, C_b, C_W)
    return Perceptron(check_widths(widths), f, _numbers(C_b), _numbers(C_W), (), True)


def _numbers(values: PerLayer) -> tuple[float, ...]:
    return tuple(float(value) for value in np.atleast_1d(np.asarray(values, dtype=float)))


def _flow(net: Perceptron, square: float, rates: Rates) -> Flow:
    assert net.activation is not None
    lambda_W: PerLayer = 1.0 if rates == "ntk" else [float(width) for width in net.widths[:-1]]
    C_b, C_W = (values if len(values) > 1 else values[0] for values in (net.C_b, net.C_W))
    return flow(net.widths, net.activation, C_b, C_W, 1.0, lambda_W, square=square)


def _verdict(relative: float) -> Verdict:
    if isnan(relative):
        return "unknown"
    if relative > NEAR:
        return "too deep for its width"
    return "near the optimum" if relative > 1 / NEAR else "kernel-like"


def _notes(net: Perceptron, found: Criticality, described: Flow | None) -> list[str]:
    notes = [f"{found.activation} has no critical point: {found.advice}"] if found.kind == "none" else []
    if described is None:
        return notes
    kernel = float(described.K[-2] / described.K[0])
    gradient = float(np.prod(described.chi_perp[:-1]))
    low, high = KEPT
    if not low < kernel < high and found.kind != "K*=0":
        notes.append(f"the kernel changes by a factor of {kernel:.2g} from the first to the last hidden layer.")
    if not low < gradient < high:
        word = "shrink" if gradient < 1 else "grow"
        fix = f"; C_b = {found.C_b:.4g} and C_W = {found.C_W:.4g} keep them" if found.kind != "none" else ""
        notes.append(f"squared gradients {word} by a factor of {gradient:.2g} on the way to the first layer{fix}.")
    if described.relative_kernel[-1] > 1:
        notes.append("fluctuations exceed the mean: the expansion in 1/width does not hold for this network.")
    return notes
