"""Lectures at large and infinite width: networks while they train."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from widthwise.core import Axis, Band, Figure, Line, Points, generator, seeded
from widthwise.data import load
from widthwise.kernels import infinite
from widthwise.numerics import fit_power_law
from widthwise.probe import KernelDrift, empirical_ntk, kernel_drift
from widthwise.program import trace
from widthwise.studies._findings import Outcome, compare, floats
from widthwise.studies._infinite_width_lectures_networks import SLUG
from widthwise.studies._types import Scale
from widthwise.theory import KernelDynamics

WEIGHT_STD, BIAS_STD = 2**0.5, 0.1**0.5
TRAIN, TEST = 24, 8
STEPS = (0, 10, 60, 240)
Statistic = Callable[[np.ndarray], float]
SHARE = 0.5  # learning rate as a share of the largest stable one


class NTKLinear(nn.Linear):
    """A linear layer in the NTK parametrisation: standard normal parameters, scales in the forward pass."""

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight)
        nn.init.normal_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return functional.linear(input, self.weight * (WEIGHT_STD / self.in_features**0.5), self.bias * BIAS_STD)


def network(width: int, phi: type[nn.Module] = nn.ReLU) -> nn.Module:
    """Two hidden layers in the NTK parametrisation, in double precision."""
    layers = [NTKLinear(64, width), phi(), NTKLinear(width, width), phi(), NTKLinear(width, 1)]
    return nn.Sequential(*layers).double()


@cache
def task(phi: type[nn.Module] = nn.ReLU) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Digits, standardised: inputs to train and test on, the infinite network's NNGP and NTK over all; and targets."""
    data = load("digits")
    x = data.inputs[: TRAIN + TEST].flatten(1).double()
    x = (x - x.mean()) / x.std()
    y = torch.where(torch.as_tensor(data.targets)[:TRAIN, None] % 2 == 0, 1.0, -1.0).double()
    nngp, ntk = kernels(x, phi)
    return x, y, nngp, ntk


def kernels(x: Tensor, phi: type[nn.Module]) -> tuple[Tensor, Tensor]:
    """NNGP and NTK of the infinitely wide network."""
    plain = [nn.Linear(x.shape[1], 8), phi(), nn.Linear(8, 8), phi(), nn.Linear(8, 1)]
    pair = infinite(trace(nn.Sequential(*plain), x[:2].float()), "ntk", WEIGHT_STD, BIAS_STD)(x)
    return pair.nngp, pair.ntk


def theory(phi: type[nn.Module] = nn.ReLU) -> KernelDynamics:
    """Training the infinitely wide network from outputs zero."""
    _, y, _, ntk = task(phi)  # type: ignore[arg-type]
    return KernelDynamics.fit(ntk[:TRAIN, :TRAIN], y, ntk[TRAIN:, :TRAIN])


# -- ensembles ---------------------------------------------------------------------------------------------------------


def trained_ensemble(width: int, draws: int, rate: float, steps: Sequence[int]) -> np.ndarray:
    """Test outputs ``[steps, draws, TEST]`` of many networks trained side by side by gradient descent."""
    x, y, *_ = task()
    source = generator(0, SLUG, "ensemble", width)
    sizes = (x.shape[1], width, width, 1)
    shapes = [shape for fan, out in pairwise(sizes) for shape in ((draws, fan, out), (draws, 1, out))]
    weights = [torch.randn(shape, generator=source, dtype=torch.float32).requires_grad_() for shape in shapes]
    train, test, targets = x[:TRAIN].float(), x[TRAIN:].float(), y.float()

    def outputs(inputs: Tensor) -> Tensor:
        h = inputs.expand(draws, *inputs.shape)
        for layer in range(3):
            w, b = weights[2 * layer], weights[2 * layer + 1]
            h = torch.baddbmm(BIAS_STD * b, h, w, alpha=WEIGHT_STD / w.shape[1] ** 0.5)
            h = h if layer == 2 else functional.relu(h)
        return h

    kept = []
    for step in range(max(steps) + 1):
        if step in steps:
            with torch.no_grad():
                kept.append(outputs(test)[:, :, 0].double().numpy())
        if step < max(steps):
            gradients = torch.autograd.grad((outputs(train) - targets).square().sum() / 2, weights)
            with torch.no_grad():
                for weight, gradient in zip(weights, gradients, strict=True):
                    weight -= rate * gradient
    return np.stack(kept)


