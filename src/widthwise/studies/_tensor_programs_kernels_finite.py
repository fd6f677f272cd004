"""Tensor programs, kernels: finite networks at growing widths, and one with a shared matrix."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from widthwise.core import Axis, Figure, Line, Points, seeded
from widthwise.data import load
from widthwise.kernels import Limit, Parametrization, infinite
from widthwise.numerics import fit_power_law
from widthwise.probe import empirical_ntk, features
from widthwise.program import trace
from widthwise.studies._findings import Outcome, compare, floats
from widthwise.studies._types import Scale

SLUG = "tensor-programs-kernels"
WEIGHT_STD, BIAS_STD = 2**0.5, 0.1
IMAGES = 12


class Skip(nn.Module):
    """``x + f(x)``."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class Erf(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.erf(x)


class Recurrent(nn.Module):
    """Sum of three states ``h = relu(W h + U x)`` from ``h = relu(V x)`` on, with one W or a fresh one each time."""

    def __init__(self, inputs: int, width: int, fresh: bool) -> None:
        super().__init__()
        self.first, self.inject = nn.Linear(inputs, width), nn.Linear(inputs, width)
        self.steps = nn.ModuleList([nn.Linear(width, width) for _ in range(3 if fresh else 1)])
        self.last = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        h, total = functional.relu(self.first(x)), torch.zeros(())
        for step in range(3):
            h = functional.relu(self.steps[step % len(self.steps)](h) + self.inject(x))
            total = total + h
        return self.last(total)


def perceptron(width: int) -> nn.Module:
    hidden = [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), *hidden, nn.Linear(width, 1))


def convolutional(width: int) -> nn.Module:
    blocks = [nn.Conv2d(1, width, 3, 2, 1), nn.ReLU(), nn.Conv2d(width, width, 3, 2, 1), nn.ReLU()]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 1))


def residual(width: int) -> nn.Module:
    blocks = [Skip(nn.Sequential(nn.ReLU(), nn.Linear(width, width))) for _ in range(2)]
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), *blocks, nn.ReLU(), nn.Linear(width, 1))


FAMILIES: dict[str, Callable[[int], nn.Module]] = {
    "perceptron": perceptron,
    "convolutional": convolutional,
    "residual": residual,
}
WIDTHS: dict[Scale, dict[str, tuple[int, ...]]] = {
    "quick": dict.fromkeys(FAMILIES, (32, 64, 128, 256)),
    "full": {
        "perceptron": (64, 128, 256, 512, 1024, 2048, 4096),
        "convolutional": (32, 64, 128, 256, 512, 1024),
        "residual": (64, 128, 256, 512, 1024, 2048),
    },
}
DRAWS: dict[Scale, int] = {"quick": 24, "full": 64}


def kernel(
    net: nn.Module,
    x: Tensor,
    parametrization: Parametrization = "ntk",
    weight: float | dict[str, float] = WEIGHT_STD,
    bias: float = BIAS_STD,
) -> Limit:
    """The limit of a network with given scales."""
    return infinite(trace(net, x[:2].float()), parametrization, weight, bias)


def gaussian(build: Callable[[], nn.Module], *names: object) -> nn.Module:
    """A network with entries N(0, 2 / fan-in) and biases N(0, 0.01): a sum of few uniform entries is not Gaussian."""
    with seeded(0, SLUG, *names), torch.no_grad():
        net = build().double()
        for part in net.modules():
            if isinstance(part, (nn.Linear, nn.Conv2d)):
                part.weight.normal_(0.0, WEIGHT_STD * part.weight[0].numel() ** -0.5)
                if part.bias is not None:
                    part.bias.normal_(0.0, BIAS_STD)
    return net


# -- rates -------------------------------------------------------------------------------------------------------------


def digits() -> Tensor:
    """The first images of scikit-learn's digits, ``[12, 1, 8, 8]``."""
    return load("digits").inputs[:IMAGES].double()


def finite_errors(name: str, width: int, draws: int, x: Tensor) -> Tensor:
    """Relative Frobenius errors of NNGP and NTK, ``[draws, 2]``, against the limit at this width."""
    build = FAMILIES[name]
    limit = kernel(build(width), x, "standard")
    expected = (limit.nngp(x), limit(x).ntk)
    found = torch.empty(draws, 2, dtype=torch.float64)
    for draw in range(draws):
        net = gaussian(lambda: build(width), name, width, draw)
        h = features(net, x).flatten(1)
        got = (WEIGHT_STD**2 * h @ h.T / h.shape[1] + BIAS_STD**2, empirical_ntk(net, x))
        found[draw] = torch.stack([(g - e).norm() / e.norm() for g, e in zip(got, expected, strict=True)])
    return found


