"""Which kernel stands for the network, and its Gram matrices on the samples and the held-out examples."""

import time
from dataclasses import dataclass, replace
from math import log
from typing import Literal

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
SLOWEST_SAMPLED = 300.0  # of a kernel that needs samples: finite networks are nearly as good
TIMED_SIDE = 24  # inputs on a side of the tile that is timed, at most
TIMED_SECONDS = 2.0
LEAST_GROWTH = 1.5  # power of its side by which the time of a sampled tile grows (a GRU: 0.6, 1.4 and up with size)
SAMPLED_RTOL = 1e-2  # relative standard error that a sampled kernel aims at
FINITE_SAMPLES = 1000
EXACT_NOTE = "Every operation of the network has an infinite-width rule."
METHODS: dict[str, Literal["exact", "sampled"]] = {"exact": "exact", "sampled": "sampled"}
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

    @property
    def rule(self) -> str:
        """``"exact"`` or ``"sampled"`` for an infinite kernel, else ``"finite"``."""
        if self.kind != "infinite" or self.limit is None:
            return "finite"
        return "sampled" if needs_samples(self.limit) else "exact"


@dataclass(frozen=True)
class Grams:
    """Kernels between samples and from held-out examples to samples, float64.

    Attributes:
        ntk, ntk_test: ``[P, P]`` and ``[T, P]`` tangent kernel.
        features, features_test: mean product of the features that enter the readout, the same shapes.
        error: relative standard error of `ntk` where it is a mean over initialisations or sampled, else NaN.
    """

    ntk: Tensor
    ntk_test: Tensor
    features: Tensor
    features_test: Tensor
    error: float = float("nan")


def choose_kernel(module: nn.Module, source: ModelSource, train: DataSet, settings: Settings) -> KernelChoice:
    """The infinite-width limit if the network has one that is fast enough, else finite networks.

    The limit is exact where every operation has an exact rule, and read by samples of one coordinate where not.

    Raises:
        UnsupportedOperation, TraceError: ``kernel="infinite"`` (``"exact"``, ``"sampled"``) was asked for and the
            network has none.
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
        if settings.kernel != "auto":
            raise limit
        return KernelChoice(finite, f"No infinite-width kernel: {_first_part(limit)}.", program, None)
    sampled = needs_samples(limit)
    most = SLOWEST_SAMPLED if sampled else SLOWEST_SECONDS
    if settings.kernel == "auto":
        points = len(train) + settings.held_out
        seconds = estimate_seconds(limit, train, points)
        other = _by_coordinates(limit) if sampled and seconds > most else None
        if other is not None and (shared := estimate_seconds(other, train, points)) < seconds:
            limit, seconds = other, shared
        if seconds > most:
            return KernelChoice(finite, _slow_note(limit, seconds), program, limit)
    return KernelChoice("infinite", _sampled_note(limit) if sampled else EXACT_NOTE, program, limit)


def _by_coordinates(limit: Limit) -> Limit | None:
    """The same limit by samples of one coordinate, which all pairs share, where moments are sampled pair by pair.

    None where it is read so already, or cannot be.
    """
    if limit.method == "sampled":
        return None
    try:
        return infinite(limit.program, limit.parametrization, method="sampled", rtol=SAMPLED_RTOL)
    except UnsupportedOperation:
        return None


def needs_samples(limit: Limit) -> bool:
    """Whether some node is read by samples, of one coordinate or of the moments that no quadrature gives."""
    return limit.method == "sampled" or any(row.rule == "sampled" for row in limit.certificate)


def _slow_note(limit: Limit, seconds: float) -> str:
    """What the infinite-width kernel would cost."""
    how = "The sampled" if needs_samples(limit) else "The exact"
    long = f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.0f} hours"
    return (
        f"{how} infinite-width kernel would take about {long} for these samples (ask for kernel 'infinite' to have it)."
    )


def _sampled_note(limit: Limit) -> str:
    """Which samples, and why."""
    if limit.method == "exact":
        names = sorted({row.op for row in limit.certificate if row.rule == "sampled"})
        return (
            f"The infinite-width kernel is exact but for the moments of {', '.join(names)}, which are sampled, aiming "
            f"at a relative standard error of {SAMPLED_RTOL:g}."
        )
    try:
        infinite(limit.program, limit.parametrization, method="exact")
    except UnsupportedOperation as reason:
        return (
            f"The infinite-width kernel is read by samples of one coordinate, aiming at a relative standard error of "
            f"{SAMPLED_RTOL:g}, since exact rules do not cover everything ({_first_part(reason)})."
        )
    return (
        f"The infinite-width kernel is read by samples of one coordinate, aiming at a relative standard error of "
        f"{SAMPLED_RTOL:g}."
    )


def _limit(
    module: nn.Module, train: DataSet, settings: Settings
) -> tuple[Program | None, Limit | UnsupportedOperation | TraceError]:
    """The traced network, and its infinite-width limit or why there is none."""
    program = None
    try:
        program = trace(module, train.inputs[:2])
        limit = infinite(
            program,
            settings.parametrization,  # type: ignore[arg-type]
            method=METHODS.get(settings.kernel, "auto"),
            rtol=SAMPLED_RTOL,
        )
    except (UnsupportedOperation, TraceError) as reason:
        return program, reason
    if limit.features is None:
        return program, UnsupportedOperation("output", "", "the network does not end in a linear readout")
    return program, limit


def _first_part(error: Exception) -> str:
    return str(error).split(";")[0]


def estimate_seconds(limit: Limit, train: DataSet, points: int) -> float:
    """Time of the Gram matrices of the samples, and of the samples with others, `points` inputs in all.

    From tiles that grow until one is as large as those of the real work, takes long enough to be timed, or shows that
    the whole takes too long. Samples of one coordinate are shared within a tile, so that the time of a tile grows
    slower than its pairs: a smaller tile is extrapolated by the growth from the one before.
    """
    real = min(limit.sampled_side(), len(train)) if limit.method == "sampled" else TIMED_SIDE
    most = max(1, min(len(train) // 2, TIMED_SIDE, real))
    pairs = points * len(train) / 2
    limit.ntk_and_features(train.inputs[:2])
    side = min(2 if limit.method == "sampled" else 4, most)
    seconds, growth = _seconds(limit, train, side), 2.0
    while True:
        whole = seconds * (real / side) ** growth / real**2 * pairs
        known = growth < 2.0 or limit.method == "exact"
        if side == most or (known and (seconds > TIMED_SECONDS or whole > 20 * SLOWEST_SECONDS)):
            return whole
        larger = min(2 * side, most)
        found = _seconds(limit, train, larger)
        if limit.method == "sampled":
            growth = min(1.99, max(LEAST_GROWTH, log(found / seconds) / log(larger / side)))
        side, seconds = larger, found


def _seconds(limit: Limit, train: DataSet, side: int) -> float:
    """Time of one tile of two different sides."""
    start = time.perf_counter()
    limit.ntk_and_features(train.inputs[:side], train.inputs[-side:])
    return time.perf_counter() - start


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
        found = {"ntk": ntk, "ntk_test": ntk_test, "features": features, "features_test": features_test}
        if choice.rule == "sampled":
            errors = [row.error for row in limit.certificate if row.rule == "sampled"]
            found["error"] = torch.tensor(max(errors, default=0.0), dtype=torch.float64)
        return found

    found = run.stages.tensors("kernel", exact if choice.kind == "infinite" else finite)
    error = float(found["error"]) if "error" in found else float("nan")
    return Grams(found["ntk"], found["ntk_test"], found["features"], found["features_test"], error)
