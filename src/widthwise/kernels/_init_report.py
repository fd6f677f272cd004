"""What a network's initialisation does to signals, gradients and their spread between seeds."""

from dataclasses import dataclass
from math import exp, log, nan

import numpy as np
import torch
from jaxtyping import Float

from widthwise.core import DataError, ModelError, Value
from widthwise.kernels._batch import Given
from widthwise.kernels._fields import Field, Image, Inputs, Moved, Offset, Product, Shared, Sum, Tokens
from widthwise.kernels._fields_batch import two_lines
from widthwise.kernels._length_map import slopes, square
from widthwise.kernels._limit import Limit, infinite
from widthwise.kernels._phase_diagram import PhaseDiagram, phase_diagram
from widthwise.kernels._propagation import Verdict, mended_by, propagation, verdict_of
from widthwise.kernels._walks import below
from widthwise.numerics import Activation
from widthwise.program import Program

CALM = ("critical", "unknown")
SAME = 0.1  # relative difference of hidden variances (of biases: beside q) up to which one pair stands for all


@dataclass(frozen=True)
class InitReport(Value):
    """Signal propagation through a network at initialisation.

    Attributes:
        activation: its name; several in the order of the network.
        layers: names of the matrices, from the first to the readout; in a network that is no plain chain of layers the
            places that every signal passes (blocks of a residual network).
        matrices: names of the matrices.
        weight_variance, bias_variance: ``[matrices]`` sigma_w^2 (variance of an entry times fan-in) and sigma_b^2; the
            second is NaN in a network that is no plain chain.
        q: ``[layers]`` mean square of preactivations (of the stream of a residual network).
        chi: ``[steps]`` growth of squared gradients from one hidden layer back to the previous one, which is that of a
            small difference between two inputs on the way forward (chi_perp).
        chi_parallel: ``[steps]`` growth of a small change of q itself; NaN where moments are sampled.
        slope: ``[steps]`` of the map of correlations near one, ``chi q_l / q_{l+1}``: below 1 inputs become alike.
        gradient_ratio: expected squared gradient at the first hidden layer over that at the last: the product of chi.
        verdict: ``"critical"`` where gradients at both ends are within a factor e, or chi within 5 % of 1 in the
            geometric mean; ``"ordered"`` or ``"chaotic"`` below and above; ``"unknown"`` with one hidden layer.
        mend: what to multiply weights by, in one sentence; empty where nothing is to be mended.
        mended_ratio: gradient ratio of the network so mended, NaN where there is none.
        inverse_widths: sum of 1/n over the matrices but the readout, the parameter of finite-width effects.
        beta: variance of the logarithm of the squared norm of activations (and gradients) between initialisations,
            whose mean is lower by beta / 2: ``5 sum 1/n`` for ReLU, ``2 sum 1/n`` for linear networks; NaN where no
            such law is known.
        plain: whether it is a plain chain of dense or convolutional layers with one activation between.
        dense: whether all layers are dense; in a plain convolutional one borders are left out, and beta is not known.
        point: fixed point and depth scales of a deeper network of this kind; None with fewer than two hidden layers
            of equal variances, or where it is no plain chain.
    """

    activation: str
    layers: tuple[str, ...]
    matrices: tuple[str, ...]
    weight_variance: Float[np.ndarray, "matrices"]
    bias_variance: Float[np.ndarray, "matrices"]
    q: Float[np.ndarray, "layers"]
    chi: Float[np.ndarray, "steps"]
    chi_parallel: Float[np.ndarray, "steps"]
    slope: Float[np.ndarray, "steps"]
    gradient_ratio: float
    verdict: Verdict
    mend: str
    mended_ratio: float
    inverse_widths: float
    beta: float
    plain: bool
    dense: bool
    point: PhaseDiagram | None

    @property
    def log_spread(self) -> float:
        """Standard deviation of the logarithm of squared norms between initialisations: the root of beta."""
        return self.beta**0.5


def init_report(network: Program | Limit, x: Given | None = None, *, square_of_inputs: float | int = 1.0) -> InitReport:
    """Read variances off a network and run the mean-field recursion through it, whatever its blocks are.

    In a plain chain of layers, with ``q_1 = sw2 x^2 + sb2`` and ``q_{l+1} = sw2 E phi(sqrt(q_l) z)^2 + sb2``, squared
    gradients grow by ``chi_l = sw2_{l+1} E phi'(sqrt(q_l) z)^2`` per layer (arXiv:1611.01232, equations 3 and 5).
    Norms of scale-invariant networks are log-normal between initialisations to leading order,
    ``log |h|^2 ~ N(-beta/2, beta)``, beta the sum of ``(3 A_4 / A_2^2 - 1) / n`` and A_p the mean p-th power of the two
    slopes (arXiv:1801.03744). Any other network (residual, convolutional, attention) is read by `infinite`: mean
    squares, and a small difference that starts in the first matrices, are carried through its covariance recursion to
    the places that every signal passes; by samples of one coordinate (4096, some percent) where it has no exact rules.

    Args:
        network: from `widthwise.trace` or `widthwise.infinite`.
        x: inputs to carry through a network that is no plain chain, a few; None draws two, with independent normal
            entries.
        square_of_inputs: mean square of the inputs' features, where they are not given.

    Raises:
        ModelError: no place that all signals pass lies between its inputs and its output; or it reads tokens or
            several inputs, and none are given.
        UnsupportedOperation: an operation has no infinite-width rule.
        DataError: the mean square is not positive.

    >>> import torch, widthwise as ww
    >>> linear, relu = torch.nn.Linear, torch.nn.ReLU
    >>> net = torch.nn.Sequential(linear(4, 50), relu(), linear(50, 50), relu(), linear(50, 1))
    >>> found = init_report(ww.trace(net, torch.randn(2, 4)))  # PyTorch's default: sigma_w^2 = 1/3
    >>> round(found.gradient_ratio, 4), round(found.beta, 4), found.point.phase.item(), found.verdict
    (0.1667, 0.2, 'ordered', 'ordered')
    """
    if not 0 < square_of_inputs < float("inf"):
        raise DataError(f"square_of_inputs is {square_of_inputs}; give the positive mean square of the inputs.")
    limit = network if isinstance(network, Limit) else infinite(network)
    try:
        layers = _layers(limit.output)
        phi = _one_activation(layers)
    except ModelError:
        return _of_any(limit, x, float(square_of_inputs))
    if x is not None and isinstance(x, torch.Tensor):
        square_of_inputs = float(x.double().square().mean())
    return _of_chain(layers, phi, float(square_of_inputs))


