"""Balance of layers: exact solutions, conservation, and how unbalanced networks learn features (arXiv:2406.06158)."""

from widthwise.studies import _get_rich_quick_exact as exact
from widthwise.studies import _get_rich_quick_networks as networks
from widthwise.studies._findings import in_order
from widthwise.studies._types import Claim, Study

SLUG = "get-rich-quick"
PAPER = "arXiv:2406.06158"

CLAIMS = (
    Claim(
        "exact-solution",
        "Gradient flow of one linear neuron a w.x on whitened data has a closed form at every balance delta.",
        f"{PAPER}, section 3; one form for every sign of delta, derived anew",
        "1e-7, any weight at any time",
    ),
    Claim(
        "kernel-movement",
        "The tangent kernel turns the less, the more upstream the balance: not at all in the limit, and most, but "
        "late, downstream.",
        f"{PAPER}, section 3 and figure 2",
        "1e-6, and the order",
    ),
    Claim(
        "implicit-bias",
        "Among interpolating solutions the flow picks the minimiser of Psi_delta minus a linear term of the start.",
        f"{PAPER}, section 3, theorem on the implicit bias",
        "1e-6",
    ),
    Claim(
        "conservation",
        "Gradient flow conserves every neuron's balance in ReLU networks; finite steps leave it at second order.",
        f"{PAPER}, section 5; exact for a step",
        "1e-9 of what moved; ratio 2 for twice the step within 15 %",
    ),
    Claim(
        "upstream",
        "ReLU students learn features faster and generalise better with upstream balance at the same scale.",
        f"{PAPER}, section 5 and figure 5; numbers from a reduced run",
        "30 % of the kernel distances, and the order of distances, test errors and activation changes",
        shortfall="With the two seeds of the quick scale all orders hold; with six, at full scale, the test errors of "
        "delta 0 and 1 are 0.0008 and 0.0010, in the other order and within their standard errors. The distances hold.",
    ),
    Claim("small-scale", "A smaller overall scale moves the kernel more.", f"{PAPER}, figure 5", "the order"),
    Claim(
        "convolutional",
        "A convolutional network on images moves its kernel more from an upstream start of the same function.",
        f"{PAPER}, section 6",
        "the slope of log kernel distance in log alpha, within seeds, is above zero by its 95 % interval over seeds",
    ),
)

EXPERIMENTS = (*exact.EXPERIMENTS, *networks.EXPERIMENTS)


STUDY = Study(
    slug=SLUG,
    state="partly",
    claims=CLAIMS,
    settings={
        "quick": "Single neurons of 2 to 5 inputs; students with 50 units, 20 inputs and 200 examples (paper: 100 "
        "inputs, 1000 examples, a 17 x 17 grid, 16 seeds, 1e6 steps), 6000 steps, 2 seeds; a perceptron and a small "
        "convolutional network on 192 to 256 Fashion-MNIST images (paper: CIFAR-10).",
        "full": "More neurons; 12000 steps, 6 seeds and more scales for the students; 1000 images and 16 seeds for the "
        "convolutional network.",
    },
    measure=in_order(SLUG, CLAIMS, EXPERIMENTS),
    missing="Random hierarchy data (sample complexity) and modular addition (time to grok); CIFAR-10.",
)
