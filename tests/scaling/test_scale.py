"""`scale`: what it recommends, what it warns of, and how it goes on after an interruption."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from widthwise.core import DataError, ModelError
from widthwise.scaling import ScaleResult, parametrize, scale
from widthwise.scaling import _transfer_check as transfer_module
from widthwise.scaling._ledger import Ledger, setting_key

X = torch.randn(128, 6, generator=torch.Generator().manual_seed(1))
DATA = X, (X[:, 0] * X[:, 1] > 0).long()
WIDTHS = (16, 32, 64)
FAST = {"steps": 8, "seeds": 1, "check_seeds": 2, "lrs": [2.0**k for k in range(-9, -3)]}


def build(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2))


@pytest.fixture(scope="module")
def result() -> ScaleResult:
    return scale(build, WIDTHS, DATA, target_width=1024, weight_decay=0.1, **FAST)


def test_the_recommendation_is_what_parametrize_sets_at_the_target(result):
    groups = parametrize(
        build(1024), lr=result.base_lr, base=build(16), example_inputs=X[:2], weight_decay=0.1, dry_run=True
    )
    for row in result.plan.rows:
        other = groups.plan[row.name]
        assert (row.lr, row.weight_decay, row.eps) == pytest.approx((other.lr, other.weight_decay, other.eps))
    assert result.plan["2.weight"].lr == pytest.approx(result.base_lr / 64)
    assert result.plan["2.weight"].weight_decay == pytest.approx(6.4)


def test_the_base_rate_is_the_weighted_mean_of_the_optima(result):
    places = np.array([found.octaves for found in result.transfer.optima])
    errors = np.array([found.stderr for found in result.transfer.optima])
    assert np.log2(result.base_lr) == pytest.approx(np.average(places, weights=errors**-2))
    assert result.lr_stderr_octaves >= (errors**-2).sum() ** -0.5 - 1e-12


def test_the_file_holds_settings_verdicts_and_the_drift_with_its_interval(result, tmp_path):
    held = json.loads(result.save(tmp_path).read_text())
    assert held["target_width"] == 1024
    assert held["verdict"]["broken_rules"] == []
    assert held["drift"]["low"] <= held["drift"]["octaves_per_doubling"] <= held["drift"]["high"]
    assert [row["name"] for row in held["weights"]] == [name for name, _ in build(16).named_parameters()]
    assert any("4.0 doublings beyond" in warning for warning in held["warnings"])


def test_nothing_is_built_wider_than_needed_and_trained(monkeypatch):
    seen = []

    def watched(width: int) -> nn.Module:
        seen.append(width)
        return build(width)

    scale(watched, WIDTHS, DATA, target_width=2048, **FAST)
    assert max(seen) == 2048 and seen.count(2048) < len(WIDTHS) + 2


def test_finished_runs_are_kept_and_not_run_again(tmp_path, monkeypatch):
    done = []
    real = transfer_module._final_loss

    def stopping(*arguments):  # type: ignore[no-untyped-def]
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(real(*arguments))
        return done[-1]

    monkeypatch.setattr(transfer_module, "_final_loss", stopping)
    with pytest.raises(KeyboardInterrupt):
        scale(build, WIDTHS, DATA, keep=tmp_path, **FAST)
    assert len(json.loads((tmp_path / "sweeps.json").read_text())["losses"]) == 5
    count = []
    monkeypatch.setattr(transfer_module, "_final_loss", lambda *a: count.append(1) or real(*a))
    resumed = scale(build, WIDTHS, DATA, keep=tmp_path, **FAST)
    assert len(count) == 3 * 6 - 5
    monkeypatch.undo()
    assert np.array_equal(resumed.transfer.losses, scale(build, WIDTHS, DATA, **FAST).transfer.losses)


def test_runs_of_other_settings_are_not_mixed_in(tmp_path):
    ledger = Ledger(tmp_path / "sweeps.json", setting_key("a"))
    ledger.put(16, 0, 0.1, float("inf"))
    assert Ledger(ledger.path, setting_key("a")).get(16, 0, 0.1) == float("inf")
    assert Ledger(ledger.path, setting_key("b")).get(16, 0, 0.1) is None
    ledger.path.write_text("[]")
    with pytest.raises(DataError, match="is no ledger"):
        Ledger(ledger.path, setting_key("a"))


def test_the_key_sees_data_and_settings():
    keys = {setting_key(X, 1), setting_key(X + 1, 1), setting_key(X, 2), setting_key({"a": X}), setting_key({"b": X})}
    assert len(keys) == 5


def test_a_sweep_whose_best_rate_lies_at_the_end_is_widened():
    found = scale(build, WIDTHS, DATA, lr=2.0**-16, steps=8, seeds=1, check_seeds=2)
    assert found.transfer.lrs[-1] > 2.0**-12
    assert found.transfer.lrs[0] == 2.0**-20


def deeper(width: int) -> nn.Module:
    return nn.Sequential(*[nn.Linear(6, 6) for _ in range(width // 16)], nn.Linear(6, 2))


@pytest.mark.parametrize(
    ("make", "widths", "settings", "kind", "message"),
    [
        (build, (16, 32), {}, DataError, "2 widths are too few"),
        (build, (0, 16, 32), {}, DataError, "width 0 is no width"),
        (build, WIDTHS, {"scheme": "mupp"}, DataError, "'mupp' is not one of"),
        (build, WIDTHS, {"optimizer": "adamq"}, DataError, "'adamq' is not known"),
        (build, WIDTHS, {"lr": float("nan")}, DataError, "lr is nan"),
        (build, WIDTHS, {"lrs": [1e30, 2e30, 4e30], "optimizer": "sgd"}, DataError, "every learning rate"),
        (lambda width: build(16), WIDTHS, {}, ModelError, "must use it"),
        (deeper, WIDTHS, {}, ModelError, "may not change the depth"),
    ],
)
def test_bad_input_is_one_sentence(make, widths, settings, kind, message):
    with pytest.raises(kind, match=message) as caught:
        scale(make, widths, DATA, **{**FAST, **settings})
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
