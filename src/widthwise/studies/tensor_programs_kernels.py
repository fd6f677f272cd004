"""Infinite-width kernels of any program: exact values, and how finite networks approach them (arXiv:1902.04760)."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from widthwise.core import generator
from widthwise.kernels import Limit, infinite
from widthwise.kernels._batch_norm import batch_norm_relu
from widthwise.program import trace
from widthwise.studies._findings import Outcome, compare, in_order
from widthwise.studies._tensor_programs_kernels_attention import attention
from widthwise.studies._tensor_programs_kernels_finite import SLUG, Erf, Skip, kernel, rates, weight_sharing
from widthwise.studies._tensor_programs_kernels_recurrent import recurrent
from widthwise.studies._types import Claim, Scale, Study

PAPER = "arXiv:1902.04760"

CLAIMS = (
    Claim(
        "reference-values",
        "The recursion on covariances gives the NNGP and the NTK of multi-layer perceptrons, with layer norm or skips.",
        f"{PAPER}, corollaries on the NNGP and NTK; values of an independent implementation",
        "1e-8",
    ),
    Claim(
        "closed-forms",
        "It gives the kernels that are known in closed form: linear, arc-cosine, arc-sine, depth at criticality.",
        "arXiv:1806.07572; Cho and Saul 2009; Williams 1997",
        "1e-10, relative",
    ),
    Claim(
        "nngp-rate",
        "The squared relative Frobenius error of a finite network's NNGP kernel falls like 1/width.",
        f"{PAPER}, experiments",
        "slope of the relative error against width within two standard errors of -1/2",
    ),
    Claim(
        "ntk-rate",
        "The relative Frobenius error of the NTK falls like width^(-1/2).",
        "arXiv:2006.14548, experiments",
        "slope within two standard errors of -1/2",
    ),
    Claim(
        "attention-rate",
        "The kernels of a transformer block are approached like those of other networks, at the rate width^(-1/2).",
        f"{PAPER}, experiments; arXiv:2006.14548, transformers",
        "slopes of the relative errors of NNGP and NTK within two standard errors of -1/2",
    ),
    Claim(
        "weight-sharing",
        "A matrix that is used several times correlates its products; treating each use as a fresh matrix is wrong.",
        f"{PAPER}, master theorem",
        "four standard errors plus 1 %; with fresh matrices at least one entry lies outside",
    ),
    Claim(
        "recurrent-recursion",
        "The tangent kernel of a simple recurrent network is a closed recursion over pairs of time steps.",
        "arXiv:2006.14548, recurrent networks",
        "1e-9, relative",
    ),
    Claim(
        "gradient-independence",
        "Where the output is no linear readout with its own random matrix the backward recursion is not justified.",
        f"{PAPER} and arXiv:2006.14548, simple gradient-independence check",
        "the check fails for the four networks for which it should, and for no other",
    ),
    Claim(
        "transposes",
        "A matrix and its transpose in one program: the tied auto-encoder has slope 1/2, and the moments of random "
        "matrices (semicircle, Marchenko-Pastur) follow.",
        f"{PAPER}, corollaries on random matrices; arXiv:2006.14548",
        "2 %, relative, by samples whose standard error is at most 0.4 %",
    ),
    Claim(
        "batch-norm",
        "Batch norm in training mode joins the examples of a batch; its kernels are integrals in one variable.",
        f"{PAPER}, appendix on batch norm",
        "2 % of the largest entry, samples against integrals",
    ),
)


# -- values ------------------------------------------------------------------------------------------------------------

X1 = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
X2 = torch.tensor([[2.0, 0.0, -1.0], [1.0, 1.0, 1.0], [-1.0, 0.3, 0.2]], dtype=torch.float64)


def _dense(phi: nn.Module) -> tuple[nn.Module, dict[str, float], float]:
    net = nn.Sequential(nn.Linear(3, 8), phi, nn.Linear(8, 8), phi, nn.Linear(8, 1, bias=False))
    return net, {"4.weight": 1.0, "*": 1.5}, 0.3


def _normed() -> tuple[nn.Module, dict[str, float], float]:
    norm = nn.LayerNorm(8, eps=0.0, elementwise_affine=False)
    return nn.Sequential(nn.Linear(3, 8), norm, nn.ReLU(), nn.Linear(8, 1, bias=False)), {"0.weight": 1.2, "*": 1}, 0.1


def _skipped() -> tuple[nn.Module, dict[str, float], float]:
    blocks = [Skip(nn.Sequential(nn.ReLU(), nn.Linear(8, 8))) for _ in range(2)]
    net = nn.Sequential(nn.Linear(3, 8), *blocks, nn.ReLU(), nn.Linear(8, 1, bias=False))
    return net, {"4.weight": 1.0, "*": 1.2}, 0.1


# The stored kernels between X1 and the three rows of X2: NNGP, then NTK.
REFERENCE = {
    "relu": (
        lambda: _dense(nn.ReLU()),
        (1.706294071, 2.662761289, 0.969079341, 2.197721914, 6.957101847, 1.432957224),
    ),
    "erf": (
        lambda: _dense(Erf()),
        (-0.013016695, 0.467360950, 0.057069650, -0.064380465, 1.841965841, 0.142312984),
    ),
    "gelu": (
        lambda: _dense(nn.GELU()),
        (1.431929061, 2.431864346, 0.635993524, 1.821195378, 6.901849443, 0.973040165),
    ),
    "layer norm": (_normed, (0.131064254, 0.465653969, 0.173139462, 0.104061092, 0.870887617, 0.187364673)),
    "residual": (_skipped, (2.430560296, 4.337983533, 1.351087180, 2.958405637, 10.829205797, 1.909096780)),
}


def reference_values(scale: Scale) -> Outcome:
    """Stored values of an independent implementation."""
    rows: list[str] = []
    predicted: list[float] = []
    measured: list[float] = []
    for name, (build, stored) in REFERENCE.items():
        net, weight, bias = build()
        got = kernel(net, X1.expand(2, 3), "ntk", weight, bias)(X1, X2)
        rows += [f"{name}, {kind} {j}" for kind in ("NNGP", "NTK") for j in range(3)]
        predicted += stored
        measured += [*got.nngp[0].tolist(), *got.ntk[0].tolist()]
    detail = "Three inputs of dimension 3, weight scales 1 to 1.5, bias scales 0.1 to 0.3, in double precision."
    return [compare("reference-values", rows, predicted, measured, detail, absolute=1e-8)], {}


def closed_forms(scale: Scale) -> Outcome:
    """Kernels with a formula of their own, written out here."""
    inner, a = float(X1[0] @ X2[1]) / 3, float(X1.square().mean())
    b = float(X2[1].square().mean())
    angle = np.arccos(inner / np.sqrt(a * b))
    arc = np.sqrt(a * b) * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / np.pi
    sine = 2 / np.pi * np.arcsin(2 * inner / np.sqrt((1 + 2 * a) * (1 + 2 * b)))
    depth = 8

    def stack(phi: Callable[[], nn.Module], layers: int) -> nn.Sequential:
        hidden = [m for _ in range(layers - 1) for m in (nn.Linear(8, 8, bias=False), phi())]
        return nn.Sequential(nn.Linear(3, 8, bias=False), phi(), *hidden, nn.Linear(8, 1, bias=False))

    linear = kernel(stack(nn.Identity, depth), X1.expand(2, 3), weight=1.0)(X1, X2[1:2])
    relu = kernel(stack(nn.ReLU, 1), X1.expand(2, 3))(X1, X2[1:2])
    erf = kernel(stack(Erf, 1), X1.expand(2, 3), weight=1.0)(X1, X2[1:2])
    deep = kernel(stack(nn.ReLU, depth), X1.expand(2, 3))(X1)
    rows = ("linear NNGP", "linear NTK", "arc-cosine", "arc-cosine NTK", "arc-sine", "deep relu", "deep relu NTK")
    slope = 2 * inner * 2 * (np.pi - angle) / (2 * np.pi)
    predicted = (inner, (depth + 1) * inner, 2 * arc, 2 * arc + slope, sine, 2 * a, 2 * a * (depth + 1))
    measured = (linear.nngp, linear.ntk, relu.nngp, relu.ntk, erf.nngp, deep.nngp, deep.ntk)
    detail = f"No biases; weight scale 1 (linear, erf) or sqrt 2 (relu); {depth} hidden layers where deep."
    return [compare("closed-forms", rows, predicted, [float(m) for m in measured], detail, relative=1e-10)], {}


# -- gradient independence ---------------------------------------------------------------------------------------------


class Custom(nn.Module):
    """Two matrices and a function of them and the input."""

    def __init__(self, function: Callable[["Custom", Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(3, 16), nn.Linear(16, 16), nn.Linear(16, 1)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, torch.relu(self.first(x)))


CHECKED: dict[str, tuple[Callable[[Custom, Tensor], Tensor], bool]] = {
    "mean of a hidden layer": (lambda m, h: torch.relu(m.second(h)).mean(1, keepdim=True), True),
    "hidden layer as output": (lambda m, h: torch.relu(m.second(h)), True),
    "matrix and its transpose": (lambda m, h: m.last(torch.relu(m.second(h)) @ m.second.weight), True),
    "readout used inside": (lambda m, h: m.second(torch.relu(m.second(h))), True),
    "matrix used twice": (lambda m, h: m.last(torch.relu(m.second(torch.relu(m.second(h))))), False),
}


def gradient_independence(scale: Scale) -> Outcome:
    """Which networks fail the check."""
    predicted = [float(expected) for _, expected in CHECKED.values()]
    limits = [kernel(Custom(function), X2) for function, _ in CHECKED.values()]
    detail = "1: the check fails; 0: it passes. Kernels that are given do not rest on it."
    measured = [float(not limit.gradients_independent or "transposes" in _rules(limit)) for limit in limits]
    return [compare("gradient-independence", list(CHECKED), predicted, measured, detail)], {}


def _rules(limit: Limit) -> str:
    return " ".join(row.rule for row in limit.certificate)


class Walk(nn.Module):
    """A random vector that a matrix and its transpose act on in turn, read out."""

    def __init__(self, walk: Callable[["Walk", Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 16, bias=False), nn.Linear(16, 1, bias=False)
        self.w = nn.Parameter(torch.randn(16, 16) / 4)
        self.walk = walk

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.walk(self, self.first(x)))


def _symmetric(times: int) -> Callable[[Walk, Tensor], Tensor]:
    def walk(m: Walk, h: Tensor) -> Tensor:
        for _ in range(times):
            h = (h @ m.w + h @ m.w.t()) / 2**0.5
        return h

    return walk


WALKS: dict[str, tuple[Callable[[Walk, Tensor], Tensor], float]] = {
    "tied auto-encoder": (lambda m, h: torch.relu(h @ m.w.t()) @ m.w, 0.75),
    "tied, slope 1/2 taken off": (lambda m, h: torch.relu(h @ m.w.t()) @ m.w - 0.5 * h, 0.5),
    "semicircle, 2nd moment": (_symmetric(1), 1.0),
    "semicircle, 4th moment": (_symmetric(2), 2.0),
    "semicircle, 6th moment": (_symmetric(3), 5.0),
    "Marchenko-Pastur, 2nd moment": (lambda m, h: h @ m.w.t() @ m.w, 2.0),
    "Marchenko-Pastur, 3rd moment": (lambda m, h: h @ m.w.t() @ m.w @ m.w.t(), 5.0),
}


def transposes(scale: Scale) -> Outcome:
    """Mean squares at the readout, by samples of one coordinate."""
    x = torch.ones(1, 3, dtype=torch.float64)
    predicted = [value for _, value in WALKS.values()]
    measured = []
    for walk, _ in WALKS.values():
        limit = infinite(trace(Walk(walk), x.expand(2, 3).float()), weight_std=1.0, rtol=4e-3)
        measured.append(float(limit.nngp(x)))
    detail = "An input vector of power 1; square matrices of variance 1/width (Marchenko-Pastur: a = 1)."
    return [compare("transposes", list(WALKS), predicted, measured, detail, relative=2e-2)], {}


def batch_norm(scale: Scale) -> Outcome:
    """One hidden layer with batch norm and ReLU, one batch of ten inputs.

    With inputs of few dimensions variances over the batch are near zero now and then, and samples have heavy tails.
    """
    x = torch.randn(10, 12, generator=generator(0, SLUG, "batch"), dtype=torch.float64)
    norm = nn.BatchNorm1d(8)
    net = nn.Sequential(nn.Linear(12, 8), norm, nn.ReLU(), nn.Linear(8, 1, bias=False)).train()
    sigma = x @ x.T / 12
    moment, passed = batch_norm_relu(sigma, sigma, eps=norm.eps)
    program = trace(net, x.float(), training=True)
    got = infinite(program, weight_std=1.0, bias_std=0.0, method="sampled", rtol=4e-3)(x)
    pairs = [(i, j) for i in range(3) for j in range(i, 3)]
    rows = [f"{kind} {i}, {j}" for kind in ("NNGP", "NTK") for i, j in pairs]
    predicted = [float(array[i, j]) for array in (moment, moment + passed) for i, j in pairs]
    measured = [float(array[i, j]) for array in got for i, j in pairs]
    detail = "Samples of one coordinate against the one-dimensional integrals."
    size = 2e-2 * max(predicted)
    return [compare("batch-norm", rows, predicted, measured, detail, absolute=size)], {}


EXPERIMENTS = (
    reference_values,
    closed_forms,
    rates,
    attention,
    weight_sharing,
    recurrent,
    gradient_independence,
    transposes,
    batch_norm,
)


STUDY = Study(
    slug=SLUG,
    state="partly",
    claims=CLAIMS,
    settings={
        "quick": "Perceptron, convolutional, residual and attention networks on 12 digits, widths 32 to 256, 24 draws; "
        "the paper uses recurrent, attention and batch-norm networks up to width 8192 and 100 draws.",
        "full": "The same networks, widths up to 4096 (convolutional: 1024, residual, attention: 2048), 64 draws.",
    },
    measure=in_order(SLUG, CLAIMS, EXPERIMENTS),
    missing="Recurrent networks and batch norm over several layers at growing widths.",
)
