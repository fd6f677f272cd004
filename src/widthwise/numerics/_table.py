"""The table of activations. To add one: write a factory and put its name in `ACTIVATIONS`.

The tests run every entry, with the arguments its factory has by default, against brute force. Most factories are one
line: ``Activation.of(function, name, kinks)``.
"""

from collections.abc import Callable
from functools import partial
from math import pi, sqrt

import torch
from torch import Tensor
from torch.nn import functional as nnf

from widthwise.numerics import _closed_forms as forms
from widthwise.numerics._activation import Activation, ActivationError
from widthwise.numerics._table_piecewise import (
    hardshrink,
    hardsigmoid,
    hardswish,
    hardtanh,
    relu6,
    softshrink,
    threshold,
)

SIGMOID_LIKE_WIDTH = 2.4020563531719796


def identity() -> Activation:
    """x."""
    return Activation("identity", lambda x: x, torch.ones_like, closed_form=forms.identity_form())


def abrelu(low: float = 0.3, high: float = 1.2) -> Activation:
    """Slope `low` below zero, `high` above it."""
    return _abrelu(f"abrelu({low:g},{high:g})", low, high)


def _abrelu(name: str, low: float, high: float) -> Activation:
    return Activation(
        name,
        lambda x: torch.where(x > 0, high * x, low * x),
        lambda x: torch.where(x > 0, torch.full_like(x, high), low),
        kinks=(0.0,),
        closed_form=forms.abrelu_form(low, high),
    )


def relu() -> Activation:
    """max(0, x)."""
    return _abrelu("relu", 0.0, 1.0)


def leaky_relu(slope: float = 0.01) -> Activation:
    """Slope `slope` below zero, 1 above it."""
    return _abrelu(f"leaky_relu({slope:g})", slope, 1.0)


def prelu(slope: float = 0.25) -> Activation:
    """Leaky ReLU with the slope that the parameter has at initialisation."""
    return leaky_relu(slope)


def absolute() -> Activation:
    """|x|."""
    return _abrelu("absolute", -1.0, 1.0)


def _step(name: str, low: float, high: float) -> Activation:
    return Activation(
        name,
        lambda x: (low + high) / 2 + (high - low) / 2 * torch.sign(x),
        torch.zeros_like,
        kinks=(0.0,),
        closed_form=forms.step_form(low, high),
        continuous=False,
    )


def step() -> Activation:
    """0 below zero, 1 above it. Its derivative counts as 0, as in backpropagation."""
    return _step("step", 0.0, 1.0)


def sign() -> Activation:
    """-1 below zero, 1 above it. Its derivative counts as 0, as in backpropagation."""
    return _step("sign", -1.0, 1.0)


def erf() -> Activation:
    """The error function."""
    return Activation(
        "erf", torch.erf, lambda x: 2 / sqrt(pi) * torch.exp(-x * x), closed_form=forms.erf_form(), scale=0.7
    )


def sigmoid_like() -> Activation:
    """0.5 erf(x / 2.402...) + 0.5, the error function nearest to the logistic sigmoid."""
    width = SIGMOID_LIKE_WIDTH
    return Activation(
        "sigmoid_like",
        lambda x: 0.5 * torch.erf(x / width) + 0.5,
        lambda x: torch.exp(-((x / width) ** 2)) / (width * sqrt(pi)),
        closed_form=forms.sigmoid_like_form(width),
    )


def gelu() -> Activation:
    """x Phi(x), exact."""
    return Activation.of(nnf.gelu, "gelu", closed_form=forms.gelu_form())


def gelu_tanh() -> Activation:
    """The tanh approximation of GELU."""
    return Activation.of(partial(nnf.gelu, approximate="tanh"), "gelu_tanh")


def sin(w: float = 1.0, phase: float = 0.0) -> Activation:
    """sin(w x + phase)."""
    return Activation(
        f"sin({w:g},{phase:g})",
        lambda x: torch.sin(w * x + phase),
        lambda x: w * torch.cos(w * x + phase),
        closed_form=forms.sin_form(w, phase),
        scale=1 / abs(w),
    )


def cos(w: float = 1.0, phase: float = 0.0) -> Activation:
    """cos(w x + phase)."""
    return sin(w, phase + pi / 2)


def rbf(gamma: float = 0.5) -> Activation:
    """sqrt(2) sin(sqrt(2 gamma) x + pi/4): its kernel is exp(-gamma |x - x'|^2)."""
    rate = sqrt(2 * gamma)
    return Activation(
        f"rbf({gamma:g})",
        lambda x: sqrt(2) * torch.sin(rate * x + pi / 4),
        lambda x: sqrt(2) * rate * torch.cos(rate * x + pi / 4),
        closed_form=forms.rbf_form(gamma),
        scale=1 / rate,
    )


def exp(rate: float = 0.5) -> Activation:
    """exp(rate x)."""
    return Activation(
        f"exp({rate:g})",
        lambda x: torch.exp(rate * x),
        lambda x: rate * torch.exp(rate * x),
        closed_form=forms.exp_form(rate),
        scale=1 / abs(rate),
    )


