"""What a forecast says: one frozen value per section, schema version 1 of `forecast.json`."""

from dataclasses import dataclass, field
from typing import Any, Literal

from widthwise.core import Value
from widthwise.forecast._types_theory import AdviceRow, DynamicsSection, FluctuationsSection, ScalingRow

SCHEMA_VERSION = 1

RidgeKind = Literal["zero", "optimal"]


@dataclass(frozen=True)
class WeightRow(Value):
    """One trained tensor: its role, fans and initial scale."""

    name: str
    role: str
    shape: tuple[int, ...]
    fan_in: int
    fan_out: int
    init_std: float
    init_source: str


@dataclass(frozen=True)
class DepthScales(Value):
    """How far signals reach in a deeper network of the same kind (mean-field theory, arXiv:1611.01232).

    Attributes:
        activation: its name.
        weight_variance, bias_variance: sigma_w^2 and sigma_b^2 of a hidden layer.
        chi_1: growth of squared gradients per layer once the depth has settled.
        correlation_depth: layers over which the correlation of two inputs forgets its start by e (xi_c); None where
            it does not shrink exponentially.
        trainable_depth: about six times that, an empirical rule; None like it.
        chi: growth of squared gradients per layer of this network itself, from the first to the last hidden one.
        gradient_ratio: expected squared gradient at the first hidden layer over that at the last.
        inverse_widths: sum of 1/n over the hidden layers.
        log_spread: standard deviation between initialisations of the logarithm of the squared norm of activations,
            and of gradients, to leading order in depth over width; None where no law is known (convolutions,
            activations with a scale of their own).
        note: what was assumed.
    """

    activation: str
    weight_variance: float
    bias_variance: float
    chi_1: float
    correlation_depth: float | None
    trainable_depth: float | None
    chi: tuple[float, ...]
    gradient_ratio: float
    inverse_widths: float
    log_spread: float | None
    note: str = ""


@dataclass(frozen=True)
class Criticality(Value):
    """Signal propagation at initialisation.

    Attributes:
        chi: factor by which a small difference between two inputs (and a gradient) grows per nonlinear layer, in
            mean square; geometric mean over depth.
        verdict: ``"ordered"`` (chi below 1), ``"critical"`` or ``"chaotic"`` (above), ``"unknown"`` where there is
            no infinite-width rule.
        forward: per node of the measured network, in order of depth: name and mean square of the activation.
        gradient: the same for the gradient of a random projection of the output.
        explanation: the verdict in one sentence.
        depth: depth scales, of plain feed-forward networks only.
    """

    chi: float | None
    verdict: str
    explanation: str
    layers: tuple[str, ...] = ()
    forward: tuple[float, ...] = ()
    gradient: tuple[float, ...] = ()
    depth: DepthScales | None = None


@dataclass(frozen=True)
class RuleRow(Value):
    """Which kernel rule one node used: ``rule`` is exact, quadrature, sampled, concrete or fallback."""

    node: str
    op: str
    module_path: str
    rule: str
    error: float


@dataclass(frozen=True)
class NetworkSection(Value):
    """The network: its weights, signal propagation and kernel rules."""

    name: str
    parameters: int
    weights: tuple[WeightRow, ...]
    criticality: Criticality
    rules: tuple[RuleRow, ...]
    kernel: str  # "infinite", "monte-carlo" or "empirical"
    kernel_note: str  # why, in one sentence
    kernel_rule: str = ""  # "exact" or "sampled" rules of the infinite-width limit, or "finite" networks
    kernel_error: float | None = None  # relative standard error, where the kernel is sampled


