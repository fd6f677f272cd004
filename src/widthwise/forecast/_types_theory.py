"""Sections of a forecast on finite width, training time, scaling and the next step."""

from dataclasses import dataclass

from widthwise.core import Value


@dataclass(frozen=True)
class FluctuationsSection(Value):
    """What the finite width does at initialisation (arXiv:2106.10165).

    Attributes:
        exact: whether the network is a plain perceptron, which the theory describes; for any other network only the
            ratios are known, as those of a perceptron with the same widths and activation.
        widths: n_0 .. n_L of a perceptron, else the hidden widths that were found.
        activation: its name, empty where none was recognised.
        nu: growth of the relative fluctuation per layer and 1/width at critical initialisation.
        ratio: depth over width, the sum of 1/n over hidden layers; `strength` is nu times that.
        optimal_ratio, relative_to_optimum: r* and ratio / r*.
        verdict: kernel-like, near the optimum, too deep for its width, or unknown.
        advised_width: the width of every hidden layer at which this depth is the optimal one; perceptrons only.
        relative_kernel, relative_ntk, relative_ntk_between, feature_learning: relative standard deviation between
            seeds of the output's variance and of the NTK of one output, size of the NTK between two outputs, and
            relative movement of the NTK in training; predicted, perceptrons only.
        layers_kernel, layers_ntk: the first two after each layer.
        measured_ntk: the module's own tangent kernel: relative standard deviation between initialisations in
            Frobenius norm, from `measured_draws` of them on `measured_examples` examples; None for a module that
            cannot be drawn anew.
        sentence: the result in words.
        notes: what was assumed.
    """

    exact: bool
    widths: tuple[int, ...]
    activation: str
    nu: float
    ratio: float
    strength: float
    optimal_ratio: float
    relative_to_optimum: float
    verdict: str
    advised_width: float | None
    relative_kernel: float | None
    relative_ntk: float | None
    relative_ntk_between: float | None
    feature_learning: float | None
    layers_kernel: tuple[float, ...]
    layers_ntk: tuple[float, ...]
    measured_ntk: float | None
    measured_draws: int
    measured_examples: int
    sentence: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class DynamicsSection(Value):
    """Training in time of the linearised network, on the forecast's own kernel (arXiv:1902.06720).

    Gradient descent with learning rate eta on half the squared error, summed over outputs and averaged over the `n`
    examples, from outputs of zero. Gradient flow at time t stands for t / eta steps.

    Attributes:
        n, held_out: examples that are trained on, and tested on.
        rate: half of `largest_rate`: the learning rate in whose steps time is counted.
        largest_rate: learning rate above which gradient descent diverges, in units of the kernel's parametrization.
        condition_number: of the kernel: steps that the slowest mode needs, in units of those of the fastest.
        steps: times, in steps of `rate`.
        train_mse, test_mse, test_accuracy: at these times (accuracies: empty for regression).
        final_mse: test error of training forever (no ridge).
        best_steps, best_mse: the best stopping time on the held-out examples; `best_steps` is None where training
            forever is best.
        ridge_value, ridge_mse: the best ridge regression on the same examples, for comparison.
        stopping_ridge: ridge that stops learning at the eigenvalue where the best stopping time does.
        module_rate: largest stable learning rate of plain gradient descent for the module as it stands (standard
            parametrization, `torch.nn.MSELoss`), from the kernel of `module_rate_examples` examples; None if unknown.
        parametrization: of the kernel.
    """

    n: int
    held_out: int
    rate: float
    largest_rate: float
    condition_number: float
    steps: tuple[float, ...]
    train_mse: tuple[float, ...]
    test_mse: tuple[float, ...]
    test_accuracy: tuple[float, ...]
    final_mse: float
    best_steps: float | None
    best_mse: float
    ridge_value: float
    ridge_mse: float
    stopping_ridge: float | None
    module_rate: float | None
    module_rate_examples: int
    parametrization: str


@dataclass(frozen=True)
class ScalingRow(Value):
    """How the weights of one role are scaled with the width under the spectral parametrization (arXiv:2310.17813).

    Factors are those of a doubling of the width.

    Attributes:
        role: input, hidden, output, vector, embedding or finite.
        weights: their names.
        reason: why, in words.
        init_factor: of the standard deviation of the entries.
        multiplier_factor: of the layer's input in the forward pass.
        adam_factor, sgd_factor: of the learning rate, under Adam-like optimisers and under SGD.
    """

    role: str
    weights: tuple[str, ...]
    reason: str
    init_factor: float
    multiplier_factor: float
    adam_factor: float
    sgd_factor: float


@dataclass(frozen=True)
class AdviceRow(Value):
    """One thing to do, with its expected effect on the test error."""

    action: str
    before: float
    after: float
    confidence: str  # high, medium or low
    because: str
