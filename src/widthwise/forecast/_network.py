"""The network section: weights, signal propagation, kernel rules."""

from torch import Tensor, nn

from widthwise.forecast._grams import Grams, KernelChoice
from widthwise.forecast._run import Run
from widthwise.forecast._types import Criticality, NetworkSection, RuleRow, WeightRow
from widthwise.kernels import RULES, Susceptibility, susceptibility
from widthwise.probe import activation_moments

PROBED = 64

EXPLANATIONS = {
    "ordered": "small differences between inputs shrink from layer to layer, and gradients with them: in a deeper "
    "network of this kind inputs become alike",
    "critical": "small differences between inputs, and gradients, keep their size from layer to layer",
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
    )


def _criticality(module: nn.Module, inputs: Tensor, choice: KernelChoice) -> Criticality:
    found = Susceptibility(None, 0, "unknown") if choice.limit is None else susceptibility(choice.limit, inputs)
    moments = activation_moments(module, inputs)
    if found.chi is None:
        reason = "no exact rule" if choice.limit is None else "fewer than two nonlinear layers"
        explanation = f"Not determined: {reason}."
    else:
        explanation = f"chi is {found.chi:.3g} per layer ({found.verdict}): {EXPLANATIONS[found.verdict]}."
    return Criticality(
        chi=found.chi,
        verdict=found.verdict,
        explanation=explanation,
        layers=tuple(moments.names),
        forward=tuple(moments.forward.tolist()),
        gradient=tuple(moments.backward.tolist()),
    )


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
