"""The main job: from a module and a data set to a checked forecast."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from widthwise.core import to_plain
from widthwise.data import DataSet, load
from widthwise.forecast._advice import advice
from widthwise.forecast._curves import fit_task, learning_curve, overfitting_section, task_section
from widthwise.forecast._dynamics import dynamics_section
from widthwise.forecast._finite_width import finite_width_section
from widthwise.forecast._grams import KernelChoice, check_memory, choose_kernel, compute_grams, finite_limit
from widthwise.forecast._model import check_accepts, resolve_model, settle
from widthwise.forecast._network import network_section
from widthwise.forecast._run import Run, Targets
from widthwise.forecast._scaling import scaling_section
from widthwise.forecast._settings import Settings, one_pool, read_settings
from widthwise.forecast._stages import Stages, fingerprint
from widthwise.forecast._training import training_note, training_rows
from widthwise.forecast._types import Forecast
from widthwise.forecast._width import width_curve, width_surface
from widthwise.theory import TaskSpectrum


def run_forecast(
    model: Any,
    data: Any,
    *,
    samples: int | None,
    held_out: int | None,
    width: int | None,
    sizes: Sequence[int] | None,
    draws: int,
    kernel: str,
    parametrization: str,
    training_seconds: float,
    seed: int,
    keep: str | Path | None,
    progress: bool,
) -> Forecast:
    """Forecast how a network will learn a task, and measure how far to trust it. See `widthwise.forecast`."""
    loaded = load(data, seed=seed)
    whole = one_pool(loaded, samples, held_out)
    asked = read_settings(
        whole,
        samples=samples,
        held_out=held_out,
        sizes=sizes,
        draws=draws,
        kernel=kernel,
        parametrization=parametrization,
        training_seconds=training_seconds,
        seed=seed,
    )
    source = resolve_model(model, whole, width)
    module = source.build(seed=seed)
    check_accepts(module, whole, source.name)
    source = settle(source)
    choice = choose_kernel(module, source, whole.split(asked.samples, asked.held_out, seed=seed)[0], asked)
    settings = finite_limit(choice.kind, asked)
    check_memory(settings.samples, settings.held_out)
    train, test = whole.split(settings.samples, settings.held_out, seed=seed)
    mark = fingerprint(module, [train, test], {"model": source.name, "settings": to_plain(settings)})
    stages = Stages(None if keep is None else Path(keep), mark)
    run = Run(source, train, test, Targets(train, test), settings, stages, progress)
    return _assemble(run, choice, asked, loaded, one_pool=whole is not loaded)


def _assemble(run: Run, choice: KernelChoice, asked: Settings, loaded: DataSet, *, one_pool: bool) -> Forecast:
    """Every section, the costly ones kept as stages."""
    grams = compute_grams(run, choice)
    task = fit_task(grams.ntk, run.targets, run.settings.seed)
    features = fit_task(grams.features, run.targets, run.settings.seed)
    curve = learning_curve(run, grams, task)
    section = task_section(run, grams, task, features)
    widths = width_curve(run, features)
    training, cut = training_rows(run, task)
    network = network_section(run, grams, choice)
    overfitting = overfitting_section(task, run.settings)
    fluctuations = finite_width_section(run, choice)
    dynamics = dynamics_section(run, grams, choice)
    scaling, scaling_notes = scaling_section(run.source.build(seed=run.settings.seed), choice.program)
    return Forecast(
        network=network,
        task=section,
        learning_curve=curve,
        width_curve=widths,
        width_surface=width_surface(features, run.settings),
        overfitting=overfitting,
        training=training,
        training_note=training_note(training, run.targets.power),
        advice=advice(run, features, curve, network, overfitting, training),
        notes=_notes(run, asked, choice, _notable_jitter(task), cut=cut, one_pool=one_pool),
        data=loaded.to_dict(),
        settings=to_plain(run.settings) | {"model": run.source.name, "width": run.source.width},
        seconds=run.stages.seconds,
        fluctuations=fluctuations,
        dynamics=dynamics,
        scaling=scaling,
        scaling_notes=scaling_notes,
    )


def _notable_jitter(task: TaskSpectrum) -> float:
    """The jitter, or 0 where it is below a billionth of the kernel's mean diagonal."""
    return task.jitter if task.jitter > 1e-9 * float(task.eigenvalues.sum()) else 0.0


def _notes(
    run: Run, asked: Settings, choice: KernelChoice, jitter: float, *, cut: bool, one_pool: bool
) -> tuple[str, ...]:
    used = run.settings.samples
    finite = choice.kind != "infinite"
    notes = {
        f"Only {used} of {asked.samples} samples were used, since the kernel is that of finite networks.": (
            used != asked.samples
        ),
        "Held-out examples were drawn from the same pool as the samples, not from the official test part, whose "
        "distribution may differ.": one_pool,
        f"{choice.note} Predictions are for the kernel of finite networks in the standard parametrization, whose own "
        "randomness adds to the intervals.": finite,
        f"{choice.note} Its sampling error adds to the intervals.": choice.rule == "sampled",
        f"A jitter of {jitter:.2g} was added to the Gram matrix, whose smallest eigenvalues are rounding.": jitter > 0,
        "A training run was stopped by the clock, so that another run may stop elsewhere.": cut,
        f"Kept results of an earlier run were reused: {', '.join(run.stages.reused)}.": bool(run.stages.reused),
    }
    return tuple(note for note, holds in notes.items() if holds)
