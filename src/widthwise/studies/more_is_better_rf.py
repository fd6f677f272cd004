"""Random-feature regression: more is better at tuned ridge, and overfitting is obligatory (arXiv:2311.14646)."""

import numpy as np

from widthwise.core import Axis, Figure, Guide, Line, Points, Series
from widthwise.studies._findings import Outcome, compare, floats, in_order
from widthwise.studies._more_is_better_rf_data import CLAIMS as DATA_CLAIMS
from widthwise.studies._more_is_better_rf_data import EXPERIMENTS as DATA_EXPERIMENTS
from widthwise.studies._types import Claim, Finding, Scale, Study
from widthwise.theory import (
    EigenSpectrum,
    gaussian_simulation,
    optimal_fitting_ratio,
    power_law_risk_ratio,
    risk,
    solve_kappa,
)

SLUG = "more-is-better-rf"
PAPER = "arXiv:2311.14646"

# n, width, power of ten of the ridge (31 from 1e-3 to 1e2), the authors' stored theory, their simulation over 45
# trials and its standard error.
STORED = (
    (256, 1000, -13 / 6, 1.1813, 1.193, 0.013),
    (256, 1000, -1 / 2, 0.8758, 0.878, 0.006),
    (256, 1000, 1 / 3, 0.9018, 0.906, 0.006),
    (256, 10000, -1 / 2, 0.8453, 0.849, 0.006),
)
STORED_TRAIN = (0.2222, 0.2240)  # of the last row: theory, simulation
SMALL = ((60, 120, 0.0), (60, 60, 0.05), (60, 30, 0.05), (60, 400, 0.05), (30, 120, 0.02))

CLAIMS = (
    Claim(
        "stored-theory",
        "The closed form gives the authors' own stored predictions (n = 256, 10000 modes, alpha = beta = 1.5).",
        f"{PAPER}, eigenframework; stored results of the authors' code",
        "1e-4, the rounding of the stored values",
    ),
    Claim(
        "stored-simulation",
        "The closed form agrees with the authors' stored simulation over 45 trials.",
        f"{PAPER}, synthetic random-feature experiment; stored results",
        "two standard errors plus 1 %",
    ),
    Claim(
        "simulation",
        "Test and train error of simulated Gaussian random features are those of the closed form.",
        f"{PAPER}, Gaussian universality ansatz and eigenframework",
        "two standard errors plus 3 %, the finite-size correction of order 1/n (train: plus 6 %)",
    ),
    Claim(
        "more-is-better",
        "At tuned ridge the test error never rises with n or with the width, for any spectrum and target.",
        f"{PAPER}, theorem 'more is better'",
        "largest relative rise 1e-9; simulated values: two standard errors plus 3 %",
    ),
    Claim(
        "tuning-needed",
        "At a fixed small ridge it does rise: the error peaks where the width equals n.",
        f"{PAPER}, double descent at untuned ridge",
        "both peaks at width = n and at least five times the error at 8 n; elsewhere two standard errors plus 5 %",
    ),
    Claim(
        "power-law-risk",
        "For power laws the test error at fitting ratio R over that at R = 0 is the theorem's closed form.",
        f"{PAPER}, theorem 'overfitting is obligatory'",
        "1 % at n = 100000",
    ),
    Claim(
        "noise-error",
        "Ridgeless regression of pure unit noise has test error alpha.",
        f"{PAPER}, E0 -> alpha",
        "0.5 % at n = 100000",
    ),
    Claim(
        "noise-threshold",
        "Zero ridge is best if and only if the relative noise is at most (beta - alpha) / (alpha (alpha - 1)).",
        f"{PAPER}, theorem 'overfitting is obligatory'",
        "optimal fitting ratio within 0.01; below the threshold under 1e-4",
    ),
    *DATA_CLAIMS,
)


