"""The page: well-formed, self-contained, escaped, complete."""

import base64
import gzip
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import plotly.offline
import pytest

from tests.report.report_cases import CASES, make_forecast
from widthwise.core import OutputError
from widthwise.report import figures, save, write_html

SECTIONS = [
    "headline", "network", "task", "learning-curve", "width", "finite-width", "overfitting", "dynamics", "training",
    "scaling", "advice", "method",
]  # fmt: skip
VOID = {"meta", "link", "br", "hr", "img", "input"}
EVIL = "<script>alert('x')</script><img src=x onerror=alert(1)>&\"$a$"


class Page(HTMLParser):
    """Checks nesting, and keeps elements, ids, the text of each script and the visible text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.stack: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.stack, self.stack

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack and self.stack.pop() == tag, (tag, self.getpos())

    def handle_data(self, data):
        if self.stack and self.stack[-1] == "script":
            name = self.elements[-1][1].get("id") or "page"
            self.scripts[name] = self.scripts.get(name, "") + data
        elif not self.stack or self.stack[-1] != "style":
            self.text += data + " "

    def attributes(self, name):
        return [attrs[name] for _, attrs in self.elements if name in attrs]


@pytest.fixture
def render(tmp_path):
    def render(forecast):
        return write_html(forecast, tmp_path / "index.html").read_text(encoding="utf-8")

    return render


def test_every_case_is_well_formed_and_complete(case, render):
    page = Page(render(case))
    assert [attrs["id"] for tag, attrs in page.elements if tag == "section"] == SECTIONS
    charts = json.loads(page.scripts["charts"], parse_constant=lambda name: pytest.fail(f"{name} in the charts"))
    assert set(charts) == set(figures(case))
    assert {f"chart-{name}" for name in charts} <= set(page.attributes("id"))
    assert len(page.attributes("id")) == len(set(page.attributes("id")))
    assert not re.search(r"\b(nan|NaN|None|undefined)\b", page.text)


def test_nothing_is_loaded_from_elsewhere(forecast, render):
    text = render(forecast)
    page = Page(text)
    assert not page.attributes("src") and not re.search(r"@import|url\(", text)
    assert all(link.startswith(("#", "data:")) for link in page.attributes("href"))
    assert "http" not in text.replace(page.scripts["plotly-code"], "")


def test_plotly_is_there_once_and_whole(forecast, render):
    page = Page(render(forecast))
    code = gzip.decompress(base64.b64decode(page.scripts["plotly-code"])).decode()
    assert code == plotly.offline.get_plotlyjs()


def test_names_from_the_user_are_escaped(render):
    base = make_forecast()
    network = replace(
        base.network,
        name=EVIL,
        weights=(replace(base.network.weights[0], name=EVIL),),
        criticality=replace(base.network.criticality, layers=(EVIL, "b", "c", "d"), explanation=EVIL),
    )
    evil = replace(
        base,
        network=network,
        data={"name": EVIL},
        settings={EVIL: EVIL},
        notes=(EVIL,),
        advice=(replace(base.advice[0], action=EVIL, because=EVIL),),
    )
    page = Page(render(evil))
    assert set(page.scripts) == {"charts", "plotly-code", "page"}
    assert not [tag for tag, _ in page.elements if tag == "img"] and "onerror" not in [
        k for _, a in page.elements for k in a
    ]
    assert page.text.count(EVIL) >= 6
    drawn = json.loads(page.scripts["charts"])
    names = [*drawn["depth_profile"]["layout"]["xaxis"]["ticktext"], *drawn["advice"]["layout"]["yaxis"]["ticktext"]]
    assert not any(re.search(r"<(?!br>)", name) for name in names)


def test_figures_have_text_for_those_who_cannot_see_them(forecast, render):
    page = Page(render(forecast))
    charts = [attrs for _, attrs in page.elements if attrs.get("class") == "chart"]
    assert len(charts) == 13
    for attrs in charts:
        figure = figures(forecast)[attrs["id"].removeprefix("chart-")]
        assert attrs["role"] == "img" and figure.caption in attrs["aria-label"]


def test_long_tables_are_folded_and_short_ones_open(render):
    page = Page(render(CASES["many weights"]()))
    folded = [attrs for tag, attrs in page.elements if tag == "details" and "open" not in attrs]
    assert len(folded) == 3  # weights, layers, spectrum
    assert "(151 rows)" in page.text


def test_save_writes_the_whole_report(forecast, tmp_path):
    page = save(forecast, tmp_path / "new" / "report")
    assert page == tmp_path / "new" / "report" / "index.html"
    written = {str(path.relative_to(page.parent)) for path in page.parent.rglob("*") if path.is_file()}
    assert written == {"index.html", "forecast.json"} | {f"figures/{name}.png" for name in figures(forecast)}
    assert page.stat().st_size < 3e6


def test_save_says_where_it_cannot_write(forecast, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        save(forecast, tmp_path / "file")
