"""Single runs along the strength: linearised at one end, plateaus and flat minima at the other."""

from copy import deepcopy
from itertools import pairwise

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor, nn
from torch.func import functional_call, vmap

from widthwise.core import Axis, Figure, Line
from widthwise.numerics import fit_power_law
from widthwise.probe import Regime, empirical_ntk, largest_curvature
from widthwise.scaling import diagnose_regime, richness_law
from widthwise.scaling._richness import prepare
from widthwise.scaling._richness_batch import Cell, half_square, train_cells
from widthwise.studies._feature_learning_strength_task import images, perceptron
from widthwise.studies._findings import Outcome, compare, floats
from widthwise.studies._types import Finding, Scale
from widthwise.theory import KernelDynamics

UNIT = {2: 1.5, 3: 3.0}  # learning rate over the law, a third to a quarter of the best one
VERDICTS = ("lazy", "rich", "ultra-rich")


def linearised(scale: Scale) -> Outcome:
    """At small gamma every loss on the way is that of kernel gradient descent."""
    (x, y, _), _ = images(32)
    gamma, steps = 2.0**-9, 200
    starts, _ = prepare(perceptron(x.shape[1], 3), x.double(), y.double(), 1, None, None, 0, gamma)
    full = empirical_ntk(starts.module, starts.inputs, outputs="full").permute(0, 2, 1, 3)
    gram = full.reshape(y.numel(), y.numel()).numpy() / gamma**2
    wanted = starts.targets.reshape(-1).numpy()
    dynamics = KernelDynamics.fit(gram, wanted, convention="mean")
    rate = dynamics.largest_rate() / 2
    at = [1, 10, 40, 100, steps - 1]
    path = dynamics.descent(at, rate).train[..., 0]
    predicted = ((path - wanted) ** 2).mean(1) / 2
    curve = train_cells(starts, [Cell(gamma, rate, 0)], steps, None, curves=True).curve
    assert curve is not None
    detail = f"Loss of 32 images under full-batch descent at gamma = {gamma:.3g}, and of its linearisation."
    rows = [f"step {step}" for step in at]
    return [compare("linearised", rows, predicted, curve[0, at], detail, relative=0.02)], {}


