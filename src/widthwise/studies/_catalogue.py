"""The papers that Widthwise is made from; each has, or will have, a study of the same name."""

from dataclasses import dataclass

from widthwise.core import Value


@dataclass(frozen=True)
class Paper(Value):
    """One paper.

    Attributes:
        slug: name of the study; the module has underscores for hyphens.
        title: as the paper has it.
        authors: up to three family names, or the first one and "et al.".
        year: of the first version.
        arxiv: identifier, to be put behind ``https://arxiv.org/abs/``.
    """

    slug: str
    title: str
    authors: str
    year: int
    arxiv: str


PAPERS: tuple[Paper, ...] = (
    Paper(
        "adversarial-universality", "Intriguing Properties of Adversarial Examples", "Cubuk et al.", 2017, "1711.02846"
    ),
    Paper(
        "alternating-gradient-flows",
        "Alternating Gradient Flows: A Theory of Feature Learning in Two-layer Neural Networks",
        "Kunin et al.",
        2025,
        "2506.06489",
    ),
    Paper(
        "attention-random-features",
        "What can a Single Attention Layer Learn? A Study Through the Random Features Lens",
        "Fu et al.",
        2023,
        "2307.11353",
    ),
    Paper(
        "avalon",
        "Avalon: A Benchmark for RL Generalization Using Procedurally Generated Worlds",
        "Albrecht et al.",
        2022,
        "2210.13417",
    ),
    Paper(
        "bandlimited-random-nets",
        "How Powerful are Shallow Neural Networks with Bandlimited Random Weights?",
        "Li et al.",
        2020,
        "2008.08427",
    ),
    Paper("bias-loss-skipnet", "Bias Loss for Mobile Neural Networks", "Abrahamyan et al.", 2021, "2107.11170"),
    Paper(
        "carbs",
        "Tune As You Scale: Hyperparameter Optimization For Compute Efficient Training",
        "Fetterman et al.",
        2023,
        "2306.08055",
    ),
    Paper(
        "class-manifold-dimension",
        "What does a deep neural network confidently perceive? "
        "The effective dimension of high certainty class manifolds and their low confidence boundaries",
        "Fort et al.",
        2022,
        "2210.05546",
    ),
    Paper(
        "codegen2",
        "CodeGen2: Lessons for Training LLMs on Programming and Natural Languages",
        "Nijkamp et al.",
        2023,
        "2305.02309",
    ),
    Paper(
        "cost-of-overfitting-krr",
        "An Agnostic View on the Cost of Overfitting in (Kernel) Ridge Regression",
        "Zhou et al.",
        2023,
        "2306.13185",
    ),
    Paper(
        "data-diet",
        "Deep Learning on a Data Diet: Finding Important Examples Early in Training",
        "Paul, Ganguli and Dziugaite",
        2021,
        "2107.07075",
    ),
    Paper(
        "deep-kernel-machines",
        "A theory of representation learning gives a deep generalisation of kernel methods",
        "Yang et al.",
        2021,
        "2108.13097",
    ),
    Paper(
        "dense-hebbian-networks",
        "Dense Hebbian neural networks: a replica symmetric picture of supervised learning",
        "Agliari et al.",
        2022,
        "2212.00606",
    ),
    Paper(
        "einspace",
        "einspace: Searching for Neural Architectures from Fundamental Operations",
        "Ericsson et al.",
        2024,
        "2405.20838",
    ),
    Paper(
        "exact-permutation-learning",
        "Exact Learning of Permutations for Nonzero Binary Inputs with Logarithmic Training Size "
        "and Quadratic Ensemble Complexity",
        "Giapitzakis, Back de Luca and Fountoulakis",
        2025,
        "2502.16763",
    ),
    Paper(
        "feature-learning-strength",
        "The Optimization Landscape of SGD Across the Feature Learning Strength",
        "Atanasov et al.",
        2024,
        "2410.04642",
    ),
    Paper(
        "functional-priors-bdl",
        "All You Need is a Good Functional Prior for Bayesian Deep Learning",
        "Tran et al.",
        2020,
        "2011.12829",
    ),
    Paper(
        "get-rich-quick",
        "Get rich quick: exact solutions reveal how unbalanced initializations promote rapid feature learning",
        "Kunin et al.",
        2024,
        "2406.06158",
    ),
    Paper("helm", "Holistic Evaluation of Language Models", "Liang et al.", 2022, "2211.09110"),
    Paper(
        "high-dim-generalization-dynamics",
        "High-dimensional dynamics of generalization error in neural networks",
        "Advani and Saxe",
        2017,
        "1710.03667",
    ),
    Paper("hourglass-mlp", "Rethinking the shape convention of an MLP", "Chen et al.", 2025, "2510.01796"),
    Paper(
        "hyperfitting",
        "The Hyperfitting Phenomenon: Sharpening and Stabilizing LLMs for Open-Ended Text Generation",
        "Carlsson et al.",
        2024,
        "2412.04318",
    ),
    Paper(
        "icl-task-diversity",
        "Pretraining task diversity and the emergence of non-Bayesian in-context learning for regression",
        "Raventós et al.",
        2023,
        "2306.15063",
    ),
    Paper(
        "infinite-width-lectures",
        "Les Houches Lectures on Deep Learning at Large & Infinite Width",
        "Bahri and Hanin",
        2023,
        "2309.01592",
    ),
    Paper(
        "lottery-tickets",
        "The Lottery Ticket Hypothesis: Finding Sparse, Trainable Neural Networks",
        "Frankle and Carbin",
        2018,
        "1803.03635",
    ),
    Paper(
        "magnitude-invariant-hypernetworks",
        "Magnitude Invariant Parametrizations Improve Hypernetwork Learning",
        "Ortiz, Guttag and Dalca",
        2023,
        "2304.07645",
    ),
    Paper(
        "more-is-better-rf",
        "More is Better in Modern Machine Learning: when Infinite Overparameterization is Optimal "
        "and Overfitting is Obligatory",
        "Simon et al.",
        2023,
        "2311.14646",
    ),
    Paper(
        "neural-contextual-bandits",
        "Contextual Bandits with Online Neural Regression",
        "Deb et al.",
        2023,
        "2312.07145",
    ),
    Paper(
        "neuroai-embodied-turing",
        "Toward Next-Generation Artificial Intelligence: Catalyzing the NeuroAI Revolution",
        "Zador et al.",
        2022,
        "2210.08340",
    ),
    Paper(
        "opposing-signals",
        "Outliers with Opposing Signals Have an Outsized Effect on Neural Network Optimization",
        "Rosenfeld and Risteski",
        2023,
        "2311.04163",
    ),
    Paper(
        "performance-prediction",
        "Accelerating Neural Architecture Search using Performance Prediction",
        "Baker et al.",
        2017,
        "1705.10823",
    ),
    Paper(
        "principles-dl-theory", "The Principles of Deep Learning Theory", "Roberts, Yaida and Hanin", 2021, "2106.10165"
    ),
    Paper("prior-fitted-networks", "Transformers Can Do Bayesian Inference", "Müller et al.", 2021, "2112.10510"),
    Paper(
        "quasi-homogeneous-margin",
        "The Asymmetric Maximum Margin Bias of Quasi-Homogeneous Neural Networks",
        "Kunin et al.",
        2022,
        "2210.03820",
    ),
    Paper(
        "random-pruning",
        "The Unreasonable Effectiveness of Random Pruning: Return of the Most Naive Baseline for Sparse Training",
        "Liu et al.",
        2022,
        "2202.02643",
    ),
    Paper(
        "random-search-sparse",
        "Random Search as a Baseline for Sparse Neural Network Architecture Search",
        "Farahani",
        2024,
        "2403.08265",
    ),
    Paper("rnn-sparsity", "Investigating Sparsity in Recurrent Neural Networks", "Darji", 2024, "2407.20601"),
    Paper(
        "saddle-escape-low-rank",
        "Saddle-To-Saddle Dynamics in Deep ReLU Networks: Low-Rank Bias in the First Saddle Escape",
        "Bantzis, Simon and Jacot",
        2025,
        "2505.21722",
    ),
    Paper("scalable-nn-kernels", "Scalable Neural Network Kernels", "Sehanobish et al.", 2023, "2310.13225"),
    Paper(
        "scale-mixture-nngp", "Scale Mixtures of Neural Network Gaussian Processes", "Lee et al.", 2021, "2107.01408"
    ),
    Paper(
        "semdedup",
        "SemDeDup: Data-efficient learning at web-scale through semantic deduplication",
        "Abbas et al.",
        2023,
        "2303.09540",
    ),
    Paper(
        "sparse-handbook",
        'Ten Lessons We Have Learned in the New "Sparseland": A Short Handbook for Sparse Neural Network Researchers',
        "Liu and Wang",
        2023,
        "2302.02596",
    ),
    Paper(
        "spectral-condition",
        "A Spectral Condition for Feature Learning",
        "Yang, Simon and Bernstein",
        2023,
        "2310.17813",
    ),
    Paper("ssl-stepwise", "On the Stepwise Nature of Self-Supervised Learning", "Simon et al.", 2023, "2303.15438"),
    Paper(
        "step-law",
        "Predictable Scale Part I: Optimal Hyperparameter Scaling Law in LLM Pretraining",
        "Li et al.",
        2025,
        "2503.04715",
    ),
    Paper(
        "stochastic-collapse",
        "Stochastic Collapse: How Gradient Noise Attracts SGD Dynamics Towards Simpler Subnetworks",
        "Chen et al.",
        2023,
        "2306.04251",
    ),
    Paper(
        "structured-ffn",
        "Building on Efficient Foundations: Effectively Training LLMs with Structured Feedforward Layers",
        "Wei et al.",
        2024,
        "2406.16450",
    ),
    Paper(
        "tensor-programs-kernels",
        "Scaling Limits of Wide Neural Networks with Weight Sharing",
        "Yang",
        2019,
        "1902.04760",
    ),
    Paper(
        "tp4-feature-learning", "Feature Learning in Infinite-Width Neural Networks", "Yang and Hu", 2020, "2011.14522"
    ),
    Paper(
        "training-the-untrainable",
        "Training the Untrainable: Introducing Inductive Bias via Representational Alignment",
        "Subramaniam et al.",
        2024,
        "2410.20035",
    ),
    Paper(
        "transformer-signal-geometry",
        "Geometric Dynamics of Signal Propagation Predict Trainability of Transformers",
        "Cowsik et al.",
        2024,
        "2403.02579",
    ),
    Paper(
        "unmasking-lottery-tickets",
        "Unmasking the Lottery Ticket Hypothesis: What's Encoded in a Winning Ticket's Mask?",
        "Paul et al.",
        2022,
        "2210.03044",
    ),
    Paper(
        "versatile-ffn",
        "VersatileFFN: Achieving Parameter Efficiency in LLMs via Adaptive Wide-and-Deep Reuse",
        "Nie et al.",
        2025,
        "2512.14531",
    ),
    Paper("wide-attention", "Wide Attention Is The Way Forward For Transformers?", "Brown et al.", 2022, "2210.00640"),
    Paper(
        "wide-cnn-learning-curves",
        "What Can Be Learnt With Wide Convolutional Neural Networks?",
        "Cagnetta, Favero and Wyart",
        2022,
        "2208.01003",
    ),
    Paper(
        "wide-deep-llm-evaluators",
        "Wider and Deeper LLM Networks are Fairer LLM Evaluators",
        "Zhang et al.",
        2023,
        "2308.01862",
    ),
    Paper(
        "wide-deep-optimal-classification",
        "Wide and Deep Neural Networks Achieve Optimality for Classification",
        "Radhakrishnan, Belkin and Uhler",
        2022,
        "2204.14126",
    ),
)