@dataclass(frozen=True)
class TaskSection(Value):
    """The eigenstructure of the data under the network's kernel.

    ``alpha``: eigenvalues fall like i^-alpha; ``beta``: the target's power falls like i^-beta; ``noise``: variance of
    the part of the targets that no amount of data explains (summed over outputs, estimate). ``noise_error``: measured
    error on pure unit-noise labels at zero ridge; the theory says that it equals alpha.
    """

    samples: int
    held_out: int
    inputs: int
    outputs: int
    alpha: float
    alpha_stderr: float
    beta: float
    beta_stderr: float
    noise: float
    noise_error: float | None
    noise_error_stderr: float | None
    target_power: float  # mean squared target, summed over outputs: the error of predicting the mean
    eigenvalues: tuple[float, ...]  # of K/P at the indices of eigenvalue_index
    eigenvalue_index: tuple[int, ...]  # one-based, log-spaced
    cumulative_power: tuple[float, ...]  # share of the target's power in the modes up to each index
    nngp_eigenvalues: tuple[float, ...] = ()
    nngp_cumulative_power: tuple[float, ...] = ()


@dataclass(frozen=True)
class LearningPoint(Value):
    """Predicted and measured test error of kernel regression at `n` examples."""

    n: int
    ridge: RidgeKind
    ridge_value: float
    predicted_mse: float
    predicted_mse_low: float
    predicted_mse_high: float
    predicted_accuracy: float | None
    measured_mse: float | None
    measured_mse_stderr: float | None
    measured_accuracy: float | None
    measured_accuracy_stderr: float | None
    extrapolated: bool


@dataclass(frozen=True)
class WidthPoint(Value):
    """Predicted and measured test error with only the last layer trained, at `width` random features."""

    width: int
    features: int
    n: int
    ridge: RidgeKind  # "zero": nearly none, a billionth of the kernel's mean diagonal
    ridge_value: float
    predicted_mse: float
    measured_mse: float | None
    measured_mse_stderr: float | None


@dataclass(frozen=True)
class WidthSurface(Value):
    """Predicted test error at the optimal ridge over sizes and widths: ``mse[i][j]`` at ``n[i]``, ``width[j]``."""

    n: tuple[int, ...]
    width: tuple[int, ...]
    mse: tuple[tuple[float, ...], ...]
    answer: str  # "more data or more width?" in one sentence


@dataclass(frozen=True)
class OverfittingSection(Value):
    """What interpolating costs: ratio of the test error at zero ridge to that at the optimal one."""

    n: int
    cost: float
    coefficient: float  # E0: test error on pure unit noise; bounds the cost
    verdict: str  # benign, tempered or catastrophic
    optimal_ridge: float
    optimal_fitting_ratio: float  # train over test error at the optimal ridge
    obligatory: bool  # near-interpolation is needed for the optimum
    explanation: str


@dataclass(frozen=True)
class TrainingRow(Value):
    """The real network, trained for a short budget, beside the kernel's prediction at the same n."""

    width: int | None
    parameters: int
    n: int
    steps: int
    lr: float
    train_mse: float
    test_mse: float
    test_accuracy: float | None
    kernel_mse: float
    kernel_accuracy: float | None
    diverged: bool
    seconds: float


@dataclass(frozen=True)
class Forecast(Value):
    """How a network will learn, predicted and measured. See `widthwise.forecast`.

    MSE is the mean over test points of the squared error summed over outputs; one-hot targets are centred by the
    class frequencies of the training samples. Ridge is added to the Gram matrix itself (K + ridge I).
    """

    network: NetworkSection
    task: TaskSection
    learning_curve: tuple[LearningPoint, ...]
    width_curve: tuple[WidthPoint, ...]
    width_surface: WidthSurface | None
    overfitting: OverfittingSection
    training: tuple[TrainingRow, ...]
    training_note: str
    advice: tuple[AdviceRow, ...]
    notes: tuple[str, ...]  # caveats that the reader must know
    data: dict[str, Any]  # DataSet.to_dict()
    settings: dict[str, Any]  # what was asked for, including the seed
    seconds: dict[str, float]  # wall time per stage
    schema_version: int = field(default=SCHEMA_VERSION)
    fluctuations: FluctuationsSection | None = None
    dynamics: DynamicsSection | None = None
    scaling: tuple[ScalingRow, ...] = ()
    scaling_notes: tuple[str, ...] = ()
