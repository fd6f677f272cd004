"""Kernels whose eigensystem is known, and real images, in the study of the cost of overfitting."""

from collections.abc import Callable
from itertools import product

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from widthwise.core import Axis, Figure, Guide, Line, Points
from widthwise.studies._cost_of_overfitting_krr_parity import parity
from widthwise.studies._findings import Outcome, compare, floats
from widthwise.studies._real_task import RealTask, laplace_kernel, real_task, relu_kernels, ridge_sweep, ridgeless
from widthwise.studies._types import Claim, Finding, Scale
from widthwise.theory import (
    EigenSpectrum,
    TaskSpectrum,
    circle_eigensystem,
    hypercube_eigensystem,
    solve_kappa,
    sphere_eigensystem,
    total_learnability,
)

PAPER = "arXiv:2306.13185"
EIGENLEARNING = "arXiv:2110.03922"

CLAIMS = (
    Claim(
        "conservation",
        "The learnabilities of any orthonormal basis sum to n at zero ridge, for any kernel and training set.",
        f"{EIGENLEARNING}, conservation law",
        "1e-9 relative at zero ridge; with a ridge, n - ridge / kappa within 5 % (an average over training sets)",
    ),
    Claim(
        "eigensystems",
        "The closed-form eigensystems of the circle, the hypercube and the sphere are those of the kernel matrices.",
        f"{EIGENLEARNING}, synthetic domains",
        "1e-10 of the largest eigenvalue, over all levels with their multiplicities",
    ),
    Claim(
        "parity-hardness",
        "A parity of degree l on the hypercube is half learned at the predicted n, which grows like d^l.",
        f"{EIGENLEARNING}, learnability of parities",
        "learnability within 0.05 of 1/2; predicted exponent within 0.3 of l",
    ),
    Claim(
        "real-noise-flat",
        "On Fashion-MNIST ridgeless regression with a ReLU tangent kernel is tempered: the error on pure noise is 1.27 "
        "to 1.33 for n = 50 to 3000.",
        "arXiv:2207.06569, tempered kernels; reference values measured apart from this code",
        "every measured value within 0.02 of that range, and within 5 % of the one predicted from one kernel matrix",
    ),
    Claim(
        "real-noise-laplace",
        "The Laplace kernel is tempered too.",
        "arXiv:2207.06569, tempered kernels",
        "within 5 % of the prediction at every n; growth per factor of n below 0.1",
    ),
    Claim(
        "real-cost",
        "On real images the measured cost of overfitting lies between 1 and the measured error on pure noise, and is "
        "predicted.",
        f"{PAPER}, agnostic bound",
        "within 5 % of the prediction and inside the bounds, at every noise level",
    ),
)

Profile = Callable[[np.ndarray], np.ndarray]


def domains(scale: Scale) -> Outcome:
    """Exact laws on finite domains."""
    return [_conservation(), _eigensystems()], {}


def _conservation() -> Finding:
    rng, count = np.random.default_rng(0), 100
    points = rng.standard_normal((count, 5))
    gram = np.exp(-np.linalg.norm(points[:, None] - points[None], axis=2))
    basis = np.linalg.qr(rng.standard_normal((count, count)))[0]
    values = np.maximum(np.linalg.eigvalsh(gram / count), 0)
    rows, predicted, measured = [], [], []
    for n in (5, 20, 60):
        train = rng.choice(count, n, replace=False)
        fitted = gram[:, train] @ cho_solve(cho_factor(gram[np.ix_(train, train)]), basis[train])
        rows += [f"n={n}: every function of a random basis", f"n={n}: trace formula"]
        predicted += [float(n)] * 2
        measured += [float((basis * fitted).sum()), total_learnability(gram, train)]
    exact = float(np.max(np.abs(np.array(measured) / predicted - 1)))
    spectrum = EigenSpectrum(values, np.zeros(count))
    for n, ridge in ((20, 0.3), (60, 1.0)):
        draws = [total_learnability(gram, rng.integers(count, size=n), ridge) for _ in range(50)]
        rows.append(f"n={n}, ridge {ridge:g}: mean of 50 training sets, drawn with replacement")
        predicted.append(n - ridge / float(solve_kappa(spectrum, n, ridge)))
        measured.append(float(np.mean(draws)))
    return compare(
        "conservation", rows, predicted, measured,
        f"Laplace kernel on {count} random points in 5 dimensions; at zero ridge the largest deviation is {exact:.1g}.",
        relative=0.05, also=exact <= 1e-9,
    )  # fmt: skip