def ensembles(scale: Scale) -> Outcome:
    """Mean and spread of trained networks at two widths, extrapolated in 1 / width, against the closed form."""
    widths, draws = ((64, 128), 300) if scale == "quick" else ((256, 512), 600)
    made = theory()
    rate = SHARE * made.largest_rate()
    nngp = task()[2]
    expected = made.ensemble(
        nngp[:TRAIN, :TRAIN],
        STEPS,
        rate,
        test_nngp=nngp[TRAIN:, TRAIN:],
        test_train_nngp=nngp[TRAIN:, :TRAIN],
        momentum=0,
    )
    found = [trained_ensemble(width, draws, rate, STEPS) for width in widths]
    rows: list[str] = []
    predicted: list[float] = []
    measured: list[float] = []
    errors: list[float] = []
    for row, step in enumerate(STEPS):
        mean, total = expected.mean[row, :, 0], float(expected.variance[row].sum())
        if step:
            estimate, error = _extrapolated([one[row] for one in found], partial(_along, mean))
            rows, predicted, measured = (
                [*rows, f"step {step}: mean along prediction"],
                [*predicted, 1.0],
                [*measured, estimate],
            )
            errors.append(error)
        estimate, error = _extrapolated([one[row] for one in found], partial(_spread, total))
        rows, predicted, measured = (
            [*rows, f"step {step}: variance over predicted"],
            [*predicted, 1.0],
            [*measured, estimate],
        )
        errors.append(error)
    detail = (
        f"{TRAIN} digits (even or odd), {TEST} held out, {draws} networks at widths {widths}, full batch at half the "
        f"largest stable rate; extrapolated as 2 m({widths[1]}) - m({widths[0]})."
    )
    finding = compare(
        "trained-ensemble", rows, predicted, measured, detail, uncertainty=errors, errors=4.0, absolute=0.03
    )
    return [finding], {"training of an ensemble": _ensemble_figure(made, rate, found[1], widths[1])}


def _along(mean: np.ndarray, outputs: np.ndarray) -> float:
    return float(outputs.mean(0) @ mean / (mean @ mean))


def _spread(total: float, outputs: np.ndarray) -> float:
    return float(outputs.var(0, ddof=1).sum() / total)


def _extrapolated(samples: list[np.ndarray], statistic: Statistic) -> tuple[float, float]:
    """``2 s(2 n) - s(n)``, which has no error of order 1 / n, and its standard error by resampling networks."""
    source = np.random.default_rng(0)

    def once(small: np.ndarray, large: np.ndarray) -> float:
        return 2 * statistic(large) - statistic(small)

    again = [once(*(one[source.integers(len(one), size=len(one))] for one in samples)) for _ in range(200)]
    return once(*samples), float(np.std(again))


def _ensemble_figure(made: KernelDynamics, rate: float, found: np.ndarray, width: int) -> Figure:
    nngp = task()[2]
    steps = np.unique(np.geomspace(1, max(STEPS), 25).round())
    path = made.ensemble(
        nngp[:TRAIN, :TRAIN],
        steps,
        rate,
        test_nngp=nngp[TRAIN:, TRAIN:],
        test_train_nngp=nngp[TRAIN:, :TRAIN],
        momentum=0,
    )
    parts: list[Band | Line | Points] = []
    for slot in range(2):
        middle, spread = path.mean[:, slot, 0], np.sqrt(path.variance[:, slot])
        parts.append(Band(floats(steps), floats(middle - spread), floats(middle + spread), slot))
        parts.append(Line(f"input {slot + 1}, predicted", floats(steps), floats(middle), slot))
        values = found[1:, :, slot]
        parts.append(
            Points(
                f"input {slot + 1}, width {width}",
                floats(STEPS[1:]),
                floats(values.mean(1)),
                floats(values.std(1)),
                slot,
            )
        )
    caption = "Output on two held-out digits: mean and one standard deviation over initialisations."
    return Figure("An ensemble while it trains", Axis("step", "log"), Axis("output"), tuple(parts), caption)


# -- one network against its linearisation -----------------------------------------------------------------------------


