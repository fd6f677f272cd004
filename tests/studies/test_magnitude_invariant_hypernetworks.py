"""The study of hypernetworks: exact claims hold, and fail on a broken encoding or a bias."""

import pytest
import torch

from widthwise.studies import _magnitude_invariant_hypernetworks_sizes as sizes
from widthwise.studies import _magnitude_invariant_hypernetworks_training as training


def verdicts(outcome) -> dict[str, bool]:
    return {finding.claim: finding.holds for finding in outcome[0]}


@pytest.mark.parametrize("experiment", sizes.EXPERIMENTS, ids=lambda e: e.__name__)
def test_exact_experiments_hold(experiment) -> None:
    assert all(verdicts(experiment("quick")).values())


def test_an_encoding_of_another_frequency_still_has_constant_norm_and_a_wrong_one_has_not(monkeypatch) -> None:
    right = sizes.encode
    monkeypatch.setattr(sizes, "encode", lambda z: right(2 * z))
    assert verdicts(sizes.constant_norm("quick"))["constant-norm"]
    monkeypatch.setattr(sizes, "encode", lambda z: right(z) + 0.01)
    assert not verdicts(sizes.constant_norm("quick"))["constant-norm"]


def test_an_offset_breaks_proportionality(monkeypatch) -> None:
    right = sizes.network

    def shifted(seed: int, **options):
        net = right(seed, **options)
        torch.nn.init.constant_(net.body[0].bias, 0.1)
        return net

    monkeypatch.setattr(sizes, "network", shifted)
    assert not any(verdicts(sizes.proportional("quick")).values())


@pytest.mark.slow
def test_training_claims_hold() -> None:
    assert all(verdicts(training.training("quick")).values())
