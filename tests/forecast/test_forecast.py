"""The whole job: repeatable, honest about its kernel, and harmless to the user's module."""

import copy
import json
import re
import sys
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from torch import nn

import widthwise as ww
from tests.forecast.conftest import SMALL, small_net
from widthwise.core import DataError, ModelError, ResourceError, UnsupportedOperation, _memory
from widthwise.report import ForecastReport, json_schema


def comparable(report: ForecastReport) -> dict[str, Any]:
    """Everything but wall times."""
    plain = report.to_dict()
    del plain["seconds"]
    for row in plain["training"]:
        del row["seconds"]
    return plain


def test_equal_seeds_give_equal_forecasts_and_others_do_not(report: ForecastReport) -> None:
    again = comparable(ww.forecast(small_net, "digits", **SMALL))
    assert again == comparable(report)
    other = comparable(ww.forecast(small_net, "digits", **(SMALL | {"seed": 4})))
    for section in ("task", "learning_curve", "width_curve", "overfitting", "training", "advice"):
        assert other[section] != again[section]


def test_the_saved_forecast_keeps_its_schema(report: ForecastReport, tmp_path: Path) -> None:
    page = report.save(tmp_path)
    found = json.loads((tmp_path / "forecast.json").read_text())
    jsonschema.validate(found, json_schema())
    assert found == report.to_dict() and page.is_file()
    assert "96" in report.summary()


def test_regression_and_a_bare_module_keep_the_schema() -> None:
    module = nn.Sequential(nn.Linear(10, 30), nn.ReLU(), nn.Linear(30, 1))
    found = ww.forecast(module, "diabetes", **SMALL)
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    jsonschema.validate(plain, json_schema())
    assert {point.width for point in found.width_curve} == {30}
    assert all(point.measured_accuracy is None and point.predicted_accuracy is None for point in found.learning_curve)
    assert found.settings["width"] is None
    measured = [p.measured_mse for p in found.learning_curve if p.measured_mse is not None and p.ridge == "optimal"]
    assert 0.2 * found.task.target_power < measured[-1] < 1.2 * found.task.target_power