def distances(width: int, draws: int, steps: int) -> np.ndarray:
    """Root mean square distance on test inputs after training, ``[draws, 2]``: to the closed form with the network's
    own tangent kernel (its linearisation), and to that with the infinite kernel, both from its own initial outputs."""
    x, y, _, ntk = task(nn.Tanh)
    rate = SHARE * theory(nn.Tanh).largest_rate()
    found = np.empty((draws, 2))
    for draw in range(draws):
        with seeded(0, SLUG, "linearisation", width, draw):
            net = network(width, nn.Tanh)
        with torch.no_grad():
            start = net(x)
        own = empirical_ntk(net, x)
        paths = [_linear_path(kernel, y, start, steps, rate) for kernel in (own, ntk)]
        optimizer = torch.optim.SGD(net.parameters(), lr=rate)
        for _ in range(steps):
            optimizer.zero_grad()
            ((net(x[:TRAIN]) - y).square().sum() / 2).backward()
            optimizer.step()
        with torch.no_grad():
            end = net(x[TRAIN:]).numpy()
        found[draw] = [np.sqrt(np.square(end - path).mean()) for path in paths]
    return found


def _linear_path(kernel: Tensor, y: Tensor, start: Tensor, steps: int, rate: float) -> np.ndarray:
    made = KernelDynamics.fit(
        kernel[:TRAIN, :TRAIN], y, kernel[TRAIN:, :TRAIN], initial=start[:TRAIN], test_initial=start[TRAIN:]
    )
    path = made.descent(steps, rate).test
    assert path is not None
    return path[0]


def linearisation(scale: Scale) -> Outcome:
    """Distance of trained networks to linearised ones, against width."""
    widths, draws, steps = ((64, 128, 256), 16, 60) if scale == "quick" else ((128, 256, 512, 1024, 2048), 24, 200)
    found = [distances(width, draws, steps) for width in widths]
    rows = ("own tangent kernel: slope", "infinite tangent kernel: slope")
    slopes = [_slope(widths, [one[:, column] for one in found]) for column in range(2)]
    drawn: list[Points | Line] = []
    for slot, name in enumerate(("own kernel", "infinite kernel")):
        root = [float(np.sqrt(np.square(one[:, slot]).mean())) for one in found]
        drawn.append(Points(name, floats(widths), tuple(root), slot=slot))
        guide = [root[0] * (widths[0] / width) ** (0.5 if slot else 1.0) for width in widths]
        drawn.append(Line("slope -1/2" if slot else "slope -1", floats(widths), tuple(guide), slot, dashed=True))
    caption = "Root mean square distance on held-out digits between trained networks and closed forms."
    figure = Figure(
        "Networks near their linearisation", Axis("width", "log"), Axis("distance", "log"), tuple(drawn), caption
    )
    detail = f"{TRAIN} digits, {draws} networks per width {widths}, {steps} steps at half the largest stable rate."
    measured, errors = zip(*slopes, strict=True)
    finding = compare(
        "linearisation", rows, (-1.0, -0.5), measured, detail, uncertainty=errors, errors=3.0, absolute=0.15
    )
    return [finding], {"distance to the linearisation": figure}


def _slope(widths: Sequence[int], values: list[np.ndarray]) -> tuple[float, float]:
    source = np.random.default_rng(0)

    def fitted(samples: list[np.ndarray]) -> float:
        return fit_power_law(np.array(widths), np.sqrt([np.square(one).mean() for one in samples])).slope

    again = [fitted([source.choice(one, len(one)) for one in values]) for _ in range(300)]
    return fitted(values), float(np.std(again))


def _drift(phi: type[nn.Module], widths: Sequence[int], draws: int) -> KernelDrift:
    x, y, *_ = task()
    build = partial(network, phi=phi)
    return kernel_drift(build, widths, x[:TRAIN], y, steps=40, share=SHARE, draws=draws, progress=False)


def drift(scale: Scale) -> Outcome:
    """Relative change of the tangent kernel during training, against width."""
    widths, draws = ((64, 128, 256), 8) if scale == "quick" else ((128, 256, 512, 1024), 12)
    found = [_drift(phi, widths, draws) for phi in (nn.Tanh, nn.ReLU)]
    rows = ("tanh: slope of the relative change", "ReLU: slope of the relative change")
    detail = (
        f"{TRAIN} digits, {draws} networks per width {widths}, 40 steps. A smooth kernel moves by order "
        "1 / n. In a ReLU network a share n^(-1/2) of the units switches, half each way, and n^(1/2) units of "
        "random sign change a mean over n by n^(-3/4)."
    )
    measured, errors = [one.ntk_law.slope for one in found], [one.slope_error() for one in found]
    finding = compare(
        "kernel-drift", rows, (-1.0, -0.75), measured, detail, uncertainty=errors, errors=3.0, absolute=0.15
    )
    return [finding], {"kernel drift (tanh)": found[0].plot(), "kernel drift (ReLU)": found[1].plot()}


# -- catapult ----------------------------------------------------------------------------------------------------------
