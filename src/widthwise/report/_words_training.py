"""Sentences on overfitting, on the trained network, and on the next step."""

import math

from widthwise.forecast._types import Forecast, TrainingRow
from widthwise.report._numbers import count, number, percent
from widthwise.report._select import best_advice
from widthwise.report._words import sentence

VERDICT_WORDS = {
    "benign": "fitting noisy labels exactly costs next to nothing, and less and less as examples are added",
    "tempered": "fitting noisy labels exactly costs a bounded factor that more examples do not remove",
    "catastrophic": "fitting noisy labels exactly costs more and more as examples are added",
}


def overfitting(forecast: Forecast) -> list[str]:
    """Verdict, cost, and whether near-interpolation is needed."""
    found = forecast.overfitting
    means = VERDICT_WORDS.get(found.verdict, "")
    verdict = f"Overfitting is {found.verdict}" + (f": {means}." if means else ".")
    best = f"a ridge of {number(found.optimal_ridge)}" if found.optimal_ridge > 0 else "no ridge"
    ratio = percent(found.optimal_fitting_ratio)
    need = (
        f"so near-interpolation is needed: the best training error is {ratio} of the test error"
        if found.obligatory
        else f"where the training error is {ratio} of the test error, so near-interpolation is not needed"
    )
    return [verdict, overfitting_cost(forecast), f"The best test error is reached with {best}, {need}."]


def overfitting_cost(forecast: Forecast) -> str:
    """What fitting these labels costs, beside the most that fitting any labels can."""
    found = forecast.overfitting
    bound = f"on any labels it can be at most {_extra(found.coefficient)}"
    if not math.isfinite(found.cost):
        return f"At {count(found.n)} examples, fitting these labels exactly has no finite cost; {bound}."
    cost = _extra(found.cost)
    return f"At {count(found.n)} examples, fitting these labels exactly raises the test error by {cost}; {bound}."


def overfitting_tile(forecast: Forecast) -> str:
    """The cost in a few words."""
    cost = forecast.overfitting.cost
    return (
        f"fitting every label costs {_extra(cost)}" if math.isfinite(cost) else "fitting every label has no finite cost"
    )


def _extra(ratio: float) -> str:
    """A ratio as an addition in per cent, or as a factor from 2 on."""
    if not math.isfinite(ratio):
        return "an unbounded factor"
    if ratio >= 2:
        return f"a factor of {number(ratio)}"
    extra = 100 * (ratio - 1)
    return "less than 0.01 %" if extra < 0.01 else f"{number(extra, 2)} %"


def training(forecast: Forecast) -> list[str]:
    """What the real network gained or lost against the kernel."""
    if not forecast.training:
        return [sentence(forecast.training_note) or "The network itself was not trained."]
    note = sentence(forecast.training_note)
    rows = [training_row(row, judged=not note) for row in forecast.training]
    return [note, *rows] if note else rows


def training_row(row: TrainingRow, *, judged: bool = True) -> str:
    """One trained network against the kernel's prediction at the same number of examples; `judged`: gain or loss."""
    which = f"The network of width {count(row.width)}" if row.width is not None else "The network"
    start = f"{which}, trained for {count(row.steps)} steps on {count(row.n)} examples,"
    if row.diverged or not math.isfinite(row.test_mse):
        expected = f"the kernel predicts a test error of {number(row.kernel_mse)}"
        return f"{start} diverged at learning rate {number(row.lr)}; {expected}."
    reached = (
        f"{start} reaches a test error of {number(row.test_mse)} where the kernel predicts {number(row.kernel_mse)}"
    )
    if not judged or not row.kernel_mse > 0:
        return f"{reached}."
    change = row.test_mse / row.kernel_mse - 1
    if abs(change) < 0.02:
        return f"{reached}: no gain or loss worth naming (within 2 %)."
    if change < 0:
        return f"{reached}: a gain of {percent(-change, 0)} from learning features."
    loss = (
        f"a loss of {percent(change, 0)} against its kernel"
        if change < 1
        else f"an error {number(1 + change, 2)} times as large"
    )
    return f"{reached}: {loss} at this training budget."


def advice(forecast: Forecast) -> list[str]:
    """The best step in one sentence."""
    best = best_advice(forecast)
    if best is None:
        return ["No step that was considered is expected to lower the test error."]
    return [
        f"The step with the largest expected effect: {_clause(best.action)}, from a test error of "
        f"{number(best.before)} to "
        f"{number(best.after)} ({best.confidence} confidence)."
    ]


def _clause(text: str) -> str:
    text = text.strip().rstrip(".")
    keep = len(text) > 1 and text[1].isupper()
    return text if keep or not text else text[0].lower() + text[1:]