class WithState(nn.Module):
    """Batch norm and dropout: what training would change."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Dropout(0.1))
        self.head = nn.Linear(20, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


@pytest.mark.parametrize("mode", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_users_module_comes_back_untouched(mode: bool) -> None:
    module = WithState().train(mode)
    module.body[4].eval()
    before, modes = copy.deepcopy(module.state_dict()), [part.training for part in module.modules()]
    found = ww.forecast(module, "digits", **SMALL)
    assert found.training and found.training[0].steps > 0
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert [part.training for part in module.modules()] == modes
    assert all(p.grad is None for p in module.parameters())


def without_rule(width: int = 8) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, width, 3), nn.Softmax2d(), nn.ReLU(), nn.Flatten(), nn.Linear(36 * width, 10)
    )  # fmt: skip


class Branching(nn.Module):
    """Control flow that depends on the data: `torch.export` cannot trace it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 20), nn.Linear(20, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.first(x.flatten(1))
        return self.last(torch.relu(-hidden if float(hidden.sum()) > 1e9 else hidden))


@pytest.mark.parametrize(
    ("model", "kernel", "words"),
    [
        (without_rule, "monte-carlo", "softmax.*in module '1'"),
        pytest.param(without_rule(), "empirical", "softmax.*in module '1'", marks=pytest.mark.slow),
        pytest.param(Branching, "monte-carlo", "cannot trace Branching", marks=pytest.mark.slow),
        (Branching(), "empirical", "cannot trace Branching"),
    ],
)
def test_without_a_rule_finite_networks_stand_in_and_it_says_so(
    model: Any, kernel: str, words: str, capfd: pytest.CaptureFixture
) -> None:
    found = ww.forecast(model, "digits", **(SMALL | {"training_seconds": 0}))
    assert found.network.kernel == kernel
    assert found.network.criticality.verdict == "unknown"
    assert re.search(words, found.network.kernel_note) and re.search(words, found.notes[0])
    assert {row.rule for row in found.network.rules} <= {"sampled", "fallback"}
    assert capfd.readouterr() == ("", "")
    jsonschema.validate(json.loads(json.dumps(found.to_dict(), allow_nan=False)), json_schema())


def test_an_operation_without_a_rule_is_named_with_its_place() -> None:
    with pytest.raises(UnsupportedOperation, match=r"softmax.* in module '1'.*kernel='empirical'") as caught:
        ww.forecast(without_rule, "digits", **SMALL, kernel="infinite")
    assert caught.value.module_path == "1"


def test_a_single_module_has_no_monte_carlo_kernel() -> None:
    with pytest.raises(ModelError, match="cannot be drawn anew"):
        ww.forecast(without_rule(), "digits", **SMALL, kernel="monte-carlo")


@pytest.mark.slow
def test_the_finite_kernel_agrees_with_the_infinite_one() -> None:
    """Wide networks of one architecture: the two kernels give the same curve to a few per cent."""
    wanted = SMALL | {"training_seconds": 0, "width": 512}
    exact, finite = (
        ww.forecast(small_net, "digits", **wanted, kernel=kernel, parametrization="standard")
        for kernel in ("infinite", "monte-carlo")
    )
    for a, b in zip(exact.learning_curve, finite.learning_curve, strict=True):
        assert a.predicted_mse == pytest.approx(b.predicted_mse, rel=0.08)


def test_memory_is_predicted_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_work(*_: object, **__: object) -> None:
        raise AssertionError("work started")

    monkeypatch.setattr(sys.modules["widthwise.forecast._forecast"], "compute_grams", no_work)
    monkeypatch.setattr(_memory, "available_bytes", lambda: 550_000)  # enough for the data, not for the matrices
    with pytest.raises(ResourceError, match=r"a forecast from 96 samples needs about .* GiB .*fewer samples"):
        ww.forecast(small_net, "digits", **SMALL)


X = np.random.default_rng(0).standard_normal((200, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)


def with_value(value: float) -> np.ndarray:
    inputs = X.copy()
    inputs[3, 1] = value
    return inputs


@pytest.mark.parametrize(
    ("inputs", "targets", "words"),
    [
        (with_value(np.nan), Y, "NaN"),
        (with_value(np.inf), Y, "infinite"),
        (X[:0], Y[:0], "empty"),
        (X, 0 * Y, "one class only"),
        (X, Y[:-1], "200 inputs and 199 targets"),
        (X, np.where(Y == 1, np.nan, 0.0), "NaN or infinite targets"),
        (X[:40], Y[:40], "40 examples"),
    ],
)
def test_bad_data_is_refused_however_it_comes(inputs: np.ndarray, targets: np.ndarray, words: str) -> None:
    with pytest.raises(DataError, match=words):
        ww.forecast("mlp", (inputs, targets), **SMALL)


def test_a_data_set_value_is_checked_too() -> None:
    data = ww.data.DataSet("made", torch.from_numpy(with_value(np.nan)), torch.from_numpy(Y), ("a", "b"))
    with pytest.raises(DataError, match="NaN"):
        ww.forecast("mlp", data, **SMALL)


def test_labels_may_be_text() -> None:
    names = np.array(["cat", "dog"])[Y]
    found = ww.forecast("mlp", (X, names), **SMALL, width=16)
    assert found.data["classes"] == ["cat", "dog"]
    numbers = ww.forecast("mlp", (X, Y), **SMALL, width=16)
    assert comparable(found) | {"data": 0} == comparable(numbers) | {"data": 0}


def test_kept_stages_give_the_same_forecast(tmp_path: Path, report: ForecastReport) -> None:
    wanted = SMALL | {"keep": tmp_path}
    first = comparable(ww.forecast(small_net, "digits", **wanted))
    assert first == comparable(report)
    (kernel,) = tmp_path.glob("*/kernel.safetensors")
    kernel.write_bytes(kernel.read_bytes()[:100])
    again = comparable(ww.forecast(small_net, "digits", **wanted))
    assert "earlier run were reused" in again["notes"][-1] and "kernel" not in again["notes"][-1].split("reused")[1]
    again["notes"] = again["notes"][:-1]
    assert again == first


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet", "transformer"])
def test_built_in_models(name: str) -> None:
    found = ww.forecast(name, "digits", **SMALL, width=16)
    jsonschema.validate(json.loads(json.dumps(found.to_dict(), allow_nan=False)), json_schema())
    rows = [row for row in found.learning_curve if row.measured_mse is not None and row.n >= 24]
    ratios = [row.predicted_mse / row.measured_mse for row in rows]
    assert 0.7 < np.median(ratios) < 1.4
