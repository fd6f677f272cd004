"""Networks: conservation on real images, the teacher's phase portrait, an unbalanced convolutional network."""

from copy import deepcopy

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

from widthwise.core import Axis, DataError, Figure, Line, Points, generator, seeded
from widthwise.data import load
from widthwise.probe import balance_drift, empirical_ntk, kernel_distance, largest_curvature
from widthwise.scaling import unbalance
from widthwise.scaling._richness_batch import half_square
from widthwise.studies._feature_learning_strength_task import images
from widthwise.studies._findings import Outcome, compare, floats
from widthwise.studies._types import Finding, Scale

SHEET = {(0.1, -1.0): (0.064, 0.0056), (0.1, 0.0): (0.204, 0.0007), (0.1, 1.0): (0.246, 0.0003)}
"""Kernel distance and test error of a reduced run of the official experiment, from the paper's fact sheet."""
INPUTS, EXAMPLES, UNITS, TESTS = 20, 200, 50, 1000
ALPHAS = (0.25, 1.0, 4.0)


def conservation(scale: Scale) -> Outcome:
    """Balance of a ReLU network on real images: finite steps explain all drift, and it vanishes with the step."""
    (x, y, _), _ = images(256)
    with seeded(0, "conservation"):
        net = nn.Sequential(
            nn.Linear(x.shape[1], 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 10)
        ).double()  # fmt: skip
    runs = [balance_drift(net, x, y, rate=rate, steps=round(40 / rate), progress=False) for rate in (0.4, 0.2)]
    unexplained = max(float((run.residual[:, -1] / run.moved[:, -1]).max()) for run in runs)
    ratios = runs[0].drift[:, -1] / runs[1].drift[:, -1]
    rows = ["drift not explained", *(f"twice the step, {pair}" for pair in runs[0].pairs)]
    detail = (
        f"Three layers, 256 images, loss {runs[0].losses[0]:.3f} to {runs[0].losses[-1]:.3f}. First: the part of the "
        "drift that the sum over finite steps leaves, over what moved; then the ratio of drifts at the same time."
    )
    found = compare("conservation", rows, [0.0, 2.0, 2.0], [unexplained, *ratios], detail, absolute=1e-9, relative=0.15)
    return [found], {"conservation": runs[0].plot()}


