"""Sentences for known numbers."""

import math
from dataclasses import replace

import pytest

from tests.report.report_cases import make_forecast, not_finite, training_row
from widthwise.report import _words as words
from widthwise.report import _words_training as outcome
from widthwise.report._numbers import count, interval, number, percent, shorten, with_error
from widthwise.report._select import agreement, best_advice


def with_curve(forecast, **values):
    """The forecast with chosen predictions at optimal ridge: ``n4000=(mse, low, high)``."""
    points = []
    for point in forecast.learning_curve:
        mse, low, high = values.get(
            f"n{point.n}", (point.predicted_mse, point.predicted_mse_low, point.predicted_mse_high)
        )
        chosen = {"predicted_mse": mse, "predicted_mse_low": low, "predicted_mse_high": high}
        points.append(replace(point, **chosen) if point.ridge == "optimal" else point)
    return replace(forecast, learning_curve=tuple(points))


def test_twice_the_data(forecast):
    known = with_curve(forecast, n4000=(0.21, 0.2, 0.22), n8000=(0.18, 0.17, 0.19))
    assert words.more_data(known) == (
        "With twice the data (8000 examples) the test error should fall from 0.210 to 0.180 (0.170 to 0.190)."
    )


def test_more_data_without_a_doubling(forecast):
    points = tuple(point for point in forecast.learning_curve if point.n not in (8000, 32000))
    assert words.more_data(replace(forecast, learning_curve=points)).startswith("With 4 times the data (16")
    inside = tuple(point for point in forecast.learning_curve if not point.extrapolated)
    assert words.more_data(replace(forecast, learning_curve=inside)).startswith("With 4000 examples the test error")
    assert words.more_data(replace(forecast, learning_curve=())) == "No learning curve was computed."


@pytest.mark.parametrize(
    "ratio, phrase",
    [(0.8, "a gain of 20 % from learning features"), (1.3, "a loss of 30 % against its kernel"), (1.01, "within 2 %")],
)
def test_training_states_gain_and_loss(ratio, phrase):
    row = replace(training_row(1000, 0.3 * ratio), kernel_mse=0.3)
    assert phrase in outcome.training_row(row)


def test_many_times_the_error_is_a_factor(forecast):
    assert "an error 19 times as large at this" in outcome.training_row(replace(training_row(37, 5.7), kernel_mse=0.3))
    judged = outcome.training(replace(forecast, training_note="it gains."))
    assert judged[0] == "It gains." and not any("gain of" in sentence for sentence in judged)
    assert any("gain of" in sentence for sentence in outcome.training(replace(forecast, training_note="")))


@pytest.mark.parametrize(
    "cost, phrase",
    [(1.0013, "by 0.13 %;"), (1.0, "by less than 0.01 %;"), (1.14, "by 14 %;"), (3.0, "by a factor of 3.00;")],
)
def test_the_cost_of_fitting_every_label(forecast, cost, phrase):
    found = replace(forecast.overfitting, cost=cost)
    sentence = outcome.overfitting_cost(replace(forecast, overfitting=found))
    assert phrase in sentence and sentence.endswith("on any labels it can be at most 31 %.")


def test_diverged_training_is_said():
    row = replace(training_row(1000, math.inf), diverged=True, width=None)
    assert outcome.training_row(row).startswith("The network, trained for 400 steps on 1000 examples, diverged at")


def test_power_sentence_names_the_first_index_with_half_the_power(forecast):
    task = replace(forecast.task, eigenvalue_index=(1, 10, 100), cumulative_power=(0.2, 0.62, 0.9))
    assert "The first 10 modes of 4000 hold 62 % of the target's power." in words.task(replace(forecast, task=task))


def test_agreement_is_median_and_worst(forecast):
    curve = [
        replace(forecast.learning_curve[k], predicted_mse=p, measured_mse=1.0) for k, p in enumerate((1.1, 0.98, 1.03))
    ]
    found = agreement(curve)
    assert (found.points, found.worst_at) == (3, forecast.learning_curve[0].n)
    assert (found.median, found.worst) == (pytest.approx(0.03), pytest.approx(0.1))
    assert agreement([]) is None


def test_best_advice_is_the_largest_relative_cut_that_is_not_of_low_confidence(forecast):
    rows = tuple(
        replace(forecast.advice[0], action=action, before=1.0, after=after, confidence=confidence)
        for action, after, confidence in (
            ("a", 0.5, "low"),
            ("b", 0.8, "medium"),
            ("c", 0.9, "high"),
            ("d", 1.2, "high"),
        )
    )
    assert best_advice(replace(forecast, advice=rows)).action == "b"
    assert best_advice(replace(forecast, advice=rows[:1])).action == "a"
    assert best_advice(replace(forecast, advice=rows[3:])) is None


def test_no_sentence_shows_a_missing_number(case):
    sections = (
        words.network,
        words.task,
        words.learning_curve,
        words.width,
        outcome.overfitting,
        outcome.training,
        outcome.advice,
    )
    for part in sections:
        for sentence in part(case):
            assert not any(token in sentence for token in ("nan", "None", "inf ", "..")), sentence
            assert sentence.endswith(".") and sentence[0] == sentence[0].upper()


def test_names_keep_their_case():
    shouted = replace(make_forecast(), advice=(replace(make_forecast().advice[0], action="SGD with momentum"),))
    assert ": SGD with momentum, from" in outcome.advice(shouted)[0]


def test_unknown_noise_and_exponents_are_said():
    text = " ".join(words.task(not_finite()))
    assert "could not be estimated" in text and "multiplies" not in text


def test_numbers():
    assert [number(x) for x in (0.20431, 0.9996, 99.96, 12345.0, -0.5, 0.0)] == [
        "0.204",
        "1.00",
        "100",
        "12\xa0300",
        "−0.500",
        "0",
    ]
    assert [number(x) for x in (None, math.nan, math.inf, 1.5e9, 2.46e-7)] == ["–", "–", "infinite", "1.5e9", "2.46e-7"]
    assert [with_error(*x) for x in ((1.3, 0.0996), (1234.0, 56.0), (0.21, math.nan))] == [
        "1.30 ± 0.10",
        "1234 ± 56",
        "0.210",
    ]
    assert (count(None), percent(math.nan), interval(1, 2)) == ("–", "–", "1.00 to 2.00")
    assert len(shorten("x" * 50, 20)) == 20
