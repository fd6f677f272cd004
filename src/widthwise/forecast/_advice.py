"""The advice: what to do, what it should bring, and how sure that is."""

from widthwise.forecast._run import Run
from widthwise.forecast._settings import Settings
from widthwise.forecast._training import has_fitted, largest_run
from widthwise.forecast._types import LearningPoint, NetworkSection, OverfittingSection, TrainingRow
from widthwise.forecast._types_theory import AdviceRow
from widthwise.theory import TaskSpectrum

SAME = 0.05  # relative difference below which trained network and kernel count as equal
CHI_WORDS = {"ordered": "raise", "chaotic": "lower"}


def confidence(low: float, high: float, middle: float) -> str:
    """From the relative width of a 95 % interval: within 5 % high, within 15 % medium, else low."""
    half = (high - low) / 2 / middle
    return "high" if half <= 0.05 else "medium" if half <= 0.15 else "low"


def advice(
    run: Run,
    task: TaskSpectrum,
    curve: tuple[LearningPoint, ...],
    network: NetworkSection,
    overfitting: OverfittingSection,
    training: tuple[TrainingRow, ...],
) -> tuple[AdviceRow, ...]:
    """Advice rows, greatest expected gain first."""
    settings = run.settings
    rows = [
        _more_data(curve, settings),
        _more_width(task, settings),
        _ridge(curve, overfitting, settings),
        _train_all(training, run.targets.power),
        _initialisation(network, curve, settings),
    ]
    return tuple(sorted((row for row in rows if row is not None), key=lambda row: row.after / row.before))


def _at(curve: tuple[LearningPoint, ...], n: int, ridge: str) -> LearningPoint:
    return next(point for point in curve if point.n == n and point.ridge == ridge)


def _more_data(curve: tuple[LearningPoint, ...], settings: Settings) -> AdviceRow:
    now, then = (_at(curve, n, "optimal") for n in (settings.samples, 2 * settings.samples))
    return AdviceRow(
        action=f"Use twice the data ({2 * settings.samples} examples instead of {settings.samples})",
        before=now.predicted_mse,
        after=then.predicted_mse,
        confidence=confidence(then.predicted_mse_low, then.predicted_mse_high, then.predicted_mse),
        because="the kernel's learning curve, extrapolated by a factor of two at the best ridge",
    )


def _more_width(task: TaskSpectrum, settings: Settings) -> AdviceRow:
    n = settings.samples // 2
    now, then = (task.risk(n, "optimal", width=k) for k in (n, 2 * n))
    return AdviceRow(
        action=f"Use twice the width ({2 * n} features instead of {n}, with {n} examples, last layer trained)",
        before=float(now.test),
        after=float(then.test),
        confidence=confidence(float(then.low), float(then.high), float(then.test)),
        because="the random-feature theory at the best ridge, where more width never hurts",
    )


def _ridge(curve: tuple[LearningPoint, ...], overfitting: OverfittingSection, settings: Settings) -> AdviceRow:
    zero, tuned = (_at(curve, settings.samples, kind) for kind in ("zero", "optimal"))
    helps = overfitting.cost > 1.01
    action = (
        f"Use a ridge of {overfitting.optimal_ridge:.3g} (or stop training early)"
        if helps
        else "Train to interpolation; a ridge does not help"
    )
    return AdviceRow(
        action=action,
        before=zero.predicted_mse,
        after=tuned.predicted_mse,
        confidence=confidence(tuned.predicted_mse_low, tuned.predicted_mse_high, tuned.predicted_mse),
        because=f"the optimal ratio of train to test error is {overfitting.optimal_fitting_ratio:.2g}",
    )


def _train_all(training: tuple[TrainingRow, ...], power: float) -> AdviceRow | None:
    row = largest_run(training)
    if row is None or abs(1 - row.test_mse / row.kernel_mse) < SAME:
        return None
    gains, fitted = row.test_mse < row.kernel_mse, has_fitted(row, power)
    if gains:
        action = "Train all layers"
    elif fitted:
        action = "Prefer the kernel, or train with another rate, initial scale or stopping time"
    else:
        action = "Train longer: the check ended before the network had fitted its examples"
    return AdviceRow(
        action=action,
        before=row.kernel_mse if gains else row.test_mse,
        after=row.test_mse if gains else row.kernel_mse,
        confidence="medium" if gains or fitted else "low",
        because=f"measured with {row.n} examples in {row.steps} steps, beside the kernel's prediction there",
    )


def _initialisation(network: NetworkSection, curve: tuple[LearningPoint, ...], settings: Settings) -> AdviceRow | None:
    found = network.criticality
    if found.chi is None or found.verdict == "critical":
        return None
    now = _at(curve, settings.samples, "optimal").predicted_mse
    return AdviceRow(
        action=f"{CHI_WORDS[found.verdict].capitalize()} the initial weights by a factor of {found.chi**-0.5:.2f}",
        before=now,
        after=now,
        confidence="low",
        because=f"chi is {found.chi:.2f} per layer ({found.verdict}); this matters in deep networks, and its effect on "
        "the error is not predicted",
    )
