"""`forecast.json`: strict, complete, and as its schema says."""

import copy
import json

import jsonschema
import pytest

from widthwise.report import json_schema, write_json

REQUIRED = {
    "network": {"parameters", "weights", "criticality", "rules"},
    "network.weights": {"name", "role", "fan_in", "fan_out", "init_std"},
    "network.criticality": {"chi", "verdict"},
    "network.rules": {"node", "rule", "error"},
    "task": {"samples", "inputs", "outputs", "alpha", "alpha_stderr", "beta", "beta_stderr", "noise"},
    "learning_curve": {
        "n",
        "ridge",
        "ridge_value",
        "predicted_mse",
        "predicted_mse_low",
        "predicted_mse_high",
        "predicted_accuracy",
        "measured_mse",
        "measured_mse_stderr",
        "measured_accuracy",
        "extrapolated",
    },
    "width_curve": {"width", "n", "ridge_value", "predicted_mse", "measured_mse", "measured_mse_stderr"},
    "overfitting": {"cost", "verdict", "optimal_fitting_ratio"},
    "training": {"width", "steps", "lr", "test_mse", "test_accuracy", "kernel_mse"},
    "advice": {"action", "before", "after", "confidence", "because"},
}
"""What version 1 promises."""
ADDED = ("fluctuations", "dynamics", "scaling", "scaling_notes")
"""What came later: not in every file of version 1."""


def read(path):
    return json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_every_case_is_strict_json_and_fits_the_schema(case, tmp_path):
    validator = jsonschema.Draft202012Validator(json_schema())
    validator.check_schema(json_schema())
    validator.validate(read(write_json(case, tmp_path / "forecast.json")))


@pytest.mark.parametrize("path", REQUIRED)
def test_promised_fields_are_there_and_required(path, forecast, tmp_path):
    found, schema = read(write_json(forecast, tmp_path / "forecast.json")), json_schema()
    for name in path.split("."):
        found = found[name]
        schema = resolved(schema)["properties"][name]
    rows = found if isinstance(found, list) else [found]
    assert rows and all(REQUIRED[path] <= set(row) for row in rows)
    assert REQUIRED[path] <= set(resolved(schema)["required"])


def test_files_from_before_the_added_sections_still_fit(forecast):
    plain = forecast.to_dict()
    for name in ADDED:
        del plain[name]
    del plain["network"]["criticality"]["depth"], plain["network"]["kernel_rule"], plain["network"]["kernel_error"]
    jsonschema.validate(plain, json_schema())
    assert not set(ADDED) & set(json_schema()["required"])


@pytest.mark.parametrize("name", ["fluctuations", "dynamics"])
def test_added_sections_are_read_as_strictly(name, forecast):
    plain = copy.deepcopy(forecast.to_dict())
    plain[name]["new"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(plain, json_schema())


def resolved(schema):
    schema = schema.get("items", schema)
    reference = schema.get("$ref")
    return json_schema()["$defs"][reference.rsplit("/", 1)[1]] if reference else schema


@pytest.mark.parametrize(
    "spoil",
    [
        lambda plain: plain.pop("advice"),
        lambda plain: plain.update(schema_version=2),
        lambda plain: plain.update(new=1),
        lambda plain: plain["learning_curve"][0].update(ridge="none"),
        lambda plain: plain["task"].update(alpha="1.3"),
        lambda plain: plain["training"][0].pop("kernel_mse"),
    ],
)
def test_schema_refuses_what_it_should(spoil, forecast):
    plain = copy.deepcopy(forecast.to_dict())
    spoil(plain)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(plain, json_schema())


def test_numbers_survive(forecast, tmp_path):
    found = read(write_json(forecast, tmp_path / "forecast.json"))
    assert [row["predicted_mse"] for row in found["learning_curve"]] == [
        p.predicted_mse for p in forecast.learning_curve
    ]
    assert found["width_surface"]["mse"][1][2] == forecast.width_surface.mse[1][2]
