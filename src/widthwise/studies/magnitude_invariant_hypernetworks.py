"""Why hypernetworks train badly, and the two changes that mend it (arXiv:2304.07645)."""

from widthwise.studies import _magnitude_invariant_hypernetworks_sizes as sizes
from widthwise.studies import _magnitude_invariant_hypernetworks_training as training
from widthwise.studies._findings import in_order
from widthwise.studies._types import Claim, Study

SLUG = "magnitude-invariant-hypernetworks"
PAPER = "arXiv:2304.07645"

CLAIMS = (
    Claim(
        "proportional",
        "A plain hypernetwork's output is proportional to its input: norms to gamma, variances to gamma squared.",
        f"{PAPER}, section 3.1",
        "1e-9, relative",
    ),
    Claim("gradients", "So is the gradient of every weight matrix.", f"{PAPER}, section 3.1", "1e-9, relative"),
    Claim(
        "constant-norm",
        "The encoding (cos, sin) has norm sqrt(inputs) whatever the inputs.",
        f"{PAPER}, section 4.1",
        "1e-12, relative",
    ),
    Claim(
        "gradient-variation",
        "With the encoding gradients keep one order of magnitude over two decades of gamma.",
        f"{PAPER}, section 4.1; the bound is ours",
        "largest over smallest norm below 3 in every initialisation, 100 without the encoding",
    ),
    Claim(
        "compounding",
        "In a primary network of L matrices the effect is gamma^L; the residual form starts as an ordinary network.",
        f"{PAPER}, section 3.1, for primary networks without biases",
        "1e-5, relative",
    ),
    Claim(
        "layer-norm",
        "Normalisation in the hypernetwork is no cure: a single positive input then has no effect at all.",
        f"{PAPER}, experiments with normalisation layers; derived here",
        "1e-6, relative",
    ),
    Claim(
        "ordinary",
        "With a zero head, training the offset is training the ordinary network, step by step.",
        f"{PAPER}, section 4.2; derived here",
        "1e-10, relative",
    ),
    Claim(
        "faster",
        "Training converges faster: at a learning rate of 0.001 with momentum, accuracy is higher after equal steps.",
        f"{PAPER}, abstract; task, rate and tolerance chosen here",
        "median over seeds higher by 0.1 and two standard errors",
    ),
    Claim(
        "tuned",
        "With the best learning rate for each, the parametrisation costs no accuracy (the paper reports a gain).",
        f"{PAPER}, abstract; on this task a gain is not resolved",
        "best median not lower by more than 0.02 and two standard errors",
    ),
)

EXPERIMENTS = (*sizes.EXPERIMENTS, *training.EXPERIMENTS)


STUDY = Study(
    slug=SLUG,
    state="partly",
    claims=CLAIMS,
    settings={
        "quick": "Hypernetworks of hidden sizes 16 and 64 for 1000 parameters, five initialisations; digit classifiers "
        "64-32-10 with gamma = label smoothing over three decades, 100 steps. The paper trains Bayesian networks, "
        "registration and segmentation networks on MNIST, Oxford Flowers and OASIS.",
        "full": "The same with 20 initialisations, seven learning rates, ten seeds and 1000 steps.",
    },
    measure=in_order(SLUG, CLAIMS, EXPERIMENTS),
    missing="The paper's own tasks (Bayesian networks, image registration and segmentation) and its comparison of Adam "
    "with momentum over hidden sizes.",
)
