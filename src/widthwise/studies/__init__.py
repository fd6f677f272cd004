"""One study per paper: its claims, each with prediction and measurement side by side."""

from widthwise.studies._catalogue import PAPERS, Paper
from widthwise.studies._registry import StudyInfo, available, get, run
from widthwise.studies._types import Claim, Finding, Scale, State, Study, StudyResult

__all__ = [
    "PAPERS",
    "Claim",
    "Finding",
    "Paper",
    "Scale",
    "State",
    "Study",
    "StudyInfo",
    "StudyResult",
    "available",
    "get",
    "run",
]
