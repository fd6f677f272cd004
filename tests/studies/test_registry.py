"""The catalogue and the registry of studies."""

import dataclasses
import importlib
import pkgutil

import pytest
from typer.testing import CliRunner

from widthwise import studies
from widthwise.cli import app
from widthwise.core import WidthwiseError
from widthwise.studies import _registry

MODULES = sorted(name for _, name, _ in pkgutil.iter_modules(studies.__path__) if not name.startswith("_"))


def test_every_paper_is_catalogued_once() -> None:
    slugs = [paper.slug for paper in studies.PAPERS]
    assert len(slugs) == len(set(slugs)) == 57
    assert slugs == sorted(slugs)
    assert len({paper.arxiv for paper in studies.PAPERS}) == len({paper.title for paper in studies.PAPERS}) == 57


def test_years_agree_with_the_identifiers() -> None:
    assert all(paper.year == 2000 + int(paper.arxiv[:2]) for paper in studies.PAPERS)
    assert all(1 <= int(paper.arxiv[2:4]) <= 12 and len(paper.arxiv) == 10 for paper in studies.PAPERS)


@pytest.mark.parametrize("module", MODULES)
def test_a_study_is_named_as_its_file(module: str) -> None:
    study = importlib.import_module(f"widthwise.studies.{module}").STUDY
    assert study.slug == module.replace("_", "-")
    assert study.slug in {paper.slug for paper in studies.PAPERS}
    assert set(study.settings) == {"quick", "full"}
    keys = [claim.key for claim in study.claims]
    assert len(keys) == len(set(keys)) >= 5
    assert study.state in ("works", "partly") and bool(study.missing) == (study.state == "partly")


def test_available_says_which_are_ready() -> None:
    states = {info.slug: info.state for info in studies.available()}
    assert len(states) == 57
    assert {slug for slug, state in states.items() if state != "not yet"} == {m.replace("_", "-") for m in MODULES}


def test_a_near_match_is_offered() -> None:
    with pytest.raises(WidthwiseError, match="did you mean more-is-better-rf"):
        studies.get("more_is_better")


def test_a_study_to_come_is_named_as_such() -> None:
    waiting = next(info.slug for info in studies.available() if info.state == "not yet")
    with pytest.raises(WidthwiseError, match=f"'{waiting}' is not written yet"):
        studies.run(waiting)


def _study(**changes) -> studies.Study:
    claim = studies.Claim("law", "One is one.", "arithmetic", "exact")
    finding = studies.Finding("law", ("one",), (1.0,), (1.0,), True, "counted")
    study = studies.Study(
        "data-diet", "works", (claim,), {"quick": "a count", "full": "a count"}, lambda scale: ([finding], {})
    )
    return dataclasses.replace(study, **changes)


def _install(monkeypatch: pytest.MonkeyPatch, study: studies.Study) -> None:
    monkeypatch.setattr(_registry, "_load", lambda slug: study if slug == "data-diet" else None)


def test_run_reports_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, _study())
    result = studies.run("data-diet", progress=False)
    assert result.holds and result.setting == "a count" and result.seconds >= 0
    assert result.title.startswith("Deep Learning on a Data Diet")
    plain = result.to_dict()
    assert plain["findings"][0]["measured"] == [1.0] and "figures" not in plain


def test_run_refuses_an_unknown_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    _install(monkeypatch, _study(settings={"full": "a count"}))
    with pytest.raises(WidthwiseError, match="scale='quick' is not known; give 'full'"):
        studies.run("data-diet")


@pytest.mark.parametrize(
    "finding",
    [
        studies.Finding("other", ("one",), (1.0,), (1.0,), True, ""),
        studies.Finding("law", ("one",), (1.0, 2.0), (1.0,), True, ""),
        studies.Finding("law", ("one",), (1.0,), (1.0,), True, "", uncertainty=(0.1, 0.1)),
    ],
    ids=["other claim", "rows", "uncertainty"],
)
def test_run_refuses_findings_that_do_not_match_the_claims(monkeypatch, finding: studies.Finding) -> None:
    _install(monkeypatch, _study(measure=lambda scale: ([finding], {})))
    with pytest.raises(WidthwiseError, match="law"):
        studies.run("data-diet", progress=False)


@pytest.mark.parametrize(("shortfall", "code"), [("", 1), ("missed by one", 0)], ids=["unexplained", "stated"])
def test_only_a_stated_shortfall_leaves_the_exit_code_zero(monkeypatch, shortfall: str, code: int) -> None:
    claim = studies.Claim("law", "One is two.", "arithmetic", "exact", shortfall)
    finding = studies.Finding("law", ("one",), (2.0,), (1.0,), False, "counted")
    _install(monkeypatch, _study(claims=(claim,), measure=lambda scale: ([finding], {})))
    assert not studies.run("data-diet", progress=False).holds
    printed = CliRunner().invoke(app, ["study", "run", "data-diet"])
    assert printed.exit_code == code
    assert "does not hold" in printed.stdout and shortfall in printed.stdout
