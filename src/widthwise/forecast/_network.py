"""The network section: weights, signal propagation, kernel rules."""

from math import isfinite

from torch import Tensor, nn

from widthwise.core import ModelError, UnsupportedOperation
from widthwise.forecast._grams import Grams, KernelChoice, needs_samples
from widthwise.forecast._run import Run
from widthwise.forecast._types import Criticality, DepthScales, NetworkSection, RuleRow, WeightRow
from widthwise.kernels import RULES, InitReport, Limit, Susceptibility, init_report, susceptibility
from widthwise.probe import activation_moments

PROBED = 64
FEW = 2
CRITICAL = 0.05

EXPLANATIONS = {
    "ordered": "small differences between inputs shrink from layer to layer, and gradients with them: in a deeper "
    "network of this kind inputs become alike",
    "critical": "small differences between inputs, and gradients, keep their size from layer to layer",
    "kept": "small differences between inputs, and gradients, change by less than a factor e over the network",
    "chaotic": "small differences between inputs, and gradients, grow from layer to layer: in a deeper network of "
    "this kind training becomes unstable",
}


def network_section(run: Run, grams: Grams, choice: KernelChoice) -> NetworkSection:
    """Describe the network at its initialisation, on some of the samples."""
    module = run.source.build(seed=run.settings.seed)
    weights = () if choice.program is None else choice.program.weights
    rows = tuple(
        WeightRow(w.name, w.role.value, w.shape, w.fan_in, w.fan_out, w.init_std, w.init_source) for w in weights
    )
    return NetworkSection(
        name=run.source.name,
        parameters=sum(p.numel() for p in module.parameters()),
        weights=rows,
        criticality=_criticality(module, run.train.inputs[:PROBED], choice),
        rules=_rules(grams, choice),
        kernel=choice.kind,
        kernel_note=choice.note,
        kernel_rule=choice.rule,
        kernel_error=grams.error if isfinite(grams.error) else None,
    )


def _criticality(module: nn.Module, inputs: Tensor, choice: KernelChoice) -> Criticality:
    report = _report(choice.limit, inputs)
    exact = choice.limit is not None and not needs_samples(choice.limit)
    found = susceptibility(choice.limit, inputs) if exact and choice.limit else Susceptibility(None, 0, "unknown")
    if report is not None and not report.plain and report.verdict != "unknown":
        found = Susceptibility(report.gradient_ratio ** (1 / len(report.chi)), len(report.chi), report.verdict)
    moments = activation_moments(module, inputs)
    if found.chi is None:
        reason = "fewer than two nonlinear layers" if exact else "no exact rule"
        explanation = f"Not determined: {reason}."
    else:
        kept = found.verdict == "critical" and abs(found.chi - 1) > CRITICAL
        meaning = EXPLANATIONS["kept" if kept else found.verdict]
        of = "layer" if report is None or report.plain else "block"
        explanation = f"chi is {found.chi:.3g} per {of} ({found.verdict}): {meaning}."
    return Criticality(
        chi=found.chi,
        verdict=found.verdict,
        explanation=" ".join([explanation, *_said(report)]),
        layers=tuple(moments.names),
        forward=tuple(moments.forward.tolist()),
        gradient=tuple(moments.backward.tolist()),
        depth=depth_scales(choice.limit, inputs) if exact and report is not None and report.plain else None,
    )


def _report(limit: Limit | None, inputs: Tensor) -> InitReport | None:
    """What the initialisation does, on two inputs where the network is no plain chain; None where nothing tells."""
    if limit is None:
        return None
    try:
        return init_report(limit, inputs[:FEW])
    except (ModelError, UnsupportedOperation):
        return None


def _said(report: InitReport | None) -> list[str]:
    """What a network that is no plain chain does from block to block, and the mend."""
    if report is None or report.verdict == "unknown":
        return []
    if report.plain:
        return [report.mend] if report.mend else []
    blocks = len(report.chi) + 1
    growth = (
        f"From the last to the first of the {blocks} places that every signal passes ({report.layers[0]} to "
        f"{report.layers[blocks - 1]}) squared gradients change by a factor {report.gradient_ratio:.3g}, and the gap "
        f"between like inputs by {report.slope.prod():.3g} on the way forward."
    )
    return [growth, report.mend] if report.mend else [growth]


def depth_scales(limit: Limit | None, inputs: Tensor) -> DepthScales | None:
    """Depth scales of a plain feed-forward network with a hidden-to-hidden layer, None for any other."""
    if limit is None or not inputs.is_floating_point():
        return None
    try:
        found = init_report(limit, square_of_inputs=float(inputs.double().square().mean()))
    except (ModelError, UnsupportedOperation):
        return None
    point = found.point
    if point is None:
        return None
    return DepthScales(
        activation=found.activation,
        weight_variance=float(point.weight_variance),
        bias_variance=float(point.bias_variance),
        chi_1=float(point.chi_1),
        correlation_depth=_finite(float(point.xi_c)),
        trainable_depth=_finite(float(point.trainable_depth)),
        chi=tuple(found.chi.tolist()),
        gradient_ratio=found.gradient_ratio,
        inverse_widths=found.inverse_widths,
        log_spread=_finite(found.log_spread),
        note=_depth_note(found),
    )


def _depth_note(found: InitReport) -> str:
    return "" if found.dense else "The scales hold away from the borders of the picture, whose padding is left out."


def _finite(value: float) -> float | None:
    return value if isfinite(value) else None


def _rules(grams: Grams, choice: KernelChoice) -> tuple[RuleRow, ...]:
    """Exact rules by the limit's certificate; a kernel of finite networks samples every operation."""
    if choice.kind == "infinite" and choice.limit is not None:
        rows = choice.limit.certificate
        return tuple(RuleRow(r.node, r.op, r.module_path, r.rule, r.error) for r in rows)
    if choice.program is None:
        return ()
    return tuple(
        RuleRow(node.name, node.op, node.module_path, "sampled" if node.op in RULES else "fallback", grams.error)
        for node in choice.program.nodes
        if node.kind == "op"
    )
