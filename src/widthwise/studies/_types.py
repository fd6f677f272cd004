"""What a study is: a paper's claims, each with its prediction and its measurement side by side."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from widthwise.core import Figure, Value

Scale = Literal["quick", "full"]
State = Literal["works", "partly", "not yet"]


@dataclass(frozen=True)
class Claim(Value):
    """What a paper says, in a form that can fail.

    Attributes:
        key: short name, unique in the study.
        statement: the claim in one sentence.
        source: where it stands (paper, equation, table).
        tolerance: when a measurement counts as agreeing, in words.
        shortfall: where the claim is known not to hold here: by how much, and why if that is known.
    """

    key: str
    statement: str
    source: str
    tolerance: str
    shortfall: str = ""


@dataclass(frozen=True)
class Finding(Value):
    """How a claim fared: numbers side by side, and the verdict.

    Attributes:
        claim: key of the claim.
        predicted, measured: the numbers compared; a name for each row in `rows`.
        holds: whether every row is within the tolerance.
        detail: what was run, in one sentence.
        uncertainty: standard error of each measurement, zero where it is exact.
    """

    claim: str
    rows: tuple[str, ...]
    predicted: tuple[float, ...]
    measured: tuple[float, ...]
    holds: bool
    detail: str
    uncertainty: tuple[float, ...] = ()


@dataclass(frozen=True)
class StudyResult(Value):
    """What a run of a study found.

    Attributes:
        setting: what was run on what, and what differs from the paper's own setting.
    """

    slug: str
    title: str
    scale: Scale
    setting: str
    claims: tuple[Claim, ...]
    findings: tuple[Finding, ...]
    seconds: float
    figures: dict[str, Figure] = field(default_factory=dict, metadata={"plain": False})

    @property
    def holds(self) -> bool:
        """Whether every claim holds."""
        return all(finding.holds for finding in self.findings)

    @property
    def unexplained(self) -> tuple[Finding, ...]:
        """Findings that do not hold although their claim states no shortfall."""
        stated = {claim.key for claim in self.claims if claim.shortfall}
        return tuple(finding for finding in self.findings if not finding.holds and finding.claim not in stated)


@dataclass(frozen=True)
class Study:
    """One paper's study; each module of this package defines one as ``STUDY``.

    Attributes:
        slug: name of the paper's fact sheet, and of the module with underscores.
        state: ``"works"``, or ``"partly"`` with `missing` saying what is not there yet.
        settings: per scale, what is run and how it differs from the paper.
        measure: runs everything; returns findings in the order of the claims, and figures by name.
    """

    slug: str
    state: State
    claims: tuple[Claim, ...]
    settings: dict[Scale, str]
    measure: Callable[[Scale], tuple[Sequence[Finding], dict[str, Figure]]]
    missing: str = ""
