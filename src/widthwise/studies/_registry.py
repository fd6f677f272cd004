"""Studies by name: a paper has one when its module exists."""

import difflib
import importlib
import importlib.util
import time
from dataclasses import dataclass

from widthwise.core import Value, WidthwiseError, seeded
from widthwise.core import progress as progress_bar
from widthwise.studies._catalogue import PAPERS
from widthwise.studies._types import Finding, Scale, State, Study, StudyResult


@dataclass(frozen=True)
class StudyInfo(Value):
    """What `available` says of one paper.

    Attributes:
        state: ``"works"``, ``"partly"`` or ``"not yet"``.
        missing: what a study in state ``"partly"`` does not show yet.
    """

    slug: str
    title: str
    state: State
    missing: str = ""


def available() -> tuple[StudyInfo, ...]:
    """Every paper, in alphabetical order of its slug, and whether it has a study yet.

    >>> [info.state for info in available() if info.slug == "more-is-better-rf"]
    ['works']
    """
    return tuple(_info(paper.slug, paper.title) for paper in PAPERS)


def get(slug: str) -> Study:
    """The study of the paper called `slug`.

    Raises:
        WidthwiseError: no paper has that name, or its study is not written yet.

    >>> get("more-is-better-rf").state
    'works'
    """
    titles = {paper.slug: paper.title for paper in PAPERS}
    if slug not in titles:
        near = difflib.get_close_matches(slug, titles, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else "ww.studies.available() lists them all."
        raise WidthwiseError(f"no study is called {slug!r}; {hint}")
    study = _load(slug)
    if study is None:
        ready = [info.slug for info in available() if info.state != "not yet"]
        raise WidthwiseError(f"the study {slug!r} is not written yet; those that run are {', '.join(ready)}.")
    return study


def run(slug: str, scale: Scale = "quick", progress: bool = True) -> StudyResult:
    """Run a study: every claim of the paper, predicted and measured.

    Args:
        slug: name of the paper, one of those that `available` lists.
        scale: ``"quick"`` (within two minutes on two CPU cores) or ``"full"`` (the paper's setting or the nearest).
        progress: whether to show a bar on a terminal.

    Raises:
        WidthwiseError: no such study or scale, or the study did not report on each of its claims in order.
    """
    study = get(slug)
    if scale not in study.settings:
        raise WidthwiseError(f"scale={scale!r} is not known; give {' or '.join(map(repr, study.settings))}.")
    start = time.perf_counter()
    with progress_bar(f"study {slug} ({scale})", 1.0, show=progress) as advance, seeded(0, slug):
        findings, figures = study.measure(scale)
        advance(1)
    _check(study, findings := tuple(findings))
    title = next(paper.title for paper in PAPERS if paper.slug == slug)
    seconds = time.perf_counter() - start
    return StudyResult(slug, title, scale, study.settings[scale], study.claims, findings, seconds, figures)


def _info(slug: str, title: str) -> StudyInfo:
    study = _load(slug)
    return StudyInfo(slug, title, "not yet") if study is None else StudyInfo(slug, title, study.state, study.missing)


def _load(slug: str) -> Study | None:
    name = f"{__package__}.{slug.replace('-', '_')}"
    return importlib.import_module(name).STUDY if importlib.util.find_spec(name) else None


def _check(study: Study, findings: tuple[Finding, ...]) -> None:
    wanted, found = [claim.key for claim in study.claims], [finding.claim for finding in findings]
    if wanted != found:
        raise WidthwiseError(
            f"study {study.slug} reports on {', '.join(found)} but claims {', '.join(wanted)}; "
            "its measure() must return one finding per claim, in order."
        )
    for finding in findings:
        lengths = {len(finding.rows), len(finding.predicted), len(finding.measured)}
        if len(lengths) > 1 or (finding.uncertainty and len(finding.uncertainty) != len(finding.rows)):
            raise WidthwiseError(
                f"finding {finding.claim} of study {study.slug} has {len(finding.rows)} rows, "
                f"{len(finding.predicted)} predictions and {len(finding.measured)} measurements; give one of each."
            )