def collapse(scale: Scale) -> Outcome:
    """Runs of large gamma against tau = rate * step / gamma."""
    (x, y, _), _ = images(2000)
    gammas, steps = (1024.0, 4096.0, 16384.0), 1500 if scale == "quick" else 4000
    starts, depth = prepare(perceptron(x.shape[1], 3), x, y, 1, "spectral", None, 0, 1.0)
    cells = [Cell(g, UNIT[3] * richness_law(g, depth), 0) for g in gammas]
    curve = train_cells(starts, cells, steps, 64, 0, curves=True).curve
    assert curve is not None
    smooth = gaussian_filter1d(curve, 15, axis=1, mode="nearest")
    tau = np.array([[cell.rate / cell.gamma] for cell in cells]) * np.arange(steps)
    half = [_crossing(tau[k], smooth[k], starts.initial / 2) for k in range(3)]
    rows = [f"gamma {b:g} over {a:g}" for a, b in pairwise(gammas)]
    ratios = [half[k + 1] / half[k] for k in range(2)]
    detail = f"Ratio of the rescaled times at which half the loss is gone ({', '.join(f'{t:.0f}' for t in half)})."
    until = 2 * max(half)
    lines = []
    for k, gamma in enumerate(gammas):
        shown = np.flatnonzero(tau[k] < until)[:: max(1, steps // 400)]
        lines.append(Line(f"gamma = {gamma:g}", floats(tau[k, shown]), floats(smooth[k, shown]), k))
    figure = Figure(
        "Training at large strength, rescaled", Axis("learning rate * step / gamma"), Axis("training loss"),
        tuple(lines), "Runs of different large gamma fall onto one curve: a plateau, then drops.",
    )  # fmt: skip
    return [compare("collapse", rows, [1.0, 1.0], ratios, detail, absolute=0.1)], {"collapse": figure}


def _crossing(x: np.ndarray, y: np.ndarray, level: float) -> float:
    below = np.flatnonzero(y < level)
    return float(x[below[0]]) if len(below) else float("nan")


def regimes(scale: Scale) -> Outcome:
    """Three strengths, three verdicts."""
    (x, y, _), _ = images(2000)
    runs = {2.0**-7: 600, 1.0: 600, 2.0**12: 1500 if scale == "quick" else 4000}
    found: dict[float, Regime] = {}
    for gamma, steps in runs.items():
        rate = UNIT[3] * richness_law(gamma, 3)
        found[gamma] = diagnose_regime(perceptron(x.shape[1], 3), x, y, gamma=gamma, rate=rate, steps=steps)
    rows = [f"gamma {gamma:.3g}" for gamma in runs]
    codes = [VERDICTS.index(one.verdict) if one.verdict in VERDICTS else -1 for one in found.values()]
    words = "; ".join(f"gamma {gamma:.3g}: {one.verdict}, {one.reasons[0]}" for gamma, one in found.items())
    last = found[2.0**12]
    detail = (
        f"0 lazy, 1 rich, 2 ultra-rich. {words}. In the last run, which is outside the theory of silent alignment (ten "
        f"classes, inputs not whitened), the kernel's alignment with the classes was {last.trace.alignment[0]:.3f} at "
        f"the start, {last.trace.alignment.min():.3f} at the lowest and {last.trace.alignment[-1]:.3f} at the end."
    )
    return [compare("regimes", rows, [0, 1, 2], codes, detail)], {"ultra-rich": last.plot()}


class _Scaled(nn.Module):
    def __init__(self, module: nn.Module, gamma: float) -> None:
        super().__init__()
        self.module, self.gamma = module, gamma

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x) / self.gamma


def sharpness(scale: Scale) -> Outcome:
    """Largest curvature after training at large gamma."""
    (x, y, _), _ = images(2000)
    gammas = (64.0, 256.0, 1024.0, 4096.0)
    rows, predicted, measured, errors = [], [], [], []
    for depth in (2, 3):
        starts, _ = prepare(perceptron(x.shape[1], depth), x, y, 1, "spectral", None, 0, 1.0)
        cells = [Cell(g, UNIT[depth] * richness_law(g, depth), 0) for g in gammas]
        trained = train_cells(starts, cells, 800 if scale == "quick" else 3000, 64)
        tops = []
        for k, gamma in enumerate(gammas):
            net = deepcopy(starts.module)
            net.load_state_dict({name: value[k] for name, value in trained.weights.items()})
            target = y[:256] + starts.outputs[0, :256] / gamma
            tops.append(largest_curvature(_Scaled(net, gamma), x[:256], target, half_square, iterations=40))
        fit = fit_power_law(gammas, tops)
        rows.append(f"L = {depth}")
        predicted.append(-2 / depth)
        measured.append(fit.slope)
        errors.append(fit.slope_stderr)
    detail = f"Exponent of the largest Gauss-Newton eigenvalue after training, gamma {gammas[0]:g} to {gammas[-1]:g}."
    return [compare("sharpness", rows, predicted, measured, detail, absolute=0.15, uncertainty=errors, errors=0.0)], {}


def accuracy(scale: Scale) -> Outcome:
    """Test accuracy of rich against lazy training, each near its best rate."""
    seeds, steps = (3, 600) if scale == "quick" else (8, 2000)
    (x, y, _), (x_test, _, classes) = images(2000, 1000)
    starts, _ = prepare(perceptron(x.shape[1], 3), x, y, seeds, "spectral", None, 0, 1.0)
    gammas = (2.0**-7, 1.0, 16.0)
    cells = [Cell(g, 2.5 * richness_law(g, 3) * (1 if g < 1 else 2), s) for g in gammas for s in range(seeds)]
    weights = train_cells(starts, cells, steps, 64).weights
    outputs = vmap(lambda w: functional_call(starts.module, w, (x_test,)))(weights)
    with torch.no_grad():
        before = vmap(lambda w: functional_call(starts.module, w, (x_test,)))(
            {name: torch.stack([starts.weights[cell.seed][name] for cell in cells]) for name in weights}
        )
    share = ((outputs - before).argmax(2) == classes).double().mean(1).reshape(len(gammas), seeds).numpy()
    mean, error = share.mean(1), share.std(1, ddof=1) / seeds**0.5
    gap, spread = mean[1:] - mean[0], np.hypot(error[1:], error[0])
    detail = f"Accuracy on 1000 other images, {seeds} seeds; predicted: that of the lazy run (gamma {gammas[0]:.2g})."
    rows = tuple(f"gamma {g:g}" for g in gammas[1:])
    holds = bool((gap > 2 * spread).all())
    found = Finding("richer-is-better", rows, floats([mean[0]] * 2), floats(mean[1:]), holds, detail, floats(spread))
    return [found], {}


EXPERIMENTS = (linearised, collapse, regimes, sharpness, accuracy)
