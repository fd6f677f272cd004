"""The mistakes that users make: each is refused, or named, in one clear sentence."""

import re

import numpy as np
import pytest
import torch
from torch import nn

from widthwise.core import DataError, ModelError, WidthwiseError
from widthwise.scaling import coordinate_check, parametrize, scale, transfer_check
from widthwise.scaling._runs import batch_of

WIDTHS = (16, 32, 64)
X = torch.randn(48, 6, generator=torch.Generator().manual_seed(2))
DATA = X, (X[:, 0] > 0).long()
LRS = [0.01, 0.1, 1.0]
CHECKS = {
    "coordinate": lambda build, data=DATA, widths=WIDTHS: coordinate_check(build, widths, data, seeds=2),
    "transfer": lambda build, data=DATA, widths=WIDTHS: transfer_check(build, widths, data, LRS, steps=3, seeds=1),
    "scale": lambda build, data=DATA, widths=WIDTHS: scale(build, widths, data, lrs=LRS, steps=3, seeds=1),
}


def build(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2))


def same(width: int) -> nn.Module:
    return build(16)


def deeper(width: int) -> nn.Module:
    return nn.Sequential(*[nn.Linear(6, 6) for _ in range(width // 16)], nn.Linear(6, 2))


def untrained(width: int) -> nn.Module:
    return build(width).requires_grad_(False)


def sentence(caught: pytest.ExceptionInfo[WidthwiseError]) -> str:
    text = str(caught.value)
    assert "\n" not in text and text.endswith(".")
    return text


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (same, "build(width) must use it"),
        (deeper, "the width may not change the depth"),
        (untrained, "nothing to train"),
    ],
)
def test_factories(check, make, message):
    with pytest.raises(ModelError, match=re.escape(message)) as caught:
        CHECKS[check](make)
    sentence(caught)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(("widths", "message"), [((16,), "1 width is too few"), ((16, 32), "2 widths are too few")])
def test_fewer_than_three_widths(check, widths, message):
    with pytest.raises(DataError, match=message) as caught:
        CHECKS[check](build, widths=widths)
    assert sentence(caught).endswith("give at least three.")


def test_fewer_than_three_learning_rates():
    with pytest.raises(DataError, match="1 learning rate is too few to see where the loss is lowest"):
        transfer_check(build, WIDTHS, DATA, [0.1])


@pytest.mark.parametrize("check", CHECKS)
def test_inputs_and_targets_of_different_lengths(check):
    with pytest.raises(DataError, match="there are 48 inputs but 47 targets; give one target for each input"):
        CHECKS[check](build, data=(X, DATA[1][:47]))


def test_a_mask_beside_the_inputs_is_no_batch():
    inputs = {"input_ids": X, "mask": torch.ones(6, 6)}
    assert batch_of((inputs, DATA[1]))[0] is inputs
    with pytest.raises(DataError, match="48 inputs but 5 targets"):
        batch_of((inputs, DATA[1][:5]))


class Spare(nn.Module):
    """One layer that the forward pass leaves out, one that is frozen."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body, self.spare = build(width), nn.Linear(width, 2)
        self.body[0].requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


def test_a_parameter_that_no_forward_pass_uses_is_named_and_trained_by_no_rule():
    groups = parametrize(Spare(32), lr=0.01, base=Spare(16), example_inputs=X[:2])
    assert "spare.weight is used in no forward pass; leave it out or give it a place." in groups.plan.notes
    check = coordinate_check(Spare, WIDTHS, DATA, seeds=2)
    notes = [note for note in check.notes if note.startswith("spare.weight ")]
    assert len(notes) == 1 and "is used in no forward pass" in notes[0]
    assert "note: spare.weight is used in no forward pass" in str(check)


def test_frozen_parameters_are_in_no_group_and_named_by_the_check():
    module = Spare(32)
    groups = parametrize(module, lr=0.01, base=Spare(16), example_inputs=X[:2])
    trained = {id(value) for group in groups for value in group["params"]}
    assert not trained & {id(value) for value in module.body[0].parameters()}
    assert "frozen" in str(groups)
    check = coordinate_check(Spare, WIDTHS, DATA, seeds=2)
    assert "body.0.weight is frozen: its initial scale is checked, its learning rate is not." in check.notes
    assert ("update", "body.0.weight") not in {(seen.observable, seen.place) for seen in check.observations}
    assert ("weight", "body.0.weight") in {(seen.observable, seen.place) for seen in check.observations}


@pytest.mark.parametrize(
    "schedule",
    [
        lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10, eta_min=0.05),
        lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=20),
    ],
    ids=["floor", "one cycle"],
)
def test_schedules_that_set_absolute_rates(schedule):
    with pytest.raises(DataError, match="the schedule sets absolute learning rates, which undoes") as caught:
        transfer_check(build, WIDTHS, DATA, LRS, optimizer="sgd", steps=10, seeds=1, schedule=schedule)
    sentence(caught)


def test_diverged_runs_stay_as_censored_points():
    check = transfer_check(build, WIDTHS, DATA, [1e-3, 1e-1, 1e30], optimizer="sgd", steps=5, seeds=1)
    assert np.isinf(check.losses[..., 2]).all() and check.runs == 9
    assert "3 of 9 runs diverged; they count as infinite losses." in str(check)
    result = scale(build, WIDTHS, DATA, lrs=[1e-3, 1e-2, 1e-1, 1e30], optimizer="sgd", steps=5, seeds=1)
    assert any("3 of 12 runs diverged; they count as censored." in warning for warning in result.warnings)