def slope(widths: tuple[int, ...], errors: list[Tensor], resamples: int = 400) -> tuple[float, float]:
    """Slope of the root mean square error against width, and its standard error by resampling draws."""
    generator = np.random.default_rng(0)

    def fitted(chosen: list[np.ndarray]) -> float:
        return fit_power_law(np.array(widths), np.sqrt([np.mean(one**2) for one in chosen])).slope

    arrays = [one.numpy() for one in errors]
    slopes = [fitted([generator.choice(one, len(one)) for one in arrays]) for _ in range(resamples)]
    return fitted(arrays), float(np.std(slopes))


def rates(scale: Scale) -> Outcome:
    """Finite networks on digits at growing widths."""
    x, draws = digits(), DRAWS[scale]
    errors = {name: [finite_errors(name, width, draws, x) for width in WIDTHS[scale][name]] for name in FAMILIES}
    findings, series = [], {}
    for column, (claim, kind) in enumerate((("nngp-rate", "NNGP"), ("ntk-rate", "NTK"))):
        fits = [slope(WIDTHS[scale][name], [one[:, column] for one in errors[name]]) for name in FAMILIES]
        rows = [f"{name}, {kind} slope" for name in FAMILIES]
        detail = f"{IMAGES} digits, {draws} draws per width, widths {WIDTHS[scale]['perceptron']} (perceptron)."
        measured, errors_of_slope = zip(*fits, strict=True)
        findings.append(compare(claim, rows, [-0.5] * len(fits), measured, detail, uncertainty=errors_of_slope))
        series[f"{kind} error against width"] = _figure(kind, scale, errors, column)
    return findings, series


def _figure(kind: str, scale: Scale, errors: dict[str, list[Tensor]], column: int) -> Figure:
    drawn: list[Points | Line] = []
    for slot, name in enumerate(FAMILIES):
        widths = WIDTHS[scale][name]
        squares = [one[:, column].square() for one in errors[name]]
        roots = [float(one.mean().sqrt()) for one in squares]
        bars = [float(one.std() / len(one) ** 0.5 / 2) / root for one, root in zip(squares, roots, strict=True)]
        drawn.append(Points(name, floats(widths), floats(roots), floats(bars), slot))
        guide = [roots[0] * (widths[0] / width) ** 0.5 for width in widths]
        drawn.append(Line("slope -1/2" if slot == 0 else "", floats(widths), floats(guide), slot, dashed=True))
    caption = f"Root mean square over draws of the relative Frobenius distance between finite and infinite {kind}."
    axes = Axis("width", "log"), Axis(f"relative error of the {kind}", "log")
    return Figure(f"Finite networks approach their {kind}", *axes, tuple(drawn), caption)


# -- weight sharing and gradient independence --------------------------------------------------------------------------


def weight_sharing(scale: Scale) -> Outcome:
    """The kernel of a network that uses one matrix three times, against finite networks and against fresh matrices."""
    width, draws = (512, 60) if scale == "quick" else (2048, 200)
    x = torch.tensor([[1.0, 0.2, -0.5], [0.4, -1.0, 0.8]], dtype=torch.float64)
    tied, fresh = (kernel(Recurrent(3, width, one), x, "standard")(x) for one in (False, True))
    sums = []
    for draw in range(draws):
        net = gaussian(lambda: Recurrent(3, width, False), "shared", width, draw)
        h = features(net, x).flatten(1)
        nngp = WEIGHT_STD**2 * h @ h.T / width + BIAS_STD**2
        sums.append(torch.stack([nngp, empirical_ntk(net, x) / width])[:, (0, 0, 1), (0, 1, 1)].flatten())
    drawn = torch.stack(sums)
    mean, error = drawn.mean(0), drawn.std(0) / draws**0.5

    def entries(pair: tuple[Tensor, Tensor]) -> Tensor:
        return torch.stack([pair[0], pair[1] / width])[:, (0, 0, 1), (0, 1, 1)].flatten()

    naive = (entries(fresh) - mean).abs() > 4 * error + 0.01 * entries(fresh).abs()
    rows = [f"{kind} {place}" for kind in ("NNGP", "NTK / width") for place in ("11", "12", "22")]
    detail = (
        f"One {width} x {width} matrix used three times, {draws} draws; taken as fresh matrices, "
        f"{int(naive.sum())} of 6 entries are off by more than four standard errors plus 1 %."
    )
    predicted, measured, errors = (one.numpy() for one in (entries(tied), mean, error))
    options = {"uncertainty": errors, "errors": 4.0, "relative": 0.01, "also": bool(naive.any())}
    return [compare("weight-sharing", rows, predicted, measured, detail, **options)], {}  # type: ignore[arg-type]
