"""The claims of the Step Law study."""

from widthwise.studies._types import Claim

PAPER = "arXiv:2503.04715"


RELEASED = f"{PAPER}, released dense runs"


CLAIMS = (
    Claim(
        "ratios",
        "Four times the tokens: learning rate x 1.53, batch x 2.21; four times the parameters: learning rate x 0.372.",
        f"{PAPER}, eq. 1",
        "0.006",
    ),
    Claim(
        "coefficients",
        "The printed law and its 95 % ranges are those of 1000 bootstrap fits.",
        f"{PAPER}, eq. 1 and released fits",
        "2 %, relative",
    ),
    Claim(
        "correlated",
        "Intercept and exponents are so strongly correlated that their standard deviations alone overstate intervals.",
        f"{PAPER}, released fits",
        "at 7e9 params and 1.4e12 tokens the interval (in logarithms) is at least five times too wide without it",
    ),
    Claim(
        "rivals",
        "DeepSeek's law gives the learning rate and batch of its 7B and 67B models, OpenAI's 3.48e-4 at 1e9 params.",
        "arXiv:2401.02954; arXiv:2001.08361",
        "1.5 %, relative",
    ),
    Claim(
        "misprints",
        "Three constants in tables of these laws are misprints: with them, the laws give impossible or other numbers.",
        "comparison of magnitudes; arXiv:2401.02954, arXiv:2001.08361, arXiv:2409.19913",
        "printed: a batch beyond all tokens, a rate below 1e-9, a rate off by 2 %; mended: Microsoft's rate 3 to 7 "
        "times below Step Law's at 1e9 params and 1e11 tokens (the paper's plot: 4 to 5 times)",
    ),
    Claim(
        "comparison",
        "Step Law loses under 1 per mille of the loss on average against an exhaustive search; rivals lose far more.",
        f"{PAPER}, comparison of laws; {RELEASED}",
        "Step Law within 10 % of 0.94 per mille, every rival at least five times as high (their own rows are for "
        "information: the paper averages over other cells)",
    ),
    Claim(
        "refits",
        "The same recipe on the released runs gives 77.7 N^-0.766 D^0.197 and 0.21 D^0.613; from the 17 best runs "
        "alone 30.1 N^-0.823 D^0.288 and 3.4 D^0.498.",
        RELEASED,
        "1 % on factors, 0.002 on exponents",
    ),
    Claim(
        "refits-differ",
        "The published coefficients do not follow from the released dense runs alone: exponents are less well known "
        "than their published intervals say.",
        RELEASED,
        "the recipe's learning rate at 7e9 params, 1.4e12 tokens lies below the published 95 % interval; each of "
        "three refits moves an exponent by more than 0.06 (the widest published half interval) and by less than 0.15",
    ),
    Claim(
        "surfaces",
        "The optima of quadratic surfaces fall with params and rise with tokens, and batches rise with tokens.",
        RELEASED,
        "exponents of the 17 vertices: 0.1 from -0.713 and from 0.571; tokens above 0.1",
    ),
    Claim(
        "loss-law",
        "The loss law L = e^E + e^A / N^alpha + e^B / D^beta from 16 cells predicts the least loss of the largest.",
        f"{PAPER}, official fit tool; {RELEASED}",
        "2 %, relative",
    ),
    Claim(
        "recovery",
        "From a sweep whose law is known and whose losses have no noise the exponents are recovered.",
        "quadratic bowl in (ln lr, ln batch)",
        "1e-6",
    ),
    Claim(
        "coverage",
        "With noise of 0.2 % on every loss the stated 95 % intervals hold the true exponents.",
        "simulation",
        "in at least 95 % of the sweeps, less two binomial standard errors",
    ),
    Claim(
        "joint-beats-near-optimal",
        "One bowl fitted to all cells errs less than regression on the near-optimal runs of a finite grid.",
        "simulation",
        "every root mean square error below 0.05 and below three quarters of the recipe's",
    ),
)
