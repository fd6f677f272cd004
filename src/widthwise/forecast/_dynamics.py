"""The section "Training time": the linearised network in time, on the forecast's own kernel."""

from math import isfinite
from typing import Any

import numpy as np

from widthwise.core import UnsupportedOperation
from widthwise.forecast._grams import Grams, KernelChoice
from widthwise.forecast._run import Run
from widthwise.forecast._types_theory import DynamicsSection
from widthwise.kernels import infinite
from widthwise.theory import KernelDynamics

MOST_SAMPLES = 1200  # of which the kernel is decomposed again
MOST_HELD_OUT = 600
TIMES = 41
RIDGES = 41
FASTEST, SLOWEST = 0.2, 1e7  # shortest and longest time, in steps of the fastest mode
MODULE_EXAMPLES = 128  # a small share of the kernel's own cost


def dynamics_section(run: Run, grams: Grams, choice: KernelChoice) -> DynamicsSection:
    """Test error against training time, the best stopping time, the largest rate, early stopping against a ridge."""
    found = run.stages.plain("training time", lambda: _values(run, grams, choice))
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in found.items()}
    return DynamicsSection(**values)


def make_dynamics(run: Run, grams: Grams) -> KernelDynamics:
    """The dynamics on the first samples and held-out examples, each at most as many as is cheap."""
    n, m = min(MOST_SAMPLES, len(run.train)), min(MOST_HELD_OUT, len(run.test))
    gram, cross = grams.ntk[:n, :n], grams.ntk_test[:m, :n]
    return KernelDynamics.fit((gram + gram.T) / 2, run.targets.train[:n], cross, convention="mean")


def _values(run: Run, grams: Grams, choice: KernelChoice) -> dict[str, Any]:
    dynamics = make_dynamics(run, grams)
    assert dynamics.test_gram is not None
    (m, n), rate = dynamics.test_gram.shape, dynamics.largest_rate() / 2
    targets = run.targets.test[:m].numpy()
    steps = np.geomspace(FASTEST, min(max(10 * dynamics.condition_number, 1e3), SLOWEST), TIMES)
    path = dynamics.flow([*steps * rate, np.inf])
    test = path.test_error(targets)
    best = int(test[:-1].argmin())
    stops = test[best] < (1 - 1e-3) * test[-1]  # a thousandth is no reason to stop
    ridge, ridge_mse = _best_ridge(dynamics, targets)
    return {
        "n": n,
        "held_out": m,
        "rate": rate,
        "largest_rate": dynamics.largest_rate(),
        "condition_number": dynamics.condition_number,
        "steps": steps.tolist(),
        "train_mse": path.train_error[:-1].tolist(),
        "test_mse": test[:-1].tolist(),
        "test_accuracy": _accuracies(run, path.test, m),
        "final_mse": float(test[-1]),
        "best_steps": float(steps[best]) if stops else None,
        "best_mse": float(test[best] if stops else test[-1]),
        "ridge_value": ridge,
        "ridge_mse": ridge_mse,
        "stopping_ridge": float(dynamics.effective_ridge(steps[best], rate)[0]) if stops else None,
        "module_rate": _module_rate(run, grams, choice),
        "module_rate_examples": min(MODULE_EXAMPLES, len(run.train)),
        "parametrization": run.settings.parametrization if choice.kind == "infinite" else "standard",
    }


def _accuracies(run: Run, outputs: np.ndarray | None, m: int) -> list[float]:
    """Share of held-out examples whose class is the largest output, the class frequencies added back."""
    if run.targets.test_labels is None or run.targets.frequencies is None or outputs is None:
        return []
    guesses = (outputs[:-1] + run.targets.frequencies.numpy()).argmax(2)
    return [float(share) for share in (guesses == run.targets.test_labels[:m].numpy()).mean(1)]


def _best_ridge(dynamics: KernelDynamics, targets: np.ndarray) -> tuple[float, float]:
    """Ridge and test error of the best ridge regression, from the same decomposition."""
    largest = dynamics.modes.largest
    ridges = np.geomspace(1e-9 * largest, largest, RIDGES)
    amounts = dynamics.modes.apply(lambda values: 1 / (values + ridges[:, None]))
    errors = np.square(dynamics.test_gram @ amounts - targets).sum(2).mean(1)
    best = int(errors.argmin())
    return float(ridges[best]), float(errors[best])


def _module_rate(run: Run, grams: Grams, choice: KernelChoice) -> float | None:
    """Largest stable rate for the module's own tensors under `torch.nn.MSELoss`: ``2 / lambda_max(2 T / (n k))``."""
    count, outputs = min(MODULE_EXAMPLES, len(run.train)), run.train.outputs
    if choice.kind != "infinite" or run.settings.parametrization == "standard":
        gram = grams.ntk[:count, :count]
    elif choice.program is None or choice.rule != "exact":
        return None
    else:
        try:
            limit = infinite(choice.program, "standard", method="exact")
        except UnsupportedOperation:
            return None
        gram = limit(run.train.inputs[:count]).ntk
    largest = float(np.linalg.eigvalsh(gram.numpy())[-1])
    return count * outputs / largest if isfinite(largest) and largest > 0 else None
