"""Feature learning at every width from spectral norms of weights and updates (arXiv:2310.17813)."""

from widthwise.studies import _spectral_condition_matrices as matrices
from widthwise.studies import _spectral_condition_networks as networks
from widthwise.studies import _spectral_condition_transfer as transfer
from widthwise.studies._findings import in_order
from widthwise.studies._types import Claim, Study

SLUG = "spectral-condition"
PAPER = "arXiv:2310.17813"
TENSOR_PROGRAMS = "arXiv:2203.03466"

CLAIMS = (
    Claim(
        "gaussian",
        "A Gaussian matrix has spectral norm sqrt(fan_in) + sqrt(fan_out): 67.08 for 2000 x 500.",
        f"{PAPER}, section 4",
        "1 %, and two standard errors",
    ),
    Claim(
        "initial",
        "Entries of size min(1, sqrt(fan_out / fan_in)) / sqrt(fan_in) give every shape a natural norm of order one: "
        "1 + sqrt(smaller fan / larger fan).",
        f"{PAPER}, condition 1 and section 4",
        "5 %, and two standard errors",
    ),
    Claim(
        "rates",
        "Learning rates fan_out / fan_in for SGD, 1 / fan_in for Adam, sqrt(fan_out / fan_in) for orthogonal updates "
        "follow, readout and input layer included.",
        f"{PAPER}, section 5; {TENSOR_PROGRAMS}, table 3",
        "1e-12, relative",
    ),
    Claim(
        "newton-schulz",
        "Five quintic Newton-Schulz steps bring singular values into about [0.7, 1.2]; polished, they give U V^T.",
        "K. Jordan, Muon (2024)",
        "[0.65, 1.25]; 1e-6 after polishing",
    ),
    Claim(
        "equivalence",
        "The spectral condition without multipliers is muP: both train alike, step by step.",
        f"{PAPER}, section 5; {TENSOR_PROGRAMS}, table 8",
        "1e-6, relative, in float64",
    ),
    Claim(
        "stable-changes",
        "With muP's SGD and sign updates and with orthogonalised ones every layer's preactivations move alike at every "
        "width.",
        f"{PAPER}, condition 1",
        "exponents of width within 0.1 of zero, and two standard errors",
    ),
    Claim(
        "unstable-changes",
        "In the standard parametrisation (SGD, sign updates) hidden changes grow with the width, in the neural tangent "
        "parametrisation they vanish, by the table's exponents.",
        f"{PAPER}, section 6; measured again at widths 64 to 1024",
        "exponents within 0.15, and two standard errors",
    ),
    Claim(
        "initial-sizes",
        "muP starts with preactivations of order one, but for the readout, which starts as width^-1/2.",
        f"{PAPER}, section 6",
        "exponents within 0.1, and two standard errors",
    ),
    Claim(
        "natural-norms",
        "Weights and their changes have spectral norms of order sqrt(fan_out / fan_in), after one step and after five.",
        f"{PAPER}, condition 1",
        "exponents within 0.1 of zero, and two standard errors",
    ),
    Claim(
        "standard-norms",
        "In the standard parametrisation the natural norm of sign updates grows as the width.",
        f"{PAPER}, section 6",
        "exponents within 0.15 of one",
    ),
    Claim(
        "alignment",
        "Updates and initial weights act on the features with a share of their norm that does not vanish.",
        f"{PAPER}, section 3",
        "at least 0.1 at the widest, exponents not below -0.1 by more than two standard errors",
    ),
    Claim(
        "transfer",
        "Under the spectral condition, every layer in its natural units, the best learning rate of Adam stays where it "
        "is from width 64 to 1024.",
        f"{PAPER}, section 5; {TENSOR_PROGRAMS}, figure 1; on Fashion-MNIST, half an octave is ours",
        "0.5 octaves over all widths",
    ),
    Claim(
        "standard-drifts",
        "In the standard parametrisation it falls with the width: by an octave per doubling where the growing layers' "
        "changes prevail, by less as long as the input layer's do (784 inputs: up to widths of some hundreds).",
        f"{TENSOR_PROGRAMS}, figure 1; {PAPER}, section 3 (changes of layers add up at most)",
        "between one over the sum of the layers' relative changes and one over the width, two standard errors",
    ),
    Claim(
        "optimisers",
        "So does that of spectral descent, Muon, the modular norm and unit scaling.",
        f"{PAPER}, section 5; arXiv:2405.14813; arXiv:2407.17465",
        "0.5 octaves over all widths",
    ),
)

EXPERIMENTS = (*matrices.EXPERIMENTS, *networks.EXPERIMENTS, *transfer.EXPERIMENTS)


STUDY = Study(
    slug=SLUG,
    state="works",
    claims=CLAIMS,
    settings={
        "quick": "ReLU perceptrons 10-n-n-n-1 on 32 Gaussian examples, widths 64 to 256, ten seeds; learning-rate "
        "sweeps of 100 AdamW steps on Fashion-MNIST, widths 64 to 256, three seeds, and of 60 steps on digits, widths "
        "32 to 128, two seeds, for the spectral optimisers. Transformers: benchmarks/bench_transfer.py.",
        "full": "The same to width 1024; AdamW sweeps of 300 steps, widths 64 to 1024, six seeds; those "
        "of the spectral optimisers on digits, 100 steps, widths 64 to 512, four seeds.",
    },
    measure=in_order(SLUG, CLAIMS, EXPERIMENTS),
)
