"""The study of the spectral condition: its claims hold, and fail where a rule is broken on purpose."""

from dataclasses import replace

import numpy as np
import pytest

from widthwise.studies import _spectral_condition_matrices as matrices
from widthwise.studies import _spectral_condition_networks as networks
from widthwise.studies import _spectral_condition_transfer as transfer


def verdicts(outcome) -> dict[str, bool]:
    return {finding.claim: finding.holds for finding in outcome[0]}


@pytest.fixture
def small(monkeypatch):
    """Narrow networks and few seeds; measured afresh."""
    monkeypatch.setitem(networks.WIDTHS, "quick", (64, 128))
    monkeypatch.setitem(networks.SEEDS, "quick", 6)
    networks.measured.cache_clear()
    yield monkeypatch
    networks.measured.cache_clear()


@pytest.mark.parametrize("experiment", matrices.EXPERIMENTS, ids=lambda e: e.__name__)
def test_claims_about_matrices_hold(experiment) -> None:
    assert all(verdicts(experiment("quick")).values())


def test_a_rough_orthogonalisation_is_seen(monkeypatch) -> None:
    right = matrices.newton_schulz
    monkeypatch.setattr(matrices, "newton_schulz", lambda matrix, **options: right(matrix, 3, **options))
    assert not verdicts(matrices.newton("quick"))["newton-schulz"]


def test_changes_are_stable_and_the_table_is_met(small) -> None:
    assert all(verdicts(networks.changes("quick")).values())


@pytest.mark.parametrize("power", [-1, 1])
def test_a_rate_off_by_the_width_is_seen(small, power) -> None:
    row = networks.TABLE["muP, sign"]
    wrong = replace(row, update=lambda g, i, o: (max(i, o) / 64) ** power * row.update(g, i, o))
    small.setitem(networks.TABLE, "muP, sign", wrong)
    assert not verdicts(networks.changes("quick"))["stable-changes"]
    assert not verdicts(networks.norms("quick"))["natural-norms"]


def test_only_the_growing_layers_change_more_in_wider_networks() -> None:
    """A sign update moves outputs by rate times fan-in: constant at the input, doubled with the width above."""
    setting = transfer.Setting("digits", (64, 256), 1, 1)
    narrow, wide = (transfer.relative_changes(setting, width) for width in setting.widths)
    octaves = np.log2(wide / narrow)
    assert octaves[0] == pytest.approx(0, abs=0.3)
    assert octaves[1:] == pytest.approx(2, abs=0.6)
    lower, upper = transfer.standard_range(setting)
    assert lower == -2 and -2 < upper < 0
    shares = narrow / narrow.sum()
    assert upper == pytest.approx(-np.log2(shares @ 2**octaves))


@pytest.mark.slow
@pytest.mark.parametrize("experiment", transfer.EXPERIMENTS, ids=lambda e: e.__name__)
def test_sweeps_report_drifts_with_their_errors(experiment, monkeypatch) -> None:
    monkeypatch.setitem(transfer.ADAM, "quick", transfer.Setting("digits", (16, 32, 64), 20, 2))
    monkeypatch.setitem(transfer.OTHERS, "quick", transfer.Setting("digits", (16, 32, 64), 20, 2))
    findings, figures = experiment("quick")
    assert all(error > 0 for finding in findings for error in finding.uncertainty)
    assert len(figures) == 1
