"""Activations by the operation that computes them."""

from collections.abc import Callable
from typing import Any

from widthwise.kernels._lowering import Lowering
from widthwise.kernels._scales import constant_value
from widthwise.numerics import ACTIVATIONS, Activation
from widthwise.program import Node, Weight


def _plain(name: str, *options: tuple[int, str, Any]) -> Callable[[Lowering, Node], Activation]:
    """An activation from the table; options are read from the node's arguments (index, name, default)."""

    def build(run: Lowering, node: Node) -> Activation:
        return ACTIVATIONS[name](*(run.arg(node, index, key, default) for index, key, default in options))

    return build


def _gelu(run: Lowering, node: Node) -> Activation:
    return ACTIVATIONS["gelu_tanh" if node.kwargs.get("approximate", "none") == "tanh" else "gelu"]()


def _elu(run: Lowering, node: Node) -> Activation:
    alpha, scale, input_scale = (run.arg(node, i, k, 1.0) for i, k in ((1, "alpha"), (2, "scale"), (3, "input_scale")))
    if scale == 1.0 and input_scale == 1.0:
        return ACTIVATIONS["elu"](alpha)
    if abs(scale - 1.0507009873554805) < 1e-12 and input_scale == 1.0:
        return ACTIVATIONS["selu"]()
    raise run.refuse(node, f"ELU with scale {scale} and input scale {input_scale} is not in the table")


def _prelu(run: Lowering, node: Node) -> Activation:
    weight = run.value(node.args[1])
    slope = constant_value(weight) if isinstance(weight, Weight) else None
    if slope is None:
        raise run.refuse(node, "its slopes differ between channels")
    run.untrained(weight, node)
    return ACTIVATIONS["leaky_relu"](slope)


def _rrelu(run: Lowering, node: Node) -> Activation:
    if run.arg(node, 3, "training", False):
        raise run.refuse(node, "random slopes in training mode have no rule; trace the module in eval mode")
    return ACTIVATIONS["leaky_relu"]((run.arg(node, 1, "lower", 1 / 8) + run.arg(node, 2, "upper", 1 / 3)) / 2)


def _softplus(run: Lowering, node: Node) -> Activation:
    if run.arg(node, 2, "threshold", 20.0) < 15:
        raise run.refuse(node, "softplus has a rule for thresholds of 15 and more")
    return ACTIVATIONS["softplus"](run.arg(node, 1, "beta", 1.0))


def _pow(run: Lowering, node: Node) -> Activation:
    exponent = node.args[1]
    if not isinstance(exponent, (int, float)) or exponent != int(exponent) or exponent < 1:
        raise run.refuse(node, f"only whole positive powers have a rule, not {exponent}")
    return ACTIVATIONS["monomial"](int(exponent))


def _hardtanh(run: Lowering, node: Node) -> Activation:
    low, high = run.arg(node, 1, "min_val", -1.0), run.arg(node, 2, "max_val", 1.0)
    return ACTIVATIONS["hardtanh"](low, high)


def _clamp(run: Lowering, node: Node) -> Activation:
    low, high = run.arg(node, 1, "min"), run.arg(node, 2, "max")
    if low is None or high is None:
        raise run.refuse(node, "a clamp with one bound has no rule; write relu or hardtanh")
    return ACTIVATIONS["hardtanh"](float(low), float(high))


# Operation -> how to build its activation. A new activation: one row in numerics/_table.py and one here.
ELEMENTWISE: dict[str, Callable[[Lowering, Node], Activation]] = {
    "aten.relu.default": _plain("relu"),
    "aten.relu6.default": _plain("relu6"),
    "aten.leaky_relu.default": _plain("leaky_relu", (1, "negative_slope", 0.01)),
    "aten.rrelu.default": _rrelu,
    "aten.prelu.default": _prelu,
    "aten.abs.default": _plain("absolute"),
    "aten.sign.default": _plain("sign"),
    "aten.erf.default": _plain("erf"),
    "aten.gelu.default": _gelu,
    "aten.tanh.default": _plain("tanh"),
    "aten.sigmoid.default": _plain("sigmoid"),
    "aten.silu.default": _plain("silu"),
    "aten.mish.default": _plain("mish"),
    "aten.softplus.default": _softplus,
    "aten.elu.default": _elu,
    "aten.selu.default": _plain("selu"),
    "aten.celu.default": _plain("celu", (1, "alpha", 1.0)),
    "aten.hardtanh.default": _hardtanh,
    "aten.clamp.default": _clamp,
    "aten.hardswish.default": _plain("hardswish"),
    "aten.hardsigmoid.default": _plain("hardsigmoid"),
    "aten.log_sigmoid.default": _plain("logsigmoid"),
    "aten.hardshrink.default": _plain("hardshrink", (1, "lambd", 0.5)),
    "aten.softshrink.default": _plain("softshrink", (1, "lambd", 0.5)),
    "aten.sin.default": _plain("sin"),
    "aten.cos.default": _plain("cos"),
    "aten.exp.default": _plain("exp"),
    "aten.square.default": lambda run, node: ACTIVATIONS["monomial"](2),
    "aten.pow.Tensor_Scalar": _pow,
}
