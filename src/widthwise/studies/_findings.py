"""What studies share: comparing numbers with numbers, and running experiments one after another."""

from collections.abc import Callable, Sequence

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from widthwise.core import Figure, progress
from widthwise.studies._types import Claim, Finding, Scale

Outcome = tuple[Sequence[Finding], dict[str, Figure]]
Experiment = Callable[[Scale], Outcome]
Numbers = Sequence | np.ndarray


def floats(values: Numbers) -> tuple[float, ...]:
    """Plain numbers of an array, in order."""
    return tuple(float(value) for value in np.asarray(values, dtype=float).ravel())


def compare(
    claim: str,
    rows: Sequence[str],
    predicted: Numbers,
    measured: Numbers,
    detail: str,
    *,
    relative: float = 0.0,
    absolute: float = 0.0,
    uncertainty: Numbers = (),
    errors: float = 2.0,
    also: bool = True,
) -> Finding:
    """A finding that holds where every row satisfies
    ``|measured - predicted| <= absolute + relative |predicted| + errors * uncertainty``, and `also`."""
    p, m = np.asarray(predicted, dtype=float), np.asarray(measured, dtype=float)
    u = np.asarray(uncertainty, dtype=float) if len(uncertainty) else np.zeros_like(p)
    inside = np.abs(m - p) <= absolute + relative * np.abs(p) + errors * u  # false for NaN
    holds = bool(inside.all()) and bool(also)
    return Finding(claim, tuple(rows), floats(p), floats(m), holds, detail, floats(uncertainty))


def in_order(study: str, claims: Sequence[Claim], experiments: Sequence[Experiment]) -> Experiment:
    """What runs every experiment: findings in the order of the claims, figures together.

    The many small matrices of the quick scale are several times faster on one thread, above all on a busy machine.
    """

    def measure(scale: Scale) -> Outcome:
        findings: dict[str, Finding] = {}
        figures: dict[str, Figure] = {}
        threads = threadpool_limits(limits=1 if scale == "quick" else None)
        with threads, progress(f"experiments of {study}", float(len(experiments))) as advance:
            for experiment in experiments:
                found, drawn = experiment(scale)
                findings.update({finding.claim: finding for finding in found})
                figures.update(drawn)
                advance(1)
        return [findings[claim.key] for claim in claims], figures

    return measure
