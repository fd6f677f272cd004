"""Agreement with microsoft/mup 1.0.0 on networks like its tests' (oracle values: benchmarks/peers/mup)."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.scaling.mup_cases import BASE, CASES, example
from widthwise.scaling import parametrize

ORACLE = json.loads((Path(__file__).parent / "oracles" / "mup.json").read_text(encoding="utf-8"))
ROWS = [pytest.param(row, id=f"{row['case']}-{row['width']}") for row in ORACLE["rows"]]


def made(case: str, width: int, optimizer: str):  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    module = CASES[case](width)
    torch.manual_seed(1)
    groups = parametrize(
        module,
        "mup",
        lr=1.0,
        optimizer=optimizer,
        weight_decay=1.0,
        base=CASES[case](BASE),
        example_inputs=example(case),
    )
    return module, groups


@pytest.mark.parametrize("row", ROWS)
def test_every_factor_is_mups(row):
    case, width = row["case"], row["width"]
    module, groups = made(case, width, "adamw")
    for plan in groups.plan.rows:
        assert plan.init_ratio == pytest.approx(row["init_ratio"][plan.name], rel=1e-4), plan.name
        lr, decay = row["factors"]["adamw"][plan.name]
        assert (plan.lr, plan.weight_decay) == pytest.approx((lr, decay)), plan.name
    readout = next(plan for plan in groups.plan.rows if plan.role == "output")
    assert readout.multiplier == pytest.approx(row["output_multiplier"])
    with torch.no_grad():
        ours = module.eval()(example(case)).double().flatten()
    assert torch.allclose(ours, torch.tensor(row["outputs"]).double(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("case", list(CASES))
def test_learning_rates_and_decay_of_other_optimisers_are_mups(case, optimizer):
    row = next(row for row in ORACLE["rows"] if row["case"] == case and row["width"] == 64)
    _, groups = made(case, 64, optimizer)
    for plan in groups.plan.rows:
        assert (plan.lr, plan.weight_decay) == pytest.approx(row["factors"][optimizer][plan.name]), plan.name


@pytest.mark.parametrize("case", list(CASES))
def test_at_the_base_width_outputs_are_bit_equal(case):
    module, _ = made(case, BASE, "adamw")
    torch.manual_seed(0)
    plain: nn.Module = CASES[case](BASE)
    assert torch.equal(module.eval()(example(case)), plain.eval()(example(case)))