class _Students:
    """Symmetrised two-layer ReLU students of one scale and balance each, and their teacher; all trained at once."""

    def __init__(self, settings: list[tuple[float, float]], seeds: int) -> None:
        self.settings = [(tau, delta, seed) for tau, delta in settings for seed in range(seeds)]
        tasks = [self._task(seed) for seed in range(seeds)]
        self.x, self.y, self.x_test, self.y_test = (
            torch.stack([tasks[seed][part] for *_, seed in self.settings]) for part in range(4)
        )
        starts = [self._start(*setting) for setting in self.settings]
        self.w, self.a = (torch.stack([one[part] for one in starts]) for part in range(2))
        self.first = self.w.clone(), self.a.clone()

    @staticmethod
    def _task(seed: int) -> tuple[Tensor, ...]:
        random = generator(0, "teacher", seed)
        x = torch.randn(EXAMPLES + TESTS, INPUTS, generator=random, dtype=torch.float64)
        x = x / x.norm(dim=1, keepdim=True)
        teacher = torch.randn(3, INPUTS, generator=random, dtype=torch.float64)
        teacher = teacher / teacher.norm(dim=1, keepdim=True)
        signs = torch.randint(2, (3,), generator=random).double() * 2 - 1
        y = (x @ teacher.T).relu() @ signs
        return x[:EXAMPLES], y[:EXAMPLES], x[EXAMPLES:], y[EXAMPLES:]

    @staticmethod
    def _start(tau: float, delta: float, seed: int) -> tuple[Tensor, Tensor]:
        """``|w_i| = tau alpha``, ``|a_i| = tau / alpha``, so that ``a^2 - |w|^2 = delta`` and ``|a| |w| = tau^2``."""
        random = generator(0, "student", seed)
        half = torch.randn(UNITS // 2, INPUTS, generator=random, dtype=torch.float64)
        ratio = delta / tau**2
        alpha = ((4 + ratio**2) ** 0.5 - ratio) ** 0.5 / 2**0.5
        half = tau * alpha * half / half.norm(dim=1, keepdim=True)
        signs = (torch.randint(2, (UNITS // 2,), generator=random).double() * 2 - 1) * tau / alpha
        return torch.cat([half, half]), torch.cat([signs, -signs])

    def train(self, steps: int) -> None:
        """Full-batch descent on the mean squared error; the rate of the official run, lower where unbalanced."""
        rates = [0.05 / tau**2 * (0.1 if delta and tau == 0.1 else 1.0) for tau, delta, _ in self.settings]
        step = torch.tensor(rates, dtype=torch.float64)[:, None] * 2 / EXAMPLES
        for _ in range(steps):
            before = self.x @ self.w.mT
            hidden = before.relu()
            error = (hidden @ self.a[..., None]).squeeze(-1) - self.y
            push = (error[..., None] * (before > 0) * self.a[:, None]).mT @ self.x
            self.a = self.a - step * (error[:, None] @ hidden).squeeze(1)
            self.w = self.w - step[..., None] * push

    def measure(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Kernel distance, test error, and share of changed activations."""
        kernels = [self._kernel(w, a) for w, a in ((self.first), (self.w, self.a))]
        distance = np.array([kernel_distance(one, two) for one, two in zip(*kernels, strict=True)])
        outputs = ((self.x_test @ self.w.mT).relu() @ self.a[..., None]).squeeze(-1)
        changed = ((self.x @ self.w.mT > 0) != (self.x @ self.first[0].mT > 0)).double().mean((1, 2))
        return distance, (outputs - self.y_test).square().mean(1).numpy(), changed.numpy()

    def _kernel(self, w: Tensor, a: Tensor) -> Tensor:
        before = self.x @ w.mT
        slopes = (before > 0) * a[:, None]
        return before.relu() @ before.relu().mT + (slopes @ slopes.mT) * (self.x @ self.x.mT)


def portrait(scale: Scale) -> Outcome:
    """Two-layer ReLU students of a small teacher, by scale and balance."""
    quick = scale == "quick"
    settings = [*SHEET, (0.5, 0.0), (2.0, 0.0)]
    if not quick:
        settings += [(tau, delta) for tau in (0.2, 0.5, 1.0, 2.0) for delta in (-1.0, 1.0)]
    seeds = 2 if quick else 6
    students = _Students(settings, seeds)
    students.train(6000 if quick else 12000)
    shaped = [values.reshape(len(settings), seeds) for values in students.measure()]
    distance, test, changed = (values.mean(1) for values in shaped)
    errors = shaped[0].std(1, ddof=1) / seeds**0.5
    names = [f"tau {tau:g}, delta {delta:g}" for tau, delta in settings]
    detail = (
        f"Kernel distance of {seeds} students with {UNITS} units, {EXAMPLES} examples of {INPUTS} inputs; test errors "
        f"{', '.join(f'{v:.4f}' for v in test[:3])}; activations changed: "
        f"{', '.join(f'{v:.2f}' for v in changed[:3])}."
    )
    better = bool(test[2] < test[1] < test[0] and distance[2] > distance[1] > distance[0])
    smaller = bool(distance[1] > distance[3] > distance[4])
    first = compare(
        "upstream", names[:3], [SHEET[key][0] for key in SHEET], distance[:3], detail, relative=0.3,
        uncertainty=errors[:3], errors=0.0, also=better and bool(changed[2] > changed[0]),
    )  # fmt: skip
    rows = tuple(names[k] for k in (1, 3, 4))
    scales = Finding(
        "small-scale", rows[1:], floats([distance[1], distance[3]]), floats([distance[3], distance[4]]), smaller,
        "Kernel distance; predicted: that of the smaller scale, which is to be larger.", floats(errors[3:5]),
    )  # fmt: skip
    return [first, scales], {
        "portrait": _portrait_figure(settings, distance, errors, "kernel distance"),
        "portrait-test-error": _portrait_figure(settings, test, shaped[1].std(1, ddof=1) / seeds**0.5, "test error"),
    }


def _portrait_figure(settings, values, errors, name: str) -> Figure:  # type: ignore[no-untyped-def]
    series: list[Points | Line] = []
    for slot, tau in enumerate(sorted({tau for tau, _ in settings})):
        chosen = sorted((delta, k) for k, (t, delta) in enumerate(settings) if t == tau)
        x, at = floats([delta for delta, _ in chosen]), [k for _, k in chosen]
        series.append(Points(f"scale {tau:g}", x, floats(values[at]), floats(errors[at]), slot))
        if len(at) > 1:
            series.append(Line("", x, floats(values[at]), slot))
    return Figure(
        f"Students of a small teacher: {name}", Axis("balance delta (positive: upstream)"), Axis(name, "log"),
        tuple(series), "Features move more, and the student generalises better, the smaller the scale and the more the "
        "first layer is to learn. Bars: standard error over seeds.",
    )  # fmt: skip


def convolutional(scale: Scale) -> Outcome:
    """A small convolutional network on real images: the same function at the start, other balances."""
    count, seeds, steps = (192, 8, 500) if scale == "quick" else (1000, 16, 6000)
    try:
        data = load("fashion-mnist")
        x = nn.functional.avg_pool2d(data.inputs[:count].float().reshape(-1, 1, 28, 28), 2)
    except DataError:
        data = load("digits")
        x = data.inputs[:count].float()
    x = ((x - x.mean()) / x.std()).double()
    y = nn.functional.one_hot(data.targets[:count], 10).double() - 0.1
    moved, first = np.zeros((len(ALPHAS), seeds)), np.zeros((len(ALPHAS), seeds))
    for seed in range(seeds):
        with seeded(0, "convolutional", seed):
            base = _cnn(x.shape[-1]).double()
        for k, alpha in enumerate(ALPHAS):
            net = deepcopy(base)
            unbalance(net, x[:8], alpha=alpha)
            moved[k, seed], first[k, seed] = _movement(net, x, y, steps)
    slopes = np.polyfit(np.log(ALPHAS), np.log(moved), 1)[0]  # one per seed: its networks start as one function
    slope, error = float(slopes.mean()), float(slopes.std(ddof=1)) / seeds**0.5
    low = slope - float(stats.t.ppf(0.975, seeds - 1)) * error
    logs = np.log(moved)
    mean, spread = np.exp(logs.mean(1)), np.exp(logs.mean(1)) * logs.std(1, ddof=1) / seeds**0.5
    detail = (
        f"Kernel distance when a third of the loss of {count} images is gone, {seeds} seeds: "
        f"{', '.join(f'{v:.4f}' for v in mean)} (geometric means) for alpha {', '.join(f'{v:g}' for v in ALPHAS)}; the "
        f"slope of its logarithm against that of alpha within each seed, predicted: above zero; 95 % interval from "
        f"{low:.2f}, {int((slopes > 0).sum())} of {seeds} seeds above zero. The first layer moved by "
        f"{', '.join(f'{v:.2f}' for v in first.mean(1))} of its size."
    )
    rows = ("slope of log kernel distance in log alpha",)
    found = Finding("convolutional", rows, (0.0,), (slope,), low > 0, detail, (error,))
    points = Points("geometric mean over seeds and its standard error", ALPHAS, floats(mean), floats(spread))
    singles = [Line("" if k else "single seeds", ALPHAS, floats(row), 4, dashed=True) for k, row in enumerate(moved.T)]
    figure = Figure(
        "Unbalanced convolutional network", Axis("alpha (above 1: upstream)", "log"), Axis("kernel distance", "log"),
        (*singles, Line("", ALPHAS, floats(mean)), points),
        "Kernel distance when a third of the loss is gone; the networks of one seed start as the same function.",
    )  # fmt: skip
    return [found], {"convolutional": figure}


def _cnn(side: int) -> nn.Module:
    last = (side + 3) // 4
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, 2, 1), nn.ReLU(), nn.Conv2d(12, 12, 3, 2, 1), nn.ReLU(), nn.Flatten(),
        nn.Linear(12 * last * last, 10),
    )  # fmt: skip


def _movement(net: nn.Module, x: Tensor, y: Tensor, steps: int) -> tuple[float, float]:
    """Kernel distance and relative movement of the first layer when a third of the loss is gone, by descent at a rate
    set by the curvature."""
    watched, before = x[:24], empirical_ntk(net, x[:24])
    first = dict(net.named_parameters())["0.weight"]
    start = first.detach().clone()
    rate = 1 / largest_curvature(net, x[:64], y[:64], half_square, iterations=30)
    level = None
    for _ in range(steps):
        loss = half_square(net(x), y)
        now = float(loss.detach())
        level = 2 / 3 * now if level is None else level
        if now < level:
            break
        gradients = torch.autograd.grad(loss, list(net.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(net.parameters(), gradients, strict=True):
                parameter.sub_(gradient, alpha=rate)
    else:
        return float("nan"), float("nan")
    moved = (first.detach() - start).norm() / start.norm()
    return kernel_distance(before, empirical_ntk(net, watched)), float(moved)


EXPERIMENTS = (conservation, portrait, convolutional)