def _of_chain(layers: list["_Layer"], phi: Activation, square_of_inputs: float) -> InitReport:
    weight = np.array([layer.variance for layer in layers])
    bias = np.array([layer.bias for layer in layers])
    q = [weight[0] * square_of_inputs + bias[0]]
    for w, b in zip(weight[1:], bias[1:], strict=True):
        q.append(float(w * square(phi, np.array([q[-1]]))[0] + b))
    hidden = np.array(q[:-1])
    chi, parallel = (weight[1:-1] * slope for slope in slopes(phi, hidden[:-1]))
    dense = all(layer.dense for layer in layers)
    inverse = float(sum(1 / layer.outputs for layer in layers[:-1]))
    names = tuple(layer.name for layer in layers)
    ratio, verdict = float(chi.prod()), verdict_of(chi)
    mend, mended = _mend_of_chain(phi, weight, bias, hidden, chi) if verdict not in CALM else ("", nan)
    return InitReport(
        phi.name, names, names, weight, bias, np.array(q), chi, parallel, chi * hidden[:-1] / hidden[1:], ratio,
        verdict, mend, mended, inverse, _growth(phi) * inverse if dense else float("nan"), True, dense,
        _point(phi, weight[1:-1], bias[1:-1], hidden[-1]),
    )  # fmt: skip


def _of_any(limit: Limit, x: Given | None, square_of_inputs: float) -> InitReport:
    found = propagation(limit, _drawn(limit, square_of_inputs) if x is None else x)
    fields = below(limit.output)
    products = list({one.weight.name: one for one in reversed(fields) if isinstance(one, Product)}.values())
    names = dict.fromkeys(one.activation.name for one in reversed(fields) if isinstance(one, Image))
    sizes = [
        one.weight.shape[1] if one.transposed else one.weight.shape[0] for one in products if not _reads_out(limit, one)
    ]
    return InitReport(
        ", ".join(names), found.layers, tuple(one.weight.name for one in products),
        np.array([float(one.variance) for one in products]), np.full(len(products), nan), found.q, found.chi,
        found.chi_parallel, found.slope, found.gradient_ratio, found.verdict, found.mend, found.mended_ratio,
        float(sum(1 / size for size in sizes)), nan, False, all(len(one.weight.shape) == 2 for one in products), None,
    )  # fmt: skip


def _reads_out(limit: Limit, product: Product) -> bool:
    terms = limit.output.terms if isinstance(limit.output, Sum) else ((1.0, limit.output),)
    return any(term is product for _, term in terms)


def _drawn(limit: Limit, square_of_inputs: float) -> torch.Tensor:
    """Two inputs of independent normal entries."""
    inputs = [limit.program.node(name) for name in limit.program.inputs]
    if len(inputs) != 1 or any(isinstance(one, Tokens) for one in below(limit.output)) or inputs[0].shape is None:
        raise ModelError("the network reads tokens, or several inputs; give some as x.")
    generator = torch.Generator().manual_seed(0)
    count = 8 if limit.joins_examples else 2
    x = torch.randn(count, *inputs[0].shape[1:], generator=generator, dtype=torch.float64)
    return x * square_of_inputs**0.5


def _mend_of_chain(
    phi: Activation, weight: np.ndarray, bias: np.ndarray, hidden: np.ndarray, chi: np.ndarray
) -> tuple[str, float]:
    """One factor of all hidden matrices for which squared gradients at both ends are alike."""

    def log_chi(log_factor: float) -> np.ndarray:
        q, found = float(hidden[0]), []
        for w, b in zip(weight[1:-1] * exp(2 * log_factor), bias[1:-1], strict=True):
            at = np.array([q])
            found.append(log(max(float(w * slopes(phi, at)[0][0]), 1e-300)))
            q = float(w * square(phi, at)[0] + b)
        return np.array(found)

    return mended_by(log_chi, np.log(chi), 0.0)


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
    return ModelError(f"the network is no plain feed-forward network ({reason}).")


def _growth(phi: Activation) -> float:
    """3 A_4 / A_2^2 - 1 of an activation made of two straight lines through zero, NaN for any other."""
    lines = two_lines(phi)
    if lines is None:
        return nan
    above, below_zero = lines.odd + lines.even, lines.odd - lines.even
    second, fourth = ((above**p + below_zero**p) / 2 for p in (2, 4))
    return 3 * fourth / second**2 - 1 if second > 0 else float("nan")


def _point(phi: Activation, weight: np.ndarray, bias: np.ndarray, start: float) -> PhaseDiagram | None:
    """The phase diagram at the hidden layers' variances, if these are alike."""
    if not len(weight) or not start > 0:
        return None
    if np.ptp(weight) > SAME * weight.mean() or np.ptp(bias) > SAME * start:
        return None
    return phase_diagram(phi, float(weight.mean()), float(bias.mean()), start=float(start))