def stored_results(scale: Scale) -> Outcome:
    """Closed form against what the authors stored."""
    spectrum = EigenSpectrum.power_law(1.5, 1.5, 10000, noise=0.5)
    n, width, power, theory, simulated, stderr = np.array(STORED).T
    ridge = 10**power
    found = risk(spectrum, n, ridge, width)
    ours = [*found.test, found.train[-1]]
    rows = [f"k={k:.0f}, ridge {r:.3g}" for k, r in zip(width, ridge, strict=True)] + ["train error of the last"]
    detail = "widthwise.theory.risk on 10000 modes, noise 0.5; nothing is fitted."
    return [
        compare("stored-theory", rows, ours, [*theory, STORED_TRAIN[0]], detail, absolute=1e-4),
        compare(
            "stored-simulation", rows, ours, [*simulated, STORED_TRAIN[1]], detail,
            relative=0.01, uncertainty=[*stderr, 0.0],
        ),
    ], {}  # fmt: skip


def simulation(scale: Scale) -> Outcome:
    """Closed form against Gaussian features that are drawn here."""
    spectrum, trials, settings = EigenSpectrum.power_law(1.3, 1.6, 400, noise=0.1), 200, SMALL
    if scale == "full":
        spectrum, trials = EigenSpectrum.power_law(1.5, 1.5, 10000, noise=0.5), 45
        settings = tuple((256, k, r) for k in (64, 256, 1000, 3160) for r in 10 ** np.array([-13 / 6, -0.5, 1 / 3]))
    rows, predicted, measured, stderr, slack = [], [], [], [], []
    for n, width, ridge in settings:
        theory = risk(spectrum, n, ridge, width)
        drawn = gaussian_simulation(spectrum, n, float(ridge), width, trials=trials, seed=n + width)
        rows += [f"n={n}, k={width}, ridge {ridge:g}: {part}" for part in ("test", "train")]
        predicted += [float(theory.test), float(theory.train)]
        measured += [drawn.test, drawn.train]
        stderr += [drawn.test_stderr, drawn.train_stderr]
        slack += [0.03, 0.06]
    allowed = np.array(slack) * np.array(predicted) + 1e-12
    inside = np.abs(np.array(measured) - predicted) <= allowed + 2 * np.array(stderr)
    detail = f"{trials} draws each of data, noise and Gaussian features with {len(spectrum.eigenvalues)} modes."
    finding = compare(
        "simulation", rows, predicted, measured, detail,
        relative=0.06, absolute=1e-12, uncertainty=stderr, also=bool(inside.all()),
    )  # fmt: skip
    return [finding], {}


def more_is_better(scale: Scale) -> Outcome:
    """Tuned ridge: monotone in n and in the width, on grids and in simulation."""
    grid = np.array([8, 16, 32, 64, 128, 256, 512, 1024, np.inf])
    rng, rises = np.random.default_rng(0), []
    spectra = [EigenSpectrum.power_law(1.5, 1.3, 2000, noise=0.1)]
    spectra += [_random_spectrum(rng) for _ in range(20 if scale == "quick" else 200)]
    for spectrum in spectra:
        table = risk(spectrum, grid[:-1, None], "optimal", grid).test
        rises.append([_rise(table, 0), _rise(table, 1)])
    power, random = rises[0], np.max(rises[1:], 0)
    rows = ["power law, in n", "power law, in k", f"{len(rises) - 1} random spectra, in n", "the same, in k"]
    widths, n, trials = np.array([32, 64, 256, 1024]), 32, 60 if scale == "quick" else 400
    tuned = risk(spectra[0], n, "optimal", widths)
    drawn = [
        gaussian_simulation(spectra[0], n, float(r), int(k), trials=trials, seed=int(k))
        for k, r in zip(widths, tuned.ridge, strict=True)
    ]
    tests, stderr = np.array([part.test for part in drawn]), np.array([part.test_stderr for part in drawn])
    finding = compare(
        "more-is-better",
        [f"largest relative rise: {row}" for row in rows] + [f"simulated, n={n}, k={k}" for k in widths],
        [0.0] * 4 + list(tuned.test),
        [*power, *random, *tests],
        f"tuned ridges on a grid of sizes 8 to 1024 and infinite width; {trials} simulated draws at the tuned ridge.",
        absolute=1e-9,
        relative=0.03,
        uncertainty=[0.0] * 4 + list(stderr),
    )
    curves = []
    for slot, size in enumerate((32, 128, 512)):
        k = np.geomspace(8, 2048, 40)
        curves.append(Line(f"n = {size}", floats(k), floats(risk(spectra[0], size, "optimal", k).test), slot))
    figure = Figure(
        "More is better at tuned ridge",
        Axis("random features k", "log"),
        Axis("test error at tuned ridge", "log"),
        (*curves, Points("simulated, n = 32", floats(widths), floats(tests), floats(stderr), 0)),
        "Lines are predicted, points simulated: with the ridge tuned, neither more data nor more features hurt.",
    )
    return [finding], {"tuned": figure}