def _eigensystems() -> Finding:
    circle = np.linspace(0, 2 * np.pi, 41)[:-1]
    cube = np.array(list(product((-1.0, 1.0), repeat=8)))
    sphere, weights = _sphere_rule(24)

    def cosine(angle: np.ndarray) -> np.ndarray:
        return np.exp(2 * np.cos(angle))

    cases = {
        "circle, 40 points": (circle_eigensystem(cosine, 40), cosine(circle[:, None] - circle) / 40),
        "hypercube, dimension 8": (hypercube_eigensystem(_relu_tangent, 8), _relu_tangent(cube @ cube.T / 8) / 256),
        "sphere, dimension 3": (
            sphere_eigensystem(np.exp, 3, 24),
            np.sqrt(weights)[:, None] * np.exp(sphere @ sphere.T) * np.sqrt(weights),
        ),
    }
    worst = []
    for (values, counts), matrix in cases.values():
        exact = np.sort(np.repeat(values, counts.astype(int)))[::-1]
        numeric = np.linalg.eigvalsh(matrix)[::-1]
        worst.append(float(np.abs(exact - numeric[: len(exact)]).max() / exact[0]))
    return compare(
        "eigensystems", [f"{name}: largest difference" for name in cases], [0.0] * len(cases), worst,
        "numeric eigendecomposition of the whole domain; of a product quadrature rule for the sphere.", absolute=1e-10,
    )  # fmt: skip


def _sphere_rule(order: int) -> tuple[np.ndarray, np.ndarray]:
    """Points and weights on the sphere in three dimensions, exact for polynomials of degree below 2 x `order`."""
    height, weight = np.polynomial.legendre.leggauss(order)
    angle = np.arange(2 * order) * np.pi / order
    radius = np.sqrt(1 - height**2)[:, None]
    columns = radius * np.cos(angle), radius * np.sin(angle), np.broadcast_to(height[:, None], (order, 2 * order))
    points = np.stack([part.ravel() for part in columns], 1)
    return points, np.repeat(weight / weight.sum(), 2 * order) / (2 * order)


def _relu_tangent(cosine: np.ndarray) -> np.ndarray:
    """Tangent kernel of one ReLU layer as a function of the cosine, at unit norms, plus a bias term."""
    t = np.clip(cosine, -1, 1)
    angle = np.arccos(t)
    return (np.sqrt(1 - t**2) + 2 * t * (np.pi - angle)) / np.pi + 0.1 * (np.pi - angle) / np.pi


def real_images(scale: Scale) -> Outcome:
    """Noise errors and costs on real images."""
    task = real_task(4000 if scale == "quick" else 8000)
    trials = 4 if scale == "quick" else 20
    gram = relu_kernels(task.inputs)[1]
    known = _known(task, gram)
    relu, lines = _noise(task, gram, known, "real-noise-flat", trials)
    cost, drawn = _cost(task, gram, known, 5 if scale == "quick" else 20)
    gram = laplace_kernel(task.inputs)
    laplace, more = _noise(task, gram, _known(task, gram), "real-noise-laplace", trials)
    figure = Figure(
        f"Ridgeless regression of pure noise on {task.name}",
        Axis("training examples n", "log"),
        Axis("test error on unit noise"),
        (*lines, *more),
        "Both kernels are tempered: the error neither falls to 1 nor diverges. Lines are predicted, each from one "
        "kernel matrix.",
    )
    return [relu, laplace, cost], {"real-noise": figure, **drawn}


