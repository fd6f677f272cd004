"""The main job: from a module and a data set to a checked forecast."""

from pathlib import Path
from typing import Any

from widthwise.core import to_plain
from widthwise.data import DataSet, load
from widthwise.forecast._advice import advice
from widthwise.forecast._curves import Targets, fit_task, learning_curve, overfitting_section, task_section
from widthwise.forecast._grams import check_memory, choose_kernel, compute_grams, finite_limit
from widthwise.forecast._model import check_accepts, resolve_model
from widthwise.forecast._network import network_section
from widthwise.forecast._settings import Settings, default_sizes, split_sizes
from widthwise.forecast._stages import Stages, fingerprint
from widthwise.forecast._training import training_note, training_rows
from widthwise.forecast._types import Forecast
from widthwise.forecast._width import width_curve, width_surface
from widthwise.theory import TaskSpectrum

DEFAULT_DRAWS = 10
DEFAULT_TRAINING_SECONDS = 30.0


def run_forecast(
    model: Any,
    data: Any,
    *,
    samples: int | None = None,
    held_out: int | None = None,
    width: int | None = None,
    sizes: tuple[int, ...] | None = None,
    draws: int = DEFAULT_DRAWS,
    kernel: str = "auto",
    parametrization: str = "ntk",
    training_seconds: float = DEFAULT_TRAINING_SECONDS,
    seed: int = 0,
    keep: str | Path | None = None,
    progress: bool = True,
) -> Forecast:
    """Forecast how a network will learn a task, and measure how far to trust it. See `widthwise.forecast`."""
    whole = load(data, seed=seed) if not isinstance(data, DataSet) else data
    samples, held_out = split_sizes(whole, samples, held_out)
    source = resolve_model(model, whole, width)
    module = source.build(seed=seed)
    check_accepts(module, whole, source.name)
    asked = Settings(
        samples, held_out, sizes or default_sizes(samples), draws, kernel, parametrization, training_seconds, seed
    )
    choice = choose_kernel(module, source, whole.split(samples, held_out, seed=seed)[0], asked)
    settings = finite_limit(choice.kind, asked)
    train, test = whole.split(settings.samples, settings.held_out, seed=seed)
    check_memory(settings.samples, settings.held_out)
    mark = fingerprint(module, [train, test], {"model": source.name, "settings": to_plain(settings)})
    stages = Stages(None if keep is None else Path(keep), mark)
    targets = Targets(train, test)
    grams = compute_grams(choice, module, source, train, test, settings, stages, progress)
    task = fit_task(grams.ntk, targets, seed)
    features = fit_task(grams.features, targets, seed)
    curve = learning_curve(task, grams, targets, settings, stages)
    section = task_section(task, features, train, test, grams, targets, settings, stages)
    widths = width_curve(features, source, train, test, targets, settings, stages, progress)
    training = training_rows(task, source, train, test, targets, settings, stages, progress)
    network = network_section(source.build(seed=seed), source, train, choice)
    overfitting = overfitting_section(task, settings)
    forecast = Forecast(
        network=network,
        task=section,
        learning_curve=curve,
        width_curve=widths,
        width_surface=width_surface(features, settings),
        overfitting=overfitting,
        training=training,
        training_note=training_note(training),
        advice=advice(task, curve, network, overfitting, training, settings),
        notes=_notes(asked, settings, choice.kind, _notable_jitter(task), stages),
        data=whole.to_dict(),
        settings=to_plain(settings) | {"model": source.name, "width": source.width},
        seconds=stages.seconds,
    )
    stages.discard()
    return forecast


def _notable_jitter(task: TaskSpectrum) -> float:
    """The jitter, or 0 where it is below a billionth of the kernel's mean diagonal."""
    return task.jitter if task.jitter > 1e-9 * float(task.eigenvalues.sum()) else 0.0


def _notes(asked: Settings, used: Settings, kernel: str, jitter: float, stages: Stages) -> tuple[str, ...]:
    notes = []
    if asked.samples != used.samples:
        notes.append(
            f"Only {used.samples} of {asked.samples} samples were used, since the kernel is that of finite networks."
        )
    if kernel != "infinite":
        notes.append("Predictions are for the kernel of finite networks, whose own randomness adds to the intervals.")
    if jitter > 0:
        notes.append(f"A jitter of {jitter:.2g} was added to the Gram matrix, whose smallest eigenvalues are rounding.")
    if stages.reused:
        notes.append(f"Kept results of an interrupted run were reused: {', '.join(stages.reused)}.")
    return tuple(notes)
