"""Which kernel stands for the network, and its Gram matrices on the samples and the held-out examples."""

import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from widthwise.core import ModelError, TraceError, UnsupportedOperation, require_memory
from widthwise.data import DataSet
from widthwise.forecast._model import ModelSource
from widthwise.forecast._run import Run
from widthwise.forecast._settings import Settings, default_sizes
from widthwise.forecast._stages import Tensors
from widthwise.kernels import Limit, infinite, monte_carlo_kernel
from widthwise.program import Program, trace

SLOWEST_SECONDS = 900.0
FINITE_SAMPLES = 1000
DRAWS = 4


@dataclass(frozen=True)
class KernelChoice:
    """The kernel that stands for the network.

    Attributes:
        kind: ``"infinite"``, ``"monte-carlo"`` or ``"empirical"``.
        note: why, in one sentence.
        program: the traced network, None where `torch.export` cannot trace it.
        limit: the infinite-width limit, where there is one.
    """

    kind: str
    note: str
    program: Program | None
    limit: Limit | None


@dataclass(frozen=True)
class Grams:
    """Kernels between samples and from held-out examples to samples, float64.

    Attributes:
        ntk, ntk_test: ``[P, P]`` and ``[T, P]`` tangent kernel.
        features, features_test: mean product of the features that enter the readout, the same shapes.
        error: relative standard error of `ntk` where it is a mean over initialisations, else NaN.
    """

    ntk: Tensor
    ntk_test: Tensor
    features: Tensor
    features_test: Tensor
    error: float = float("nan")


def choose_kernel(module: nn.Module, source: ModelSource, train: DataSet, settings: Settings) -> KernelChoice:
    """The exact limit if the network has one that is fast enough, else finite networks.

    Raises:
        UnsupportedOperation, TraceError: ``kernel="infinite"`` was asked for and the network has none.
        ModelError: ``kernel="monte-carlo"`` was asked for and the model is a single module.
    """
    if settings.kernel == "monte-carlo" and not source.fresh:
        raise ModelError(
            f"model {source.name} is one module, whose weights cannot be drawn anew for kernel 'monte-carlo'; give a "
            "factory, or kernel 'empirical'."
        )
    program, limit = _limit(module, train, settings)
    found = limit if isinstance(limit, Limit) else None
    if settings.kernel in ("monte-carlo", "empirical"):
        return KernelChoice(settings.kernel, f"The {settings.kernel} kernel was asked for.", program, found)
    finite = "monte-carlo" if source.fresh else "empirical"
    if not isinstance(limit, Limit):
        if settings.kernel == "infinite":
            raise limit
        return KernelChoice(finite, f"No exact infinite-width kernel: {_first_part(limit)}.", program, None)
    seconds = _estimate_seconds(limit, train, len(train) + settings.held_out)
    if seconds > SLOWEST_SECONDS and settings.kernel == "auto":
        note = f"The exact infinite-width kernel would take about {seconds / 60:.0f} minutes for these samples."
        return KernelChoice(finite, note, program, limit)
    return KernelChoice("infinite", "Every operation of the network has an infinite-width rule.", program, limit)


def _limit(
    module: nn.Module, train: DataSet, settings: Settings
) -> tuple[Program | None, Limit | UnsupportedOperation | TraceError]:
    """The traced network, and its infinite-width limit or why there is none."""
    program = None
    try:
        program = trace(module, train.inputs[:2])
        limit = infinite(program, settings.parametrization)  # type: ignore[arg-type]
    except (UnsupportedOperation, TraceError) as reason:
        return program, reason
    if limit.features is None:
        return program, UnsupportedOperation("output", "", "the network does not end in a linear readout")
    return program, limit


def _first_part(error: Exception) -> str:
    return str(error).split(";")[0]


def _estimate_seconds(limit: Limit, train: DataSet, points: int) -> float:
    """Time of the whole Gram matrix, from a small tile."""
    side = min(len(train), 24)
    limit(train.inputs[:2])
    start = time.perf_counter()
    limit(train.inputs[:side], train.inputs[:side])
    return (time.perf_counter() - start) / side**2 * points * len(train) / 2


def finite_limit(kind: str, settings: Settings) -> Settings:
    """Fewer samples where the kernel comes from finite networks, whose gradients must fit in memory."""
    if kind == "infinite" or settings.samples <= FINITE_SAMPLES:
        return settings
    sizes = tuple(n for n in settings.sizes if n <= FINITE_SAMPLES // 2) or default_sizes(FINITE_SAMPLES)
    return replace(settings, samples=FINITE_SAMPLES, held_out=min(settings.held_out, FINITE_SAMPLES), sizes=sizes)


def check_memory(samples: int, held_out: int) -> None:
    """Refuse before starting what would not fit.

    Raises:
        ResourceError: the Gram matrices and their decomposition need more memory than there is.
    """
    needed = 8.0 * samples * (6 * samples + 2 * held_out)
    require_memory(needed, f"a forecast from {samples} samples", "ask for fewer samples.")


def compute_grams(run: Run, choice: KernelChoice) -> Grams:
    """Both kernels on samples and held-out examples."""

    def finite() -> Tensors:
        draws = DRAWS if choice.kind == "monte-carlo" else 1
        kernel = monte_carlo_kernel(
            lambda: run.source.make() if choice.kind == "monte-carlo" else run.source.build(seed=run.settings.seed),
            run.inputs,
            draws=draws,
            seed=run.settings.seed,
            show_progress=run.show,
        )
        p = len(run.train)
        parts = {"ntk": kernel.ntk, "features": kernel.features}
        cut = {name: whole[:p, :p] for name, whole in parts.items()}
        cut |= {f"{name}_test": whole[p:, :p] for name, whole in parts.items()}
        return cut | {"error": torch.tensor(kernel.ntk_error, dtype=torch.float64)}

    def exact() -> Tensors:
        limit = choice.limit
        assert limit is not None
        ntk, features = limit.ntk_and_features(run.train.inputs, show_progress=run.show)
        ntk_test, features_test = limit.ntk_and_features(run.test.inputs, run.train.inputs, show_progress=run.show)
        return {"ntk": ntk, "ntk_test": ntk_test, "features": features, "features_test": features_test}

    found = run.stages.tensors("kernel", exact if choice.kind == "infinite" else finite)
    error = float(found["error"]) if "error" in found else float("nan")
    return Grams(found["ntk"], found["ntk_test"], found["features"], found["features_test"], error)
