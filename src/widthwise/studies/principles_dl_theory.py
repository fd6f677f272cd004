"""Effective theory of finite width: criticality, fluctuations and learning of real networks (arXiv:2106.10165)."""

from widthwise.studies import _principles_dl_theory_networks as networks
from widthwise.studies import _principles_dl_theory_values as values
from widthwise.studies._findings import in_order
from widthwise.studies._types import Claim, Study

SLUG = "principles-dl-theory"
BOOK = "arXiv:2106.10165"

CLAIMS = (
    Claim(
        "criticality",
        "Activations fall into classes with one critical initialisation each: scale-invariant, K* = 0, half-stable; "
        "some have none.",
        f"{BOOK}, chapter 5; constants of GELU and SWISH computed anew",
        "6e-9",
    ),
    Claim(
        "ten-tensors",
        "Recursions from layer to layer give kernel, NTK, and their fluctuations and couplings at order 1/width.",
        f"{BOOK}, chapters 4, 8 and 11; values checked by simulation",
        "half a unit of the last printed digit",
    ),
    Claim(
        "monte-carlo",
        "Drawn networks agree with the recursions, eight statistics of the fourth layer, dNTK included.",
        f"{BOOK}, chapters 4, 8 and 11",
        "three standard errors of the value extrapolated in 1/width",
    ),
    Claim("relu-vertex", "For critical ReLU networks V = 5 (l - 1) K^2.", f"{BOOK}, section 5.4", "1e-10, relative"),
    Claim(
        "product-moments",
        "The second moment of a ReLU network's kernel is the product of 1 + 5/n over its layers, at every width.",
        f"{BOOK}, section 4.3 and chapter 3 (deep linear networks)",
        "three standard errors",
    ),
    Claim(
        "tanh-depth",
        "For critical tanh networks K ~ 1/(2 l) and V / K^2 ~ 2 l / 3.",
        f"{BOOK}, section 5.4",
        "6e-5, against values at finite depth",
    ),
    Claim(
        "dntk-step",
        "NTK and dNTK follow an exact step from layer to layer.",
        f"{BOOK}, section 11.2",
        "1e-10, against automatic differentiation",
    ),
    Claim(
        "ntk-variance",
        "The NTK of real networks fluctuates with the coefficients A and B over width.",
        f"{BOOK}, chapter 8",
        "three standard errors of the value extrapolated in 1/width",
    ),
    Claim(
        "depth-over-width",
        "Every finite-width effect grows like depth over width.",
        f"{BOOK}, chapters 5, 9 and 11; dNTK measured against theta^2, which no change of units alters",
        "power of depth within 0.05 of 1",
    ),
    Claim(
        "equivalence",
        "Layers contribute alike to the NTK if lambda_b ~ l^-p and lambda_W ~ l^(1-p), with p = b_1 / a_1, in the "
        "class K* = 0.",
        f"{BOOK}, section 9.4; signs of the exponents derived anew",
        "0.03",
    ),
    Claim(
        "aspect-ratio",
        "The optimal depth-to-width ratio is 4 / ((20 + 3 outputs) nu).",
        f"{BOOK}, appendix A",
        "2 %, the digits printed",
    ),
    Claim(
        "residual",
        "Skip connections lower nu: 2 (1 - gamma^4) for linear networks; for ReLU networks the printed formula holds "
        "in the first block and has to be extended by the memory of signs in later ones.",
        f"{BOOK}, appendix B; extension derived here",
        "1e-12 for linear networks, three standard errors for drawn ones",
    ),
    Claim(
        "one-step",
        "The part of a training step that is quadratic in its size moves the mean output by the dNTK's P and Q.",
        f"{BOOK}, chapter 11; for one input and one output derived here",
        "three standard errors of the value extrapolated in 1/width",
    ),
    Claim(
        "trained-means",
        "What training changes beyond the frozen NTK is, at order 1/width, in the second and third derivatives.",
        f"{BOOK}, section infinity.2",
        "10 % plus 0.05 of width times the change",
    ),
    Claim(
        "trainability",
        "Whether random initialisations train at the rate that suits infinite width depends on depth over width.",
        f"{BOOK}, section 3.4 and epilogue",
        "equal ratios within 0.1 plus three standard errors; the smallest above the largest by three",
    ),
)

EXPERIMENTS = (*values.EXPERIMENTS, *networks.EXPERIMENTS)


STUDY = Study(
    slug=SLUG,
    state="partly",
    claims=CLAIMS,
    settings={
        "quick": "Perceptrons of 2 to 8 layers and widths 8 to 128, up to 40000 draws; recursions to 1000 layers. The "
        "book has no experiments of its own at a stated scale.",
        "full": "The same with eight to ten times as many draws.",
    },
    measure=in_order(SLUG, CLAIMS, EXPERIMENTS),
    missing="Closed-form predictions after training at order 1/width (algorithm projectors; the Taylor expansion of "
    "drawn networks stands in), recursions for the ddNTK, the derivation of the optimal aspect ratio, and "
    "convolutions or attention.",
)
