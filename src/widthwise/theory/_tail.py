"""Beyond the sample: leave-one-out errors of disjoint blocks check the theory below P and carry the curve above it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from widthwise.theory._knots import Knots

DIVISORS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
_SMALLEST = 12  # samples in a block
_REPEATS = 4  # random partitions at each size
_EXPONENTS = np.linspace(0.01, 2.0, 200)
_WEIGHTS = np.array([0.25, 0.25, 0.5])  # of the three forms of `Tail`
_CURVATURE = 0.03  # prior standard deviation of the change of the exponent per e-fold
_MISFIT = 0.01  # relative departure of a learning curve from a quadratic in log n
GROUPS = 20  # of samples, each left out in turn

Matrix = Float[np.ndarray, "samples samples"]
Targets = Float[np.ndarray, "samples outputs"]
Points = Float[np.ndarray, "points"]


@dataclass(frozen=True)
class Tail:
    """How the ridgeless error goes on when the number of learned modes grows ``exp(u)``-fold beyond the sample.

    A geometric mean of three continuations: a power law with the last local exponent (weight 1/4), a power law with an
    offset (1/4), and a curve whose exponent goes on changing for about one e-fold (1/2). The first is right where the
    curve is straight, the second where it flattens, the third where it bends either way; their spread is the model
    error. The weights are a compromise: the third was nearest on digits and MNIST-1D, the mean of the first two on
    MNIST and Fashion-MNIST (`benchmarks/forecast_accuracy.py`).

    Attributes:
        alpha: ``-d log kappa / d log n``.
        slope: exponent of the plain power law.
        bent_slope, offset: exponent and share of the constant of the second form.
        curved_slope, curvature: exponent of the third at P, and its change per e-fold of n.
    """

    alpha: float
    slope: float
    bent_slope: float
    offset: float
    curved_slope: float
    curvature: float

    def shape(self, u: Points) -> Points:
        """Error at ``exp(u) P`` samples over error at P."""
        return np.exp(_WEIGHTS @ self._forms(u))

    def spread(self, u: Points) -> Points:
        """Standard deviation between the logarithms of the three forms."""
        forms = self._forms(u)
        return np.sqrt(_WEIGHTS @ (forms - _WEIGHTS @ forms) ** 2)

    def _forms(self, u: Points) -> Float[np.ndarray, "forms points"]:
        bent = np.log(self.offset + (1 - self.offset) * np.exp(-self.bent_slope * u))
        settled = u - (1 - np.exp(-u))
        return np.stack([-self.slope * u, bent, -self.curved_slope * u - self.curvature * settled])


@dataclass(frozen=True, eq=False)
class Blocks:
    """Ridgeless leave-one-out errors of random disjoint blocks; every sample is a test point at every size.

    Attributes:
        sizes: samples that each prediction was trained on, largest first.
        errors: ``[sizes, samples]`` squared errors, summed over outputs, averaged over partitions.
        hits: ``[sizes, samples]`` share of partitions in which the arg max was right; NaN without labels.
        kappas: per size, ``1 / Tr K_n^-1`` of every block.
        repeats: partitions at each size but the first.
    """

    sizes: Float[np.ndarray, "sizes"]
    errors: Float[np.ndarray, "sizes samples"]
    hits: Float[np.ndarray, "sizes samples"]
    kappas: tuple[np.ndarray, ...]
    repeats: int


def measure_blocks(
    gram: Matrix,
    targets: Targets,
    knots: Knots,
    labels: Int[np.ndarray, "samples"] | None,
    frequencies: Float[np.ndarray, "outputs"],
    seed: int = 0,
) -> Blocks:
    """Leave-one-out predictions at P, P/2, P/3, ... samples; those at P are the first of `knots`.

    The cost is about that of one eigendecomposition.
    """
    samples = len(gram)
    rng = np.random.default_rng(seed)

    def right(scores: Targets, rows: np.ndarray) -> np.ndarray:
        return np.full(len(rows), np.nan) if labels is None else (scores + frequencies).argmax(1) == labels[rows]

    sizes, kappas = [samples - 1.0], [knots.kappa[:1]]
    rows, hits = [knots.errors[0]], [right(knots.predictions[0], np.arange(samples))]
    for divisor in DIVISORS[1:]:
        if samples / divisor < _SMALLEST:
            break
        errors, correct, traces = np.zeros(samples), np.zeros(samples), []
        for _ in range(_REPEATS):
            for block in np.array_split(rng.permutation(samples), divisor):
                inverse = _inverse(gram[np.ix_(block, block)], knots.jitter)
                diagonal = np.diag(inverse)
                residual = (inverse @ targets[block]) / diagonal[:, None]
                errors[block] += (residual**2).sum(1) / _REPEATS
                correct[block] += right(targets[block] - residual, block) / _REPEATS
                traces.append(1 / diagonal.sum())
        sizes.append(samples / divisor - 1)
        rows.append(errors)
        hits.append(correct)
        kappas.append(np.array(traces))
    return Blocks(np.array(sizes), np.array(rows), np.array(hits, dtype=float), tuple(kappas), _REPEATS)


def _inverse(gram: Matrix, jitter: float) -> Matrix:
    eye = np.eye(len(gram))
    try:
        return cho_solve(cho_factor(gram + jitter * eye), eye)
    except LinAlgError:
        values, vectors = np.linalg.eigh(gram)
        return (vectors / (np.maximum(values, 0.0) + jitter)) @ vectors.T


def fit_tail(sizes: Points, errors: Float[np.ndarray, "sizes samples"], alpha: float) -> Tail:
    """Local exponent over the last factor of 4 in size, offset form over the last 8, curved form over the last 16."""
    count, risks = len(sizes), np.maximum(errors.mean(1), 1e-300)
    if count < 2:
        return Tail(alpha, 0.0, 0.0, 0.0, 0.0, 0.0)
    near, far = sizes >= sizes[0] / 4.2, sizes >= sizes[0] / 8.4
    slope = -float(np.polyfit(np.log(sizes[near]), np.log(risks[near]), 1)[0])
    if count < 3:
        return Tail(alpha, slope, max(slope, 0.0), 0.0, slope, 0.0)
    bent, offset = _fit_offset(sizes[far] / sizes[0], risks[far])
    return Tail(alpha, slope, bent, offset, *_fit_curved(sizes, errors))


def _fit_curved(sizes: Points, errors: Float[np.ndarray, "sizes samples"]) -> tuple[float, float]:
    """Exponent at P and its change per e-fold: a quadratic in log n with a normal prior on the curvature.

    Generalised least squares: errors of different sizes share their test points, so their noise is nearly common; the
    covariance comes from deleting groups of samples, plus `_MISFIT` for departures from the form.
    """
    used = sizes >= sizes[0] / 16.8
    x, errors = np.log(sizes[used] / sizes[0]), errors[used]
    logs = np.log(np.maximum(errors.mean(1), 1e-300))
    replicates = np.array([np.log(np.maximum(part.mean(1), 1e-300)) for part in jackknife(errors)])
    centred = replicates - replicates.mean(0)
    covariance = (GROUPS - 1) / GROUPS * centred.T @ centred + _MISFIT**2 * np.eye(len(x))
    columns = np.stack([np.ones_like(x), -x, -(x**2) / 2], 1)
    weighted = np.linalg.solve(covariance, columns)
    prior = np.diag([0.0, 0.0, _CURVATURE**-2])
    _, slope, curvature = np.linalg.solve(columns.T @ weighted + prior, weighted.T @ logs)
    return float(slope), float(curvature)


def jackknife(errors: Float[np.ndarray, "sizes samples"]) -> list[Float[np.ndarray, "sizes kept"]]:
    """The errors with each group of samples left out in turn."""
    group = np.arange(errors.shape[1]) % GROUPS
    return [errors[:, group != left] for left in range(GROUPS)]


def jackknife_deviation(replicates: np.ndarray) -> np.ndarray:
    """Standard error from delete-a-group replicates, along the first axis."""
    return np.sqrt((GROUPS - 1) / GROUPS * ((replicates - replicates.mean(0)) ** 2).sum(0))


def _fit_offset(x: Points, y: Points) -> tuple[float, float]:
    """Exponent and share of the constant at x = 1 of ``a x^-b + c`` with ``a, c >= 0``, in relative least squares."""
    powers = x[None, :] ** -_EXPONENTS[:, None] / y
    ones = np.broadcast_to(1 / y, powers.shape)
    pp, po, oo = (powers**2).sum(1), (powers * ones).sum(1), (ones**2).sum(1)
    p1, o1 = powers.sum(1), ones.sum(1)
    determinant = np.maximum(pp * oo - po**2, 1e-300)
    c = (pp * o1 - po * p1) / determinant
    a = np.where(c > 0, (oo * p1 - po * o1) / determinant, p1 / pp)
    c = np.where(c > 0, c, 0.0)
    a, c = np.where(a > 0, a, 0.0), np.where(a > 0, c, o1 / oo)
    misfit = ((a[:, None] * powers + c[:, None] * ones - 1) ** 2).sum(1)
    best = int(misfit.argmin())
    return float(_EXPONENTS[best]), float(c[best] / (a[best] + c[best]))


@dataclass(frozen=True, eq=False)
class Calibration:
    """How far the ridgeless theory is from the measured block errors, as a function of n.

    The ansatz errs in how much of the noise and of the unlearned signal is fitted, so the correction is applied in
    proportion to the logarithm of the overfitting coefficient: in full at zero ridge, hardly at all where the ridge
    keeps the coefficient near one.
    """

    sizes: Float[np.ndarray, "sizes"]
    log_ratio: Float[np.ndarray, "sizes"]  # log(measured / theory), sizes largest first; zero at the first

    def at(self, n: Points) -> Points:
        """``log(measured / theory)`` at n, by a smooth curve through zero at P; constant outside the measured sizes."""
        if len(self.sizes) < 3:
            return np.zeros_like(n)
        u = np.log(self.sizes / self.sizes[0])
        powers = np.arange(1, min(3, len(u) - 1) + 1)
        factors = np.linalg.lstsq(u[:, None] ** powers, self.log_ratio, rcond=None)[0]
        return np.clip(np.log(n / self.sizes[0]), u[-1], 0.0)[:, None] ** powers @ factors
