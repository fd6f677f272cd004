"""Which kernel stands for the network, and its Gram matrices on the samples and the held-out examples."""

import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from widthwise.core import DataError, UnsupportedOperation, require_memory
from widthwise.data import DataSet
from widthwise.forecast._model import ModelSource
from widthwise.forecast._settings import Settings, default_sizes
from widthwise.forecast._stages import Stages, Tensors
from widthwise.kernels import Limit, infinite, monte_carlo_kernel
from widthwise.program import trace

SLOWEST_SECONDS = 900.0
FINITE_SAMPLES = 1000
DRAWS = 4
KERNELS = ("auto", "infinite", "monte-carlo", "empirical")


@dataclass(frozen=True)
class KernelChoice:
    """The kernel that stands for the network.

    Attributes:
        kind: ``"infinite"``, ``"monte-carlo"`` or ``"empirical"``.
        note: why, in one sentence.
        limit: the infinite-width limit, where there is one.
    """

    kind: str
    note: str
    limit: Limit | None


@dataclass(frozen=True)
class Grams:
    """Kernels between samples and from held-out examples to samples, float64.

    Attributes:
        ntk, ntk_test: ``[P, P]`` and ``[T, P]`` tangent kernel.
        features, features_test: mean product of the features that enter the readout, the same shapes.
    """

    ntk: Tensor
    ntk_test: Tensor
    features: Tensor
    features_test: Tensor


def choose_kernel(module: nn.Module, source: ModelSource, train: DataSet, settings: Settings) -> KernelChoice:
    """The exact limit if the network has one that is fast enough, else finite networks.

    Raises:
        UnsupportedOperation: ``kernel="infinite"`` was asked for and a node has no rule.
    """
    if settings.kernel not in KERNELS:
        raise DataError(f"kernel '{settings.kernel}' is not one of {', '.join(KERNELS)}; choose one of them.")
    finite = "monte-carlo" if source.fresh else "empirical"
    if settings.kernel in ("monte-carlo", "empirical"):
        return KernelChoice(settings.kernel, f"The {settings.kernel} kernel was asked for.", _try_limit(module, train))
    try:
        program = trace(module, train.inputs[:2])
        limit = infinite(program, settings.parametrization)  # type: ignore[arg-type]
        if limit.features is None:
            raise UnsupportedOperation("output", "", "the network does not end in a linear readout")
    except UnsupportedOperation as reason:
        if settings.kernel == "infinite":
            raise
        return KernelChoice(finite, f"No exact infinite-width kernel: {_first_part(reason)}.", None)
    seconds = _estimate_seconds(limit, train, len(train) + settings.held_out)
    if seconds > SLOWEST_SECONDS and settings.kernel == "auto":
        note = f"The exact infinite-width kernel would take about {seconds / 60:.0f} minutes for these samples."
        return KernelChoice(finite, note, limit)
    return KernelChoice("infinite", "Every operation of the network has an infinite-width rule.", limit)


def _try_limit(module: nn.Module, train: DataSet) -> Limit | None:
    try:
        return infinite(trace(module, train.inputs[:2]))
    except UnsupportedOperation:
        return None


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


def compute_grams(
    choice: KernelChoice, module: nn.Module, source: ModelSource, train: DataSet, test: DataSet, settings: Settings,
    stages: Stages, show: bool,
) -> Grams:  # fmt: skip
    """Both kernels on samples and held-out examples."""

    def finite() -> Tensors:
        both = torch.cat([train.inputs, test.inputs])
        draws = DRAWS if choice.kind == "monte-carlo" else 1

        def build() -> nn.Module:
            return module if choice.kind == "empirical" else source.factory(source.width)

        kernel = monte_carlo_kernel(build, both, draws=draws, seed=settings.seed, show_progress=show)
        p = len(train)
        errors = torch.tensor([kernel.ntk_error, kernel.features_error])
        parts = {"ntk": kernel.ntk, "features": kernel.features}
        cut = {name: whole[:p, :p] for name, whole in parts.items()}
        cut |= {f"{name}_test": whole[p:, :p] for name, whole in parts.items()}
        return cut | {"errors": errors}

    def exact() -> Tensors:
        limit = choice.limit
        assert limit is not None
        ntk, features = limit.ntk_and_features(train.inputs, show_progress=show)
        ntk_test, features_test = limit.ntk_and_features(test.inputs, train.inputs, show_progress=show)
        return {"ntk": ntk, "ntk_test": ntk_test, "features": features, "features_test": features_test}

    found = stages.tensors("kernel", exact if choice.kind == "infinite" else finite)
    return Grams(found["ntk"], found["ntk_test"], found["features"], found["features_test"])