def gaussian() -> Activation:
    """exp(-x^2)."""
    return Activation(
        "gaussian",
        lambda x: torch.exp(-x * x),
        lambda x: -2 * x * torch.exp(-x * x),
        closed_form=forms.gaussian_form(),
        scale=0.7,
    )


def monomial(k: int = 3) -> Activation:
    """x^k for k >= 1."""
    if k < 1:
        raise ActivationError(f"the order of a monomial is {k}; give 1 or more.")
    return Activation(f"monomial({k})", lambda x: x**k, lambda x: k * x ** (k - 1), closed_form=forms.monomial_form(k))


def hermite(k: int = 3) -> Activation:
    """He_k(x)/sqrt(k!), the normalised probabilists' Hermite polynomial: c^k at unit variances."""
    if k < 0:
        raise ActivationError(f"the order of a Hermite polynomial is {k}; give 0 or more.")

    def polynomial(x: Tensor, order: int) -> Tensor:
        before, now = torch.zeros_like(x), torch.ones_like(x)
        for j in range(order):
            before, now = now, (x * now - sqrt(j) * before) / sqrt(j + 1)
        return now

    return Activation(
        f"hermite({k})",
        lambda x: polynomial(x, k),
        lambda x: sqrt(k) * polynomial(x, k - 1) if k else torch.zeros_like(x),
        closed_form=forms.hermite_form(k),
    )


def rectified_monomial(k: int = 2) -> Activation:
    """max(0, x)^k for k = 0..3: arc-cosine kernel of order k (half of Cho and Saul's)."""
    if k not in range(4):
        raise ActivationError(f"the order of a rectified monomial is {k}; give 0, 1, 2 or 3.")
    if k < 2:
        return relu() if k else step()
    return Activation(
        f"rectified_monomial({k})",
        lambda x: x.clamp(min=0) ** k,
        lambda x: k * x.clamp(min=0) ** (k - 1),
        kinks=(0.0,),
        closed_form=forms.rectified_monomial_form(k),
    )


def tanh() -> Activation:
    """The hyperbolic tangent."""
    return Activation("tanh", torch.tanh, lambda x: 1 - torch.tanh(x) ** 2)


def sigmoid() -> Activation:
    """The logistic function 1/(1 + exp(-x))."""
    return Activation("sigmoid", torch.sigmoid, lambda x: torch.sigmoid(x) * torch.sigmoid(-x))


def silu() -> Activation:
    """x sigmoid(x), also called swish."""
    return Activation.of(nnf.silu, "silu")


def softplus(beta: float = 1.0) -> Activation:
    """log(1 + exp(beta x))/beta, without the linear shortcut that torch takes above its threshold."""
    return Activation(
        f"softplus({beta:g})",
        lambda x: torch.logaddexp(beta * x, torch.zeros_like(x)) / beta,
        lambda x: torch.sigmoid(beta * x),
        scale=1 / abs(beta),
    )


def logsigmoid() -> Activation:
    """log sigmoid(x)."""
    return Activation("logsigmoid", nnf.logsigmoid, lambda x: torch.sigmoid(-x))


def mish() -> Activation:
    """x tanh(log(1 + exp(x)))."""
    return Activation.of(nnf.mish, "mish")


def tanhshrink() -> Activation:
    """x - tanh(x)."""
    return Activation("tanhshrink", lambda x: x - torch.tanh(x), lambda x: torch.tanh(x) ** 2)


def softsign() -> Activation:
    """x/(1 + |x|). Its second derivative jumps at 0, which counts as a kink for the quadrature."""
    return Activation("softsign", nnf.softsign, lambda x: (1 + x.abs()) ** -2, kinks=(0.0,))


def elu(alpha: float = 1.0) -> Activation:
    """x above zero, alpha (exp(x) - 1) below it."""
    return Activation.of(partial(nnf.elu, alpha=alpha), f"elu({alpha:g})", (0.0,))


def selu() -> Activation:
    """The self-normalising exponential linear unit of Klambauer et al. (arXiv 1706.02515)."""
    return Activation.of(nnf.selu, "selu", (0.0,))


def celu(alpha: float = 1.0) -> Activation:
    """x above zero, alpha (exp(x/alpha) - 1) below it."""
    return Activation.of(partial(nnf.celu, alpha=alpha), f"celu({alpha:g})", (0.0,), scale=abs(alpha))


ACTIVATIONS: dict[str, Callable[..., Activation]] = {
    factory.__name__: factory
    for factory in (
        identity, relu, leaky_relu, prelu, abrelu, absolute, step, sign, erf, sigmoid_like, gelu, gelu_tanh,
        sin, cos, rbf, exp, gaussian, monomial, hermite, rectified_monomial,
        tanh, sigmoid, silu, softplus, logsigmoid, mish, tanhshrink, softsign, elu, selu, celu,
        hardtanh, relu6, hardsigmoid, hardswish, softshrink, hardshrink, threshold,
    )
}  # fmt: skip
