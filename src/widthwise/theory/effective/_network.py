"""What the effective theory needs to know of a traced program: widths, variances and activation of its layers."""

from collections.abc import Sequence
from dataclasses import dataclass

from widthwise.numerics import ACTIVATIONS, Activation
from widthwise.program import Node, Program, Role, Weight
from widthwise.theory.effective._critical import critical
from widthwise.theory.effective._gauss import EffectiveTheoryError

# Operation -> name in the table of activations.
NAMES = {
    "relu": "relu", "tanh": "tanh", "sigmoid": "sigmoid", "silu": "silu", "mish": "mish", "erf": "erf", "sin": "sin",
    "cos": "cos", "selu": "selu", "abs": "absolute", "log_sigmoid": "logsigmoid", "hardswish": "hardswish",
    "hardsigmoid": "hardsigmoid", "relu6": "relu6",
}  # fmt: skip
# Operation -> name, and the option at this place of the arguments with its default.
OPTIONS = {
    "leaky_relu": ("leaky_relu", 1, "negative_slope", 0.01),
    "elu": ("elu", 1, "alpha", 1.0),
    "celu": ("celu", 1, "alpha", 1.0),
    "softplus": ("softplus", 1, "beta", 1.0),
}
PLAIN = {"flatten", "view", "reshape", "_unsafe_view", "dropout", "contiguous", "clone", "alias", "squeeze", "t", "to"}
SNAP_ERRORS = 3.0  # a variance read off one draw counts as a standard one within so many standard errors


@dataclass(frozen=True)
class Perceptron:
    """A chain of linear layers with activations between.

    Attributes:
        widths: n_0 .. n_L; for a network that is no chain, hidden widths as far as they were found.
        activation: the (first) activation, None where none was recognised.
        C_b, C_W: per layer.
        notes: what was assumed.
        exact: whether the network is such a chain; else only widths and activation mean something.
    """

    widths: tuple[int, ...]
    activation: Activation | None
    C_b: tuple[float, ...]
    C_W: tuple[float, ...]
    notes: tuple[str, ...]
    exact: bool


def read(program: Program) -> Perceptron:
    """Widths, activation and initial variances of a traced program.

    Raises:
        EffectiveTheoryError: it has no weight matrix with a growing side.
    """
    linear, activations, others = _operations(program)
    chain = _chain(program, linear)
    found = list(dict.fromkeys(activations))
    notes: list[str] = []
    if len(found) > 1:
        notes.append(f"it has several activations; {found[0].name} stands for all of them.")
    phi = found[0] if found else None
    if others or chain is None or len(activations) != len(linear) - 1:
        what = f"it is no plain perceptron ({', '.join(others[:3]) or 'its layers do not form a chain'})"
        notes.append(
            f"{what}: the ratio is the sum of 1/width over its layers, with nu of {phi.name if phi else 'none'}."
        )
        return Perceptron(_hidden(program), phi, (), (), tuple(notes), False)
    weights, biases = zip(*chain, strict=True)
    fixed = phi if phi is not None else ACTIVATIONS["identity"]()
    C_W = tuple(_variance(weight, fixed, notes) for weight in weights)
    C_b = tuple(0.0 if bias is None else bias.init_std**2 for bias in biases)
    return Perceptron((weights[0].fan_in, *(w.fan_out for w in weights)), fixed, C_b, C_W, tuple(notes), True)


def _operations(program: Program) -> tuple[list[Node], list[Activation], list[str]]:
    linear: list[Node] = []
    activations: list[Activation] = []
    others: list[str] = []
    for node in program.nodes:
        if node.kind != "op":
            continue
        name = node.op.removeprefix("aten.").split(".")[0].removesuffix("_") or node.op
        phi = _activation(name, node)
        if name in ("linear", "addmm"):
            linear.append(node)
        elif phi is not None:
            activations.append(phi)
        elif name not in PLAIN:
            others.append(node.op)
    return linear, activations, list(dict.fromkeys(others))


def _activation(name: str, node: Node) -> Activation | None:
    if name == "gelu":
        return ACTIVATIONS["gelu_tanh" if node.kwargs.get("approximate", "none") == "tanh" else "gelu"]()
    if name == "hardtanh":
        low, high = (node.args[i] if len(node.args) > i else value for i, value in ((1, -1.0), (2, 1.0)))
        return ACTIVATIONS["hardtanh"](float(low), float(high))
    if name in OPTIONS:
        table, place, key, default = OPTIONS[name]
        value = node.args[place] if len(node.args) > place else node.kwargs.get(key, default)
        scaled = name == "elu" and len(node.args) > 2 and tuple(node.args[2:]) != (1, 1)
        return ACTIVATIONS["selu"]() if scaled else ACTIVATIONS[table](float(value))
    return ACTIVATIONS[NAMES[name]]() if name in NAMES else None


def _chain(program: Program, linear: Sequence[Node]) -> list[tuple[Weight, Weight | None]] | None:
    """(weight, bias) per layer, or None where the layers do not follow one another or share a weight."""
    if any(node.op != "aten.linear.default" for node in linear):
        return None
    chain: list[tuple[Weight, Weight | None]] = []
    for node in linear:
        try:
            weight = program.weight(node.args[1].name)
            bias = program.weight(node.args[2].name) if len(node.args) > 2 and node.args[2] is not None else None
        except (LookupError, AttributeError, ValueError):
            return None
        if weight.uses != 1 or (chain and chain[-1][0].fan_out != weight.fan_in):
            return None
        chain.append((weight, bias))
    return chain if len(chain) >= 2 else None


def _hidden(program: Program) -> tuple[int, ...]:
    widths = tuple(
        weight.shape[0]  # channels or units: of the tensors that linear and convolution layers have
        for weight in program.weights
        if weight.role in (Role.INPUT, Role.HIDDEN) and len(weight.shape) >= 2
    )
    if not widths:
        raise EffectiveTheoryError(
            f"{program.module_name} has no layer with a growing width; give widths= and activation= instead."
        )
    return widths


def _variance(weight: Weight, activation: Activation, notes: list[str]) -> float:
    """fan-in times the initial variance; a standard value where one draw cannot tell it from that."""
    raw = weight.init_std**2 * weight.fan_in
    if weight.init_source != "measured":
        if "default" in weight.init_source:
            note = "PyTorch's default weights are uniform; the tensors are those of Gaussian weights of equal variance."
            notes.extend([note] if note not in notes else [])
        return raw
    error = raw * (2 / max(weight.value.numel(), 2)) ** 0.5
    known = [2.0, 1.0, critical(activation).C_W]
    near = [value for value in known if abs(raw - value) <= SNAP_ERRORS * error]
    return min(near, key=lambda value: abs(value - raw)) if near else raw