def _known(task: RealTask, gram: np.ndarray) -> TaskSpectrum:
    """What is measured on the first images alone; predictions for larger n are extrapolated."""
    pool = min(1200, 2 * len(gram) // 3)
    return TaskSpectrum.fit(gram[:pool, :pool], task.targets[:pool])


def _noise(
    task: RealTask, gram: np.ndarray, known: TaskSpectrum, claim: str, trials: int
) -> tuple[Finding, list[Line | Points]]:
    slot = 0 if claim == "real-noise-flat" else 1
    largest = min(3 * len(gram) // 4, 6000)
    sizes = np.unique(np.geomspace(50, largest, 7).astype(int))
    found = ridgeless(gram, task.targets, sizes.tolist(), trials)
    predicted = known.noise_only_error(sizes)
    growth = float(np.polyfit(np.log(sizes), np.log(found.noise), 1)[0])
    detail = f"{len(gram)} images of {task.name}; prediction from the kernel of {known.samples}; growth {growth:+.3f}."
    fits = growth < 0.1
    if claim == "real-noise-flat" and task.official:
        fits = bool(found.noise.min() >= 1.25 and found.noise.max() <= 1.35)
    elif claim == "real-noise-flat":
        detail += " Fashion-MNIST is not installed: its range does not apply, so the growth stands for it."
    finding = compare(
        claim, [f"n={n}" for n in sizes], predicted, found.noise, detail,
        relative=0.05, uncertainty=found.noise_stderr, errors=0.0, also=fits,
    )  # fmt: skip
    name = "ReLU tangent kernel" if slot == 0 else "Laplace kernel"
    dense = np.geomspace(sizes[0], sizes[-1], 40)
    return finding, [
        Line(f"{name}: predicted", floats(dense), floats(known.noise_only_error(dense)), slot),
        Points(f"{name}: measured", floats(sizes), floats(found.noise), floats(found.noise_stderr), slot),
    ]


def _cost(task: RealTask, gram: np.ndarray, known: TaskSpectrum, trials: int) -> tuple[Finding, dict[str, Figure]]:
    size = known.samples // 2
    ridges = np.concatenate([[1e-12], np.geomspace(1e-4, 1e3, 60)]) * np.trace(gram) / len(gram)
    sweep = ridge_sweep(gram, task.targets, size, ridges, trials)
    levels = np.array([0.0, 0.1, 1.0, 10.0])
    tests = [sweep.errors(level)[0] for level in levels]
    costs = np.array([part.mean(0)[0] / part.mean(0).min() for part in tests])
    stderr = [_cost_error(part) for part in tests]
    bound = float(sweep.test_noise[:, 0].mean())
    predicted = [known.overfitting(size, noise=level).cost for level in levels]
    finding = compare(
        "real-cost", [f"noise variance {level:g}" for level in levels], predicted, costs,
        f"{trials} subsets of {size} images of {task.name}, {len(ridges)} ridges; measured E_0 = {bound:.3f}.",
        relative=0.05, uncertainty=stderr, errors=0.0, also=bool((costs >= 1).all() and (costs <= bound).all()),
    )  # fmt: skip
    dense = np.geomspace(1e-3, 100, 30)
    line = [known.overfitting(size, noise=level).cost for level in dense]
    figure = Figure(
        f"What interpolating costs on {task.name}, n = {size}",
        Axis("label noise variance", "log"),
        Axis("ridgeless over tuned test error"),
        (
            Line("predicted", floats(dense), floats(line)),
            Points("measured", floats(levels[1:]), floats(costs[1:]), floats(stderr[1:]), 1),
            Guide(bound, "measured E_0", "horizontal"),
            Guide(1.0, "no cost", "horizontal"),
        ),
        "The cost rises with the noise and stays below the error on pure noise.",
    )
    return finding, {"real-cost": figure}


def _cost_error(tests: np.ndarray) -> float:
    """Standard error of the cost, from the trials' own costs at the ridge that is best on average."""
    best = tests.mean(0).argmin()
    return float((tests[:, 0] / tests[:, best]).std(ddof=1) / np.sqrt(len(tests)))


EXPERIMENTS = (domains, parity, real_images)