def _random_spectrum(rng: np.random.Generator) -> EigenSpectrum:
    values = rng.lognormal(0, rng.uniform(0.5, 4), 300)
    return EigenSpectrum(values, rng.lognormal(0, rng.uniform(0.5, 4), 300), noise=float(rng.uniform(0, 100)))


def _rise(table: np.ndarray, axis: int) -> float:
    """Largest relative increase along an axis; 0 where there is none."""
    return max(float((np.diff(np.log(table), axis=axis)).max()), 0.0)


def double_descent(scale: Scale) -> Outcome:
    """A fixed small ridge: the peak at width = n."""
    spectrum, n, ridge = EigenSpectrum.power_law(1.5, 1.3, 2000, noise=0.1), 64, 1e-4
    widths, trials = np.array([16, 32, 48, 64, 80, 128, 512]), 40 if scale == "quick" else 400
    predicted = risk(spectrum, n, ridge, widths).test
    drawn = [gaussian_simulation(spectrum, n, ridge, int(k), trials=trials, seed=int(k)) for k in widths]
    tests, stderr = np.array([part.test for part in drawn]), np.array([part.test_stderr for part in drawn])
    far = (widths <= n // 2) | (widths >= 2 * n)
    peaks = [
        values.argmax() == list(widths).index(n) and values.max() >= 5 * values[-1] for values in (predicted, tests)
    ]
    finding = compare(
        "tuning-needed",
        ["width of the peak", *(f"n={n}, k={k}" for k in widths[far])],
        [float(n), *predicted[far]],
        [float(widths[tests.argmax()]), *tests[far]],
        f"ridge {ridge:g}, {trials} draws at each of {len(widths)} widths; at the peak {tests.max():.3g} was measured "
        f"and {predicted.max():.3g} predicted.",
        relative=0.05,
        uncertainty=[0.0, *stderr[far]],
        also=all(peaks),
    )
    k = np.geomspace(8, 1024, 81)
    figure = Figure(
        "Double descent at a fixed ridge of 1e-4, n = 64",
        Axis("random features k", "log"),
        Axis("test error", "log"),
        (
            Line("predicted", floats(k), floats(risk(spectrum, n, ridge, k).test)),
            Points("simulated", floats(widths), floats(tests), floats(stderr), 1),
            Guide(float(n), "k = n"),
        ),
        "Without tuning the ridge, more features hurt until their number passes that of the examples.",
    )
    return [finding], {"double-descent": figure}


def power_laws(scale: Scale) -> Outcome:
    """The theorem's closed forms against the solver at large n."""
    n, listed = 1e5, 20000
    rows, predicted, measured = [], [], []
    for alpha, beta, relative in ((1.5, 2.5, 0.0), (1.5, 2.5, 3.0), (1.2, 1.8, 0.5), (2.0, 1.5, 0.0)):
        spectrum = EigenSpectrum.power_law(alpha, beta, listed, tail=True)
        base = float(risk(spectrum, n).test)
        noise = relative * base
        ratios = np.array([0.01, 0.1, 0.3])
        kappa = solve_kappa(spectrum, n * (1 - np.sqrt(ratios)))
        found = risk(spectrum, n, n * np.sqrt(ratios) * kappa, noise=noise).test
        rows += [f"alpha={alpha}, beta={beta}, relative noise {relative:g}: R={ratio}" for ratio in ratios]
        measured += list(found / float(risk(spectrum, n, noise=noise).test))
        predicted += np.asarray(power_law_risk_ratio(ratios, alpha, beta, relative)).tolist()
    detail = f"n = {n:g}, the tail beyond {listed} modes integrated analytically."
    first = compare("power-law-risk", rows, predicted, measured, detail, relative=0.01)
    alphas = np.array([1.1, 1.3, 1.5, 2.0, 3.0])
    errors = [float(risk(EigenSpectrum.power_law(a, 2.0, listed, tail=True), n).coefficient) for a in alphas]
    second = compare("noise-error", [f"alpha={a}" for a in alphas], alphas, errors, detail, relative=0.005)
    return [first, second, _threshold(n, listed, detail)], {"fitting-ratio": _ratio_figure(n, listed)}


def _threshold(n: float, listed: int, detail: str) -> Finding:
    rows, predicted, measured, exact = [], [], [], True
    for alpha, beta in ((1.5, 1.8), (1.3, 1.5), (1.5, 1.2)):
        spectrum = EigenSpectrum.power_law(alpha, beta, listed, tail=True)
        base = float(risk(spectrum, n).test)
        threshold = max((beta - alpha) / (alpha * (alpha - 1)), 0.0)
        for relative in (0.0, 0.8 * threshold, 1.5 * threshold + 0.2, threshold + 3):
            best = float(risk(spectrum, n, "optimal", noise=relative * base).fitting_ratio)
            rows.append(f"alpha={alpha}, beta={beta}, relative noise {relative:.2f}")
            predicted.append(optimal_fitting_ratio(alpha, beta, relative))
            measured.append(best)
            exact &= best < 1e-4 if relative <= threshold and beta >= alpha else best > 1e-4
    return compare("noise-threshold", rows, predicted, measured, detail, absolute=0.01, also=exact)


def _ratio_figure(n: float, listed: int) -> Figure:
    spectrum, ratios = EigenSpectrum.power_law(1.5, 1.8, listed, tail=True), np.linspace(0, 0.6, 61)
    series: list[Series] = []
    base = float(risk(spectrum, n).test)
    points = np.linspace(0, 0.6, 13)
    kappa = solve_kappa(spectrum, n * (1 - np.sqrt(points)))
    for slot, relative in enumerate((0.0, 0.4, 5.0)):
        name = f"relative noise {relative:g}"
        found = risk(spectrum, n, n * np.sqrt(points) * kappa, noise=relative * base).test
        ideal = np.asarray(power_law_risk_ratio(ratios, 1.5, 1.8, relative))
        series += [
            Line(f"{name}: closed form", floats(ratios), floats(ideal), slot),
            Points(f"{name}: solver", floats(points), floats(found / found[0]), (), slot),
        ]
    return Figure(
        "Overfitting is obligatory until the noise passes a threshold (alpha = 1.5, beta = 1.8)",
        Axis("fitting ratio: train error over test error"),
        Axis("test error over that at zero ridge"),
        tuple(series),
        "At relative noise up to 0.4 the least error is at the left edge: interpolation is optimal.",
    )


EXPERIMENTS = (stored_results, simulation, more_is_better, double_descent, power_laws, *DATA_EXPERIMENTS)


STUDY = Study(
    slug=SLUG,
    state="works",
    claims=CLAIMS,
    settings={
        "quick": "Gaussian features with 400 to 2000 modes and sizes up to 60 or 64 (paper: 10000 modes, n = 256); "
        "ReLU kernels and random ReLU features on the first 4000 Fashion-MNIST images, n up to 3000 (paper: deep "
        "convolutional kernels on CIFAR-10, MNIST and SVHN, n up to 29000).",
        "full": "Gaussian features as in the paper (10000 modes, n = 256, 45 draws; widths up to 3160 for 10000, 3 "
        "ridges for 31); ReLU kernels and features on the first 8000 Fashion-MNIST images, n up to 6000 (paper: deep "
        "convolutional kernels on CIFAR-10, MNIST and SVHN, n up to 29000).",
    },
    measure=in_order(SLUG, CLAIMS, EXPERIMENTS),
)
