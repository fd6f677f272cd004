"""Published laws for learning rate and batch, each in its own units, with provenance and known misprints."""

import math

import numpy as np
from jaxtyping import Float

from widthwise.scaling._laws_types import Bowl, Domain, Interval, Law, Run

# Mean and covariance of the 1000 bootstrap fits that the authors released, in the order: intercept, exponent of
# params and exponent of tokens of ln(lr); intercept and exponent of tokens of ln(batch). All logarithms are natural.
STEP_MEAN = np.array([0.586308, -0.712922, 0.307491, -0.543542, 0.570944])
STEP_COVARIANCE = np.array(
    [
        [0.389062111, -0.0135589390, -0.00513249353, 0.0383857745, -0.00169407104],
        [-0.0135589390, 0.000891485737, -0.000174331789, 0.000188410504, -7.41672002e-06],
        [-0.00513249353, -0.000174331789, 0.000366311843, -0.00184045460, 8.05896073e-05],
        [0.0383857745, 0.000188410504, -0.00184045460, 0.191179636, -0.00815157225],
        [-0.00169407104, -7.41672002e-06, 8.05896073e-05, -0.00815157225, 0.000348517939],
    ]
)
Z95 = 1.959963984540054

# Shared curvature of ln(loss) over (ln lr, ln batch): `fit_law` (joint route, runs within 1 % of their cell's
# least loss) on the 1911 released dense runs.
STEP_BOWL = Bowl(lr=0.0182, batch=0.0141, cross=-0.0045)


def step_lr(run: Run) -> float:
    """1.797 N^-0.713 D^0.307 (arXiv:2503.04715, eq. 1)."""
    a = STEP_MEAN
    return math.exp(a[0] + a[1] * math.log(run.params) + a[2] * math.log(run.tokens))


def step_batch(run: Run) -> float:
    """0.581 D^0.571 tokens (arXiv:2503.04715, eq. 1)."""
    return math.exp(STEP_MEAN[3] + STEP_MEAN[4] * math.log(run.tokens))


def step_intervals(run: Run) -> tuple[Interval, Interval]:
    """95 % intervals: log-normal with the covariance of the released cloud of fits.

    The intercepts and exponents are strongly correlated, so that their standard deviations alone would give an
    interval that is many times too wide.
    """
    rows = step_rows(run)
    spread = np.sqrt(np.einsum("ri,ij,rj->r", rows, STEP_COVARIANCE, rows))
    middle = rows @ STEP_MEAN
    low, high = np.exp(middle - Z95 * spread), np.exp(middle + Z95 * spread)
    return (float(low[0]), float(high[0])), (float(low[1]), float(high[1]))


def step_rows(run: Run) -> Float[np.ndarray, "2 5"]:
    """Which combination of the five coefficients gives ln(lr) and ln(batch)."""
    n, d = math.log(run.params), math.log(run.tokens)
    return np.array([[1, n, d, 0, 0], [0, 0, 0, 1, d]], dtype=float)


def _openai_lr(run: Run) -> float | None:
    lr = 3.239e-3 - 1.395e-4 * math.log(run.params)
    return lr if lr > 0 else None


STEP_LAW = Law(
    "step-law",
    "arXiv:2503.04715",
    "lr = 1.797 N^-0.713 D^0.307; batch = 0.581 D^0.571 tokens; N without embeddings",
    "Released coefficients, the mean of 1000 bootstrap fits; intervals are log-normal with their covariance; "
    "curvature of the loss fitted here to the released dense table.",
    Domain(params=(2.147e8, 1.074e9), tokens=(4e9, 1e11), ratio=(10.0, 500.0)),
    step_lr,
    step_batch,
    step_intervals,
    STEP_BOWL,
    caution=(
        "the interval comes from resampling runs alone: the same recipe on the released dense table gives "
        "lr = 77.7 N^-0.766 D^0.197, batch = 0.21 D^0.613, and surfaces "
        "give D^0.17 to D^0.21 for lr, so treat exponents as known to 0.15",
    ),
)

RIVALS = (
    Law(
        "deepseek",
        "arXiv:2401.02954",
        "lr = 0.3118 C^-0.125; batch = 0.2920 C^0.3271 tokens; C = FLOPs without embeddings",
        "Verified against the paper's two models; comparison tables print 0.3188 for 0.3118, a misprint.",
        Domain(),
        lambda run: 0.3118 * run.flops**-0.125,
        lambda run: 0.2920 * run.flops**0.3271,
        caution=("fitted with a multi-step schedule on small budgets of FLOPs (1e17 to 2e19)",),
    ),
    Law(
        "porian",
        "arXiv:2406.19146",
        "lr = 3.7 N^-0.36; batch = 0.7576 N^0.703 tokens",
        "As printed in arXiv:2503.04715.",
        Domain(params=(5e6, 9e8)),
        lambda run: 3.7 * run.params**-0.36,
        lambda run: 0.7576 * run.params**0.703,
        caution=("fitted near 20 tokens per parameter",),
    ),
    Law(
        "microsoft",
        "arXiv:2409.19913",
        "lr = 1.3192e-3 N^-0.23 D^-0.32, N and D in billions; no batch",
        "Mended: printed as 1.3192e-5 with raw counts, which gives rates of 1e-10; the constant 1e-3 with billions "
        "is inferred from magnitudes.",
        Domain(),
        lambda run: 1.3192e-3 * (run.params / 1e9) ** -0.23 * (run.tokens / 1e9) ** -0.32,
        None,
        caution=("the constant is inferred, not read",),
    ),
    Law(
        "openai",
        "arXiv:2001.08361",
        "lr = 3.239e-3 - 1.395e-4 ln N; critical batch = 2e8 L^(-1/0.21) tokens, L = target loss in nats",
        "Mended: comparison tables print 2e18 for 2e8.",
        Domain(params=(768.0, 1.5e9)),
        _openai_lr,
        lambda run: None if run.loss is None else 2e8 * run.loss ** (-1 / 0.21),
        needs_loss=True,
    ),
    Law(
        "minicpm",
        "arXiv:2404.06395",
        "lr = 0.01 under the maximal update parametrisation; batch = 1.211e9 L^-6.2393 tokens",
        "The batch's constants are recalled, not read from the paper; comparison tables print 2e18 L^-6.24.",
        Domain(),
        lambda run: 0.01,
        lambda run: None if run.loss is None else 1.211e9 * run.loss**-6.2393,
        caution=("the learning rate is that of the maximal update parametrisation, not of the standard one",),
        needs_loss=True,
    ),
    Law(
        "meituan",
        "arXiv:2503.04715, table of related laws",
        "lr = lambda L^-alpha",
        "The constants are not published.",
        Domain(),
        None,
        None,
        caution=("the constants are not published, so there is no number to give",),
    ),
)
