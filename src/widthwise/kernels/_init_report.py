"""What a plain feed-forward network's initialisation does to signals, gradients and their spread between seeds."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from widthwise.core import DataError, ModelError, Value
from widthwise.kernels._fields import Field, Image, Inputs, Moved, Offset, Product, Shared, Sum
from widthwise.kernels._length_map import slopes, square
from widthwise.kernels._limit import Limit, infinite
from widthwise.kernels._phase_diagram import PhaseDiagram, phase_diagram
from widthwise.numerics import Activation
from widthwise.program import Program

SAME = 0.1  # relative difference of hidden variances (of biases: beside q) up to which one pair stands for all


@dataclass(frozen=True)
class InitReport(Value):
    """Signal propagation through a plain feed-forward network at initialisation.

    Attributes:
        activation: its name.
        layers: names of the matrices, from the first to the readout.
        weight_variance, bias_variance: ``[layers]`` sigma_w^2 (variance of an entry times fan-in) and sigma_b^2.
        q: ``[layers]`` variance of preactivations.
        chi: ``[layers - 2]`` growth of squared gradients from one hidden layer's preactivations back to the previous
            one's.
        gradient_ratio: expected squared gradient at the first hidden layer over that at the last: the product of chi.
        inverse_widths: sum of 1/n over the hidden layers, the parameter of finite-width effects.
        beta: variance of the logarithm of the squared norm of activations (and gradients) between initialisations,
            whose mean is lower by beta / 2: ``5 sum 1/n`` for ReLU, ``2 sum 1/n`` for linear networks; NaN where no
            such law is known.
        dense: whether all layers are dense; in a convolutional one borders are left out, and beta is not known.
        point: fixed point and depth scales of a deeper network of this kind; None with fewer than two hidden layers
            of equal variances.
    """

    activation: str
    layers: tuple[str, ...]
    weight_variance: Float[np.ndarray, "layers"]
    bias_variance: Float[np.ndarray, "layers"]
    q: Float[np.ndarray, "layers"]
    chi: Float[np.ndarray, "steps"]
    gradient_ratio: float
    inverse_widths: float
    beta: float
    dense: bool
    point: PhaseDiagram | None

    @property
    def log_spread(self) -> float:
        """Standard deviation of the logarithm of squared norms between initialisations: the root of beta."""
        return self.beta**0.5


def init_report(network: Program | Limit, *, square_of_inputs: float | int = 1.0) -> InitReport:
    """Read variances off a network and run the mean-field recursion through it.

    With ``q_1 = sw2 x^2 + sb2`` and ``q_{l+1} = sw2 E phi(sqrt(q_l) z)^2 + sb2`` squared gradients grow by
    ``chi_l = sw2_{l+1} E phi'(sqrt(q_l) z)^2`` per layer (arXiv:1611.01232, equations 3 and 5). Norms of
    scale-invariant networks are log-normal between initialisations to leading order, ``log |h|^2 ~ N(-beta/2, beta)``,
    beta the sum of ``(3 A_4 / A_2^2 - 1) / n`` and A_p the mean p-th power of the two slopes (arXiv:1801.03744).

    Args:
        network: from `widthwise.trace` or `widthwise.infinite`.
        square_of_inputs: mean square of the inputs' features.

    Raises:
        ModelError: it is no plain chain of dense or convolutional layers with one activation between.
        UnsupportedOperation: an operation has no exact infinite-width rule.
        DataError: the mean square is not positive.

    >>> import torch, widthwise as ww
    >>> linear, relu = torch.nn.Linear, torch.nn.ReLU
    >>> net = torch.nn.Sequential(linear(4, 50), relu(), linear(50, 50), relu(), linear(50, 1))
    >>> found = init_report(ww.trace(net, torch.randn(2, 4)))  # PyTorch's default: sigma_w^2 = 1/3
    >>> round(found.gradient_ratio, 4), round(found.beta, 4), found.point.phase.item()
    (0.1667, 0.2, 'ordered')
    """
    if not 0 < square_of_inputs < float("inf"):
        raise DataError(f"square_of_inputs is {square_of_inputs}; give the positive mean square of the inputs.")
    limit = network if isinstance(network, Limit) else infinite(network, method="exact")
    layers = _layers(limit.output)
    phi = _one_activation(layers)
    weight = np.array([layer.variance for layer in layers])
    bias = np.array([layer.bias for layer in layers])
    q = [weight[0] * square_of_inputs + bias[0]]
    for w, b in zip(weight[1:], bias[1:], strict=True):
        q.append(float(w * square(phi, np.array([q[-1]]))[0] + b))
    hidden = np.array(q[:-1])
    chi = weight[1:-1] * slopes(phi, hidden[:-1])[0]
    dense = all(layer.dense for layer in layers)
    inverse = float(sum(1 / layer.outputs for layer in layers[:-1]))
    return InitReport(
        phi.name, tuple(layer.name for layer in layers), weight, bias, np.array(q), chi, float(chi.prod()), inverse,
        _growth(phi) * inverse if dense else float("nan"), dense, _point(phi, weight[1:-1], bias[1:-1], hidden[-1]),
    )  # fmt: skip


@dataclass(frozen=True)
class _Layer:
    """One matrix, and the activation of its input (None for the first)."""

    name: str
    variance: float
    bias: float
    outputs: int
    dense: bool
    activation: Activation | None


def _layers(output: Field) -> list[_Layer]:
    """The chain of matrices, from the first to the readout."""
    found: list[_Layer] = []
    field = output
    while True:
        product, bias = _affine(field)
        source = product.source
        while isinstance(source, Moved) and source.move.gathers:
            source = source.source
        phi = source.activation if isinstance(source, Image) else None
        shape = product.weight.shape
        outputs = shape[1] if product.transposed else shape[0]
        found.append(_Layer(product.weight.name, float(product.variance), bias, outputs, len(shape) == 2, phi))
        if isinstance(source, Inputs):
            break
        if not isinstance(source, Image):
            raise _not_plain(f"pooled, joined or normalised values enter {product.weight.name}")
        field = source.source
        while isinstance(field, Moved) and field.move.gathers:
            field = field.source
    names = [layer.name for layer in found]
    if len(set(names)) < len(names) or len(found) < 2:
        raise _not_plain("it has one layer, or layers that share a matrix")
    return found[::-1]


def _affine(field: Field) -> tuple[Product, float]:
    """A matrix product plus a bias: the product, and the variance of the bias (its square where it is constant)."""
    terms = field.terms if isinstance(field, Sum) else ((1.0, field),)
    products = [term for scale, term in terms if isinstance(term, Product) and scale == 1.0]
    others = [term for _, term in terms if not isinstance(term, Product)]
    if len(products) != 1 or len(products) + len(others) != len(terms):
        raise _not_plain("a layer is no matrix product with a bias")
    variance = 0.0
    for term in others:
        if isinstance(term, Shared):
            variance += float(term.variance)
        elif isinstance(term, Offset):
            variance += term.value**2
        else:
            raise _not_plain("a skip connection or another sum feeds a layer")
    return products[0], variance


def _one_activation(layers: list[_Layer]) -> Activation:
    found = [layer.activation for layer in layers[1:]]
    assert found[0] is not None
    if any(phi is None or phi.name != found[0].name for phi in found):
        raise _not_plain("its activations differ from layer to layer")
    return found[0]


def _not_plain(reason: str) -> ModelError:
    return ModelError(
        f"the network is no plain feed-forward network ({reason}); "
        "see `widthwise.kernels.susceptibility` for a network of any kind."
    )


def _growth(phi: Activation) -> float:
    """3 A_4 / A_2^2 - 1 of an activation made of two straight lines through zero, NaN for any other."""
    at = torch.tensor([1e-3, 1.0, 1e3], dtype=torch.float64)
    above, below = phi.function(at) / at, phi.function(-at) / -at
    if not (torch.allclose(above, above[1], 1e-9, 1e-12) and torch.allclose(below, below[1], 1e-9, 1e-12)):
        return float("nan")
    second, fourth = (float(above[1] ** p + below[1] ** p) / 2 for p in (2, 4))
    return 3 * fourth / second**2 - 1 if second > 0 else float("nan")


def _point(phi: Activation, weight: np.ndarray, bias: np.ndarray, start: float) -> PhaseDiagram | None:
    """The phase diagram at the hidden layers' variances, if these are alike."""
    if not len(weight) or not start > 0:
        return None
    if np.ptp(weight) > SAME * weight.mean() or np.ptp(bias) > SAME * start:
        return None
    return phase_diagram(phi, float(weight.mean()), float(bias.mean()), start=float(start))
