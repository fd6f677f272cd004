"""The figures of a forecast: right numbers on right axes, and only those that have something to show."""

from dataclasses import replace

import pytest

from tests.report.report_cases import POWER, SAMPLES, SIZES, bare, make_forecast, not_finite, regression, width_points
from widthwise.report import Band, Guide, Line, Points, figures, to_plotly
from widthwise.report._forecast_figures import width_curve


def series(figure, kind, name=""):
    return [item for item in figure.series if isinstance(item, kind) and (not name or item.name == name)]


def test_titles_and_labels(case):
    for name, figure in figures(case).items():
        assert figure.title and figure.caption and figure.x.label, name
        assert to_plotly(figure).to_plotly_json()["data"]


def test_what_is_missing_has_no_figure():
    assert "accuracy_curve" not in figures(regression())
    assert set(figures(bare())) == {"spectrum", "target_power", "learning_curve", "accuracy_curve", "overfitting"}
    assert len(figures(make_forecast())) == 13


def test_learning_curve_shows_prediction_measurement_and_extrapolation(forecast):
    figure = figures(forecast)["learning_curve"]
    (inside,) = series(figure, Line, "predicted, optimal ridge")
    (beyond,) = series(figure, Line, "extrapolated, optimal ridge")
    (measured,) = series(figure, Points, "measured, zero ridge")
    assert inside.x == tuple(float(n) for n in SIZES if n <= SAMPLES) and not inside.dashed
    assert beyond.dashed and (beyond.x[0], beyond.y[0]) == (inside.x[-1], inside.y[-1])  # no gap at P
    at = {(p.n, p.ridge): p for p in forecast.learning_curve}
    assert measured.y == tuple(at[int(n), "zero"].measured_mse for n in measured.x)
    assert measured.error == tuple(at[int(n), "zero"].measured_mse_stderr for n in measured.x)
    assert [band.light for band in series(figure, Band)] == [False, True, False, True]
    assert {(guide.direction, guide.at) for guide in series(figure, Guide)} == {
        ("vertical", SAMPLES),
        ("horizontal", POWER),
    }


def test_spectrum_guide_has_the_slope_alpha(forecast):
    (guide,) = [line for line in series(figures(forecast)["spectrum"], Line) if line.dashed]
    slope = (guide.y[1] / guide.y[0], guide.x[1] / guide.x[0])
    assert slope[0] == pytest.approx(slope[1] ** -forecast.task.alpha)
    assert not [line for line in series(figures(not_finite())["spectrum"], Line) if line.dashed]


def test_surface_cells_stand_at_their_n_and_width(forecast):
    figure = figures(forecast)["width_surface"]
    z, surface = figure.series[0].z, forecast.width_surface
    i, j = figure.y.categories.index("64"), figure.x.categories.index("4000")
    assert z[i][j] == surface.mse[surface.n.index(4000)][surface.width.index(64)]


def test_width_curve_marks_the_peak_where_features_equal_examples(forecast):
    (guide,) = series(width_curve(forecast), Guide)
    assert guide.at == 250  # four features per unit of width, 1000 examples


def test_width_curve_has_one_line_and_one_set_of_points_per_kind_of_ridge(forecast):
    figure = width_curve(forecast)
    assert [line.name for line in series(figure, Line)] == ["predicted, zero ridge", "predicted, optimal ridge"]
    for ridge in ("zero", "optimal"):
        (measured,) = series(figure, Points, f"measured, {ridge} ridge")
        points = [point for point in forecast.width_curve if point.ridge == ridge]
        assert measured.x == tuple(float(point.width) for point in points)
        assert measured.y == tuple(point.measured_mse for point in points)
    several = series(width_curve(replace(forecast, width_curve=width_points((250, 1000)))), Line)
    assert len(several) == 4 and len({line.slot for line in several}) == 4


def test_width_caption_says_why_the_prediction_may_be_off(forecast):
    weights = forecast.network.weights
    assert "earlier layers" in width_curve(forecast).caption and "share filters" in width_curve(forecast).caption
    dense = tuple(replace(weight, shape=weight.shape[:2]) for weight in weights)
    assert "share filters" not in width_curve(with_weights(forecast, dense)).caption
    shallow = tuple(replace(weight, role="input" if weight.role == "hidden" else weight.role) for weight in dense)
    assert "off the lines" not in width_curve(with_weights(forecast, shallow)).caption


def with_weights(forecast, weights):
    return replace(forecast, network=replace(forecast.network, weights=weights))
