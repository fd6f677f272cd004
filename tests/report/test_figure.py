"""The figure value, its ticks, and its two renderers."""

import math

import numpy as np
import pytest
from matplotlib.image import imread

from widthwise.report import Axis, Band, Bars, Figure, Guide, Heatmap, Line, Points, to_plotly, to_png
from widthwise.report._figure import PALETTE, extent, ticks

KITCHEN_SINK = Figure(
    "Everything <b>at once</b> for $5",
    Axis("examples", "log"),
    Axis("error", "log"),
    (
        Band((1.0, 10.0), (0.5, 0.05), (2.0, 0.2)),
        Line("predicted", (1.0, 10.0, 100.0), (1.0, 0.1, math.nan)),
        Line("extrapolated", (10.0, 100.0), (0.1, 0.01), dashed=True),
        Points("measured", (1.0, 10.0), (1.1, 0.0), (0.1, math.nan), slot=1),
        Guide(5.0, "here $x$ <i>"),
        Guide(0.3, "there", "horizontal"),
    ),
    "A caption.",
)
BARS = Figure(
    "Bars",
    Axis("error"),
    Axis("", "category", ("first <b>", "second")),
    (Bars("now", (0.5, math.nan)), Bars("after", (0.4, 0.3), 1)),
)
HEAT = Figure(
    "Heat",
    Axis("n", "category", ("10", "20", "30")),
    Axis("width", "category", ("4", "8")),
    (Heatmap(((0.5, 0.4, math.nan), (0.3, 0.0, 0.1)), "error"),),
)
EMPTY = Figure("Empty", Axis("x", "log"), Axis("y"), ())


def luminance(colour: str) -> float:
    """WCAG 2 relative luminance of ``#rrggbb``."""
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("paper", ["#ffffff", "#14171a"])
def test_series_colours_have_contrast_on_both_backgrounds(paper):
    for colour in PALETTE:
        low, high = sorted((luminance(colour), luminance(paper)))
        assert (high + 0.05) / (low + 0.05) >= 3, (colour, paper)


@pytest.mark.parametrize("scale", ["log", "linear"])
@pytest.mark.parametrize(
    "low, high", [(30, 32000), (0.15, 0.31), (0.2, 0.9), (1e-9, 1), (0.1, 9.9), (0.8, 0.805), (1, 1e7)]
)
def test_ticks_are_few_inside_and_told_apart(scale, low, high):
    places, labels = ticks(Axis("", scale), low, high)
    assert 2 <= len(places) <= 10
    assert all(low <= place <= high for place in places)
    assert list(places) == sorted(set(places)) and len(set(labels)) == len(labels)


def test_category_ticks_thin_out():
    places, labels = ticks(Axis("", "category", tuple(f"layer {k}" for k in range(150))), 0, 0)
    assert len(places) <= 16 and labels[1] == f"layer {int(places[1])}"


def test_extent_covers_error_bars_bands_and_guides():
    low, high = extent(KITCHEN_SINK, "y")
    assert low < 0.01 and high > 2.0
    assert extent(EMPTY, "x")[0] > 0


def test_plotly_holds_the_drawable_values_and_escapes_text():
    drawn = to_plotly(KITCHEN_SINK).to_plotly_json()
    by_name = {trace["name"]: trace for trace in drawn["data"] if trace["name"]}
    assert tuple(by_name["predicted"]["y"]) == (1.0, 0.1)  # the NaN is left out
    assert tuple(by_name["measured"]["x"]) == (1.0,)  # a zero has no place on a logarithmic axis
    assert by_name["extrapolated"]["line"]["dash"] != by_name["predicted"]["line"]["dash"] == "solid"
    assert [note["text"] for note in drawn["layout"]["annotations"]] == ["here $x$ &lt;i&gt;", "there"]
    assert drawn["layout"]["yaxis"]["title"]["text"] == "error"
    assert math.isclose(10 ** drawn["layout"]["xaxis"]["range"][1], extent(KITCHEN_SINK, "x")[1])


def test_plotly_bars_and_cells():
    bars = to_plotly(BARS).to_plotly_json()
    assert [list(trace["x"]) for trace in bars["data"]] == [[0.5, None], [0.4, 0.3]]
    assert bars["layout"]["yaxis"]["ticktext"][0] == "first &lt;b&gt;"
    cells = to_plotly(HEAT).to_plotly_json()["data"][0]
    assert cells["z"][0][0] == pytest.approx(math.log10(0.5))
    assert cells["z"][0][2] is None and cells["z"][1][1] is None


@pytest.mark.parametrize("figure", [KITCHEN_SINK, BARS, HEAT, EMPTY], ids=lambda figure: figure.title[:5])
def test_png_has_ink(figure, tmp_path):
    pixels = imread(to_png(figure, tmp_path / "figure.png"))
    assert pixels.shape[1] == 1200 and np.ptp(pixels[..., :3]) == pytest.approx(1, abs=0.2)
    edges = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])[:, :3]
    assert (edges > 0.99).all()  # nothing is cut off


def test_both_renderers_use_the_same_colours(tmp_path):
    figure = Figure("Bars", Axis("x"), Axis("", "category", ("a",)), (Bars("now", (1.0,), slot=1),))
    colour = to_plotly(figure).to_plotly_json()["data"][0]["marker"]["color"]
    wanted = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    pixels = imread(to_png(figure, tmp_path / "figure.png"))[..., :3]
    assert (np.abs(pixels - wanted).max(-1) < 0.01).mean() > 0.1


def test_four_long_names_fit_into_the_legend(tmp_path):
    names = [f"{what}, {ridge} ridge" for what in ("predicted", "measured") for ridge in ("zero", "optimal")]
    series = tuple(Line(name, (1.0, 2.0), (1.0, 2.0), slot=slot) for slot, name in enumerate(names))
    pixels = imread(to_png(Figure("Four", Axis("x"), Axis("y"), series), tmp_path / "four.png"))
    margin = pixels[int(0.9 * len(pixels)) :, -12:, :3]  # a name that runs over the edge leaves ink here
    assert (margin > 0.99).all()
