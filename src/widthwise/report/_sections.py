"""The sections of the report, in order: plain words, figures, tables."""

from dataclasses import dataclass

from widthwise.forecast._types import Forecast
from widthwise.report import _tables as numbers
from widthwise.report import _tables_theory as theory
from widthwise.report import _words as say
from widthwise.report import _words_theory as tell
from widthwise.report import _words_training as outcome
from widthwise.report._numbers import interval, number, percent
from widthwise.report._select import best_advice, later, now


@dataclass(frozen=True)
class Section:
    """One section: what it means, which figures it shows (by name), its numbers, its caveats."""

    id: str
    title: str
    words: tuple[str, ...]
    figures: tuple[str, ...] = ()
    tables: tuple[numbers.Table, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tile:
    """One key fact."""

    label: str
    value: str
    detail: str


def tiles(forecast: Forecast) -> list[Tile]:
    """The three to five facts at the top."""
    here, there, best = now(forecast), later(forecast), best_advice(forecast)
    found = forecast.task
    made = []
    if here is not None:
        share = (
            f"{percent(here.predicted_mse / found.target_power, 0)} of predicting the mean"
            if found.target_power > 0
            else ""
        )
        right = f"{percent(here.predicted_accuracy)} correct" if here.predicted_accuracy is not None else ""
        made.append(
            Tile(
                f"Test error at {here.n} examples", number(here.predicted_mse), "; ".join(filter(None, (right, share)))
            )
        )
    if here is not None and there is not None:
        right = f"; {percent(there.predicted_accuracy)} correct" if there.predicted_accuracy is not None else ""
        detail = interval(there.predicted_mse_low, there.predicted_mse_high) + right
        made.append(
            Tile(
                "With twice the data" if there.n == 2 * here.n else f"Test error at {there.n} examples",
                number(there.predicted_mse),
                detail,
            )
        )
    decay = "eigenvalues fall like i^(\N{MINUS SIGN}alpha), the target's power like i^(\N{MINUS SIGN}beta)"
    made.append(Tile("Exponents of the task", f"alpha {number(found.alpha)}, beta {number(found.beta)}", decay))
    made.append(Tile("Overfitting", forecast.overfitting.verdict, outcome.overfitting_tile(forecast)))
    if best is not None:
        detail = f"{number(best.before)} to {number(best.after)}, {best.confidence} confidence"
        made.append(Tile("Best step", best.action, detail))
    return made


def sections(forecast: Forecast) -> list[Section]:
    """Every section of the report, in the order of reading."""
    ridges = tuple(numbers.learning(forecast, ridge) for ridge in ("optimal", "zero"))
    made = [
        Section(
            "network",
            "Network",
            (*say.network(forecast), *tell.depth(forecast)),
            ("depth_profile",),
            (theory.depth(forecast), numbers.weights(forecast), numbers.layers(forecast), numbers.rules(forecast)),
        ),
        Section(
            "task",
            "Task",
            tuple(say.task(forecast)),
            ("spectrum", "target_power"),
            (numbers.task(forecast), numbers.spectrum(forecast)),
        ),
        Section(
            "learning-curve",
            "Learning curve",
            tuple(say.learning_curve(forecast)),
            ("learning_curve", "accuracy_curve"),
            ridges,
        ),
        Section(
            "width",
            "Width",
            tuple(say.width(forecast)),
            ("width_curve", "width_surface"),
            (numbers.width(forecast), numbers.surface(forecast)),
        ),
        Section(
            "finite-width",
            "Finite width",
            tuple(tell.finite_width(forecast)),
            ("finite_width_layers", "finite_width"),
            (theory.finite_width(forecast),),
            tell.finite_width_notes(forecast),
        ),
        Section(
            "overfitting",
            "Ridge and overfitting",
            tuple(outcome.overfitting(forecast)),
            ("overfitting",),
            (numbers.overfitting(forecast),),
        ),
        Section(
            "dynamics",
            "Training time",
            tuple(tell.dynamics(forecast)),
            ("dynamics",),
            (theory.dynamics(forecast), theory.path(forecast)),
        ),
        Section(
            "training",
            "Training check",
            tuple(outcome.training(forecast)),
            ("training",),
            (numbers.training(forecast),),
        ),
        Section(
            "scaling",
            "How to scale it",
            tuple(tell.scaling(forecast)),
            (),
            (theory.scaling(forecast),),
            forecast.scaling_notes if forecast.scaling else (),
        ),
        Section("advice", "Advice", tuple(outcome.advice(forecast)), ("advice",), (numbers.advice(forecast),)),
        _how(forecast),
    ]
    return [_without_empty(section) for section in made]


def _how(forecast: Forecast) -> Section:
    return Section(
        "method",
        "How this was computed",
        (say.trust(forecast), say.kernel(forecast), *say.CONVENTIONS),
        (),
        (
            numbers.mapping("Data", forecast.data),
            numbers.mapping("Settings", forecast.settings),
            numbers.seconds(forecast),
        ),
        forecast.notes,
    )


def _without_empty(section: Section) -> Section:
    kept = tuple(table for table in section.tables if table.rows)
    return Section(section.id, section.title, tuple(filter(None, section.words)), section.figures, kept, section.notes)
