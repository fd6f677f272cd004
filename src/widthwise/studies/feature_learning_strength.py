"""Feature-learning strength: how the best learning rate follows it, and what changes on the way (arXiv:2410.04642)."""

from widthwise.studies import _feature_learning_strength_alignment as alignment
from widthwise.studies import _feature_learning_strength_architectures as architectures
from widthwise.studies import _feature_learning_strength_plane as plane
from widthwise.studies import _feature_learning_strength_runs as runs
from widthwise.studies import _feature_learning_strength_toy as toy
from widthwise.studies._findings import in_order
from widthwise.studies._types import Claim, Study

SLUG = "feature-learning-strength"
PAPER = "arXiv:2410.04642"

ALIGNED = (
    "at least half of the kernel's way to its last direction, and of its alignment's rise, when a tenth of the fall is "
    "over"
)
CLAIMS = (
    Claim(
        "best-rate",
        "With outputs divided by gamma the best learning rate grows like gamma^2 when lazy (gamma << 1) and like "
        "gamma^(2/L) when rich (gamma >> 1), for L matrices.",
        f"{PAPER}, section 3; measured on real images, the paper draws the slopes without fitting them",
        "0.15",
    ),
    Claim("largest-rate", "So does the largest rate that trains.", f"{PAPER}, section 3", "0.15"),
    Claim(
        "architectures",
        "A convolutional network, a residual network with normalisation and a vision transformer have the lazy "
        "exponent 2 as well, of the best and of the largest rate.",
        f"{PAPER}, section 3; in the lazy limit any network trains as its linearisation, at rates in units of gamma^2",
        "0.15",
    ),
    Claim(
        "architectures-edge",
        "In the lazy limit their largest rate is 2 gamma^2 over the largest eigenvalue of the tangent kernel.",
        f"{PAPER}, section 4 (toy model), for any network by linearisation",
        "one step of the rates tried",
    ),
    Claim(
        "architectures-rich",
        "The rich exponent of a convolutional network's best rate is 2/L.",
        f"{PAPER}, section 3 (feed-forward networks of depth L)",
        "0.15",
    ),
    Claim(
        "entropy",
        "With cross-entropy the best rate has the same two exponents, within few steps.",
        f"{PAPER}, section 4",
        "0.15",
    ),
    Claim(
        "entropy-edge",
        "With cross-entropy the largest lazy rate goes like gamma, for the gradient is bounded and only weights that "
        "move as far as their own size end it; but coming down from there takes about rate / gamma^2 steps, so that "
        "within far fewer than 1/gamma steps it goes like gamma^2.",
        f"{PAPER}, section 4 (toy model: gamma); how many steps it takes is derived here",
        "0.15",
    ),
    Claim(
        "toy-edge",
        "One path of L weights is stable up to 2 gamma^2 / (c L^2 (1 + gamma)^(2 - 2/L)).",
        f"{PAPER}, section 4; closed form derived anew",
        "3 %, on a grid of 1 %",
    ),
    Claim(
        "triangle",
        "Within a number of steps, rich training needs a rate of at least a multiple of gamma and at most one of "
        "gamma^(2/L): a triangle.",
        f"{PAPER}, section 4 (toy model)",
        "0.15",
    ),
    Claim(
        "linearised",
        "As gamma goes to zero, training is that of the linearised network.",
        f"{PAPER}, section 2",
        "2 % of each loss",
    ),
    Claim(
        "collapse",
        "At large gamma, runs fall onto one curve in rate * step / gamma.",
        f"{PAPER}, section 5",
        "10 % in the time at which half the loss is gone",
    ),
    Claim(
        "regimes",
        "The same network is lazy, rich or ultra-rich (plateau, then steps; the initialisation is outgrown) by gamma.",
        f"{PAPER}, sections 2 and 5",
        "the verdict itself",
    ),
    Claim(
        "silent-alignment",
        "From a small start, on whitened inputs and for one target, the kernel of a deep linear network turns to the "
        "task on the plateau, before the loss shows it, and then only grows.",
        f"{PAPER}, section 5; derived for this case in arXiv:2111.00034, which also says that inputs that are not "
        "whitened weaken the effect",
        ALIGNED,
    ),
    Claim(
        "silent-alignment-relu",
        "So does that of a homogeneous network with ReLU.",
        "arXiv:2111.00034, shown there by experiments",
        ALIGNED,
        shortfall="The alignment does (0.78 of its rise is over), the kernel's direction does not: with three matrices "
        "the neurons of one class leave the plateau long before those of the other (when a tenth of the fall was over "
        "the kernel was 270 times larger on that class), and the kernel turns back when these follow.",
    ),
    Claim(
        "sharpness",
        "After rich training the largest curvature goes like gamma^(-2/L).",
        f"{PAPER}, section 5",
        "0.15",
    ),
    Claim(
        "richer-is-better",
        "At its best rate a rich network generalises better than a lazy one.",
        f"{PAPER}, section 6",
        "two standard errors",
    ),
)

EXPERIMENTS = (
    *plane.EXPERIMENTS, *architectures.EXPERIMENTS, *toy.EXPERIMENTS, *runs.EXPERIMENTS, *alignment.EXPERIMENTS,
)  # fmt: skip


STUDY = Study(
    slug=SLUG,
    state="partly",
    claims=CLAIMS,
    settings={
        "quick": "Bias-free ReLU perceptrons of width 32 with 2 to 4 matrices on the first 2000 Fashion-MNIST images, "
        "pooled to 7 x 7, drawn with replacement in batches of 64, up to 2000 steps; half-octave grid of rates; small "
        "convolutional and residual networks and a vision transformer on digits of 8 x 8. The paper trains MLPs, CNNs, "
        "ResNets and ViTs online on millions of images.",
        "full": "10000 images for the planes, 1000 steps, three seeds, more strengths; other runs up to 4000 steps; "
        "rich sides of all architectures.",
    },
    measure=in_order(SLUG, CLAIMS, EXPERIMENTS),
    missing="Online data, and networks, at the scale of the paper.",
)
