"""Generated tasks against the law that they are drawn from."""

import math

import numpy as np
import pytest
import torch

from widthwise.core import DataError
from widthwise.data import class_means, load


def residual_variance(data) -> float:
    """Of a least-squares fit on the training part."""
    x, y = data.inputs.double(), data.targets.double()
    solution = torch.linalg.lstsq(x, y).solution
    return float(((y - x @ solution) ** 2).sum() / (len(x) - x.shape[1]))


def test_a_linear_teacher_is_found_by_least_squares():
    data = load("teacher:activation=linear,inputs=10,outputs=2")
    x, y = data.inputs.double(), data.targets.double()
    solution = torch.linalg.lstsq(x, y).solution
    torch.testing.assert_close(data.test.inputs.double() @ solution, data.test.targets.double(), atol=1e-5, rtol=1e-5)


def test_noise_has_the_variance_that_was_asked_for():
    samples, inputs, noise = 20000, 10, 0.5
    data = load(f"teacher:activation=linear,inputs={inputs},samples={samples},noise={noise}")
    # The estimate of a variance from m degrees of freedom has relative standard error sqrt(2 / m).
    assert residual_variance(data) == pytest.approx(noise**2, rel=5 * math.sqrt(2 / (samples - inputs)))


def test_teacher_inputs_are_standard_normal_and_kept_so():
    x = load("teacher:samples=20000,inputs=5").inputs.double()
    covariance = x.T @ x / len(x)
    assert float((covariance - torch.eye(5)).abs().max()) < 5 * math.sqrt(2 / len(x))


def test_the_expected_output_variance_of_a_linear_teacher_is_one():
    # Var(y) = |W1' w2|^2 / (...) is 1 on average over teachers.
    variances = [
        float(load(f"teacher:activation=linear,inputs=20,width=50,outputs=1,samples=2000,seed={s}").targets.var())
        for s in range(60)
    ]
    assert np.mean(variances) == pytest.approx(1, abs=5 * np.std(variances) / math.sqrt(60))


@pytest.mark.parametrize("name", ["teacher:samples=50,test=20", "gaussian-classes:samples=50,test=20"])
def test_generated_data_follow_the_seed_and_parts_differ(name):
    one, same, other = load(name), load(name), load(name, seed=1)
    assert torch.equal(one.inputs, same.inputs) and torch.equal(one.targets, same.targets)
    assert not torch.equal(one.inputs, other.inputs)
    assert not torch.equal(one.inputs[:20], one.test.inputs)
    assert torch.equal(load(name + ",seed=1").inputs, other.inputs)


def test_class_means_have_the_covariance_of_the_tree():
    inputs, depth, branching, separation, decay = 20000, 3, 2, 2.0, 0.5
    means = class_means(inputs, depth, branching, separation, decay, seed=0)
    found = (means @ means.T).numpy()
    expected = np.zeros((8, 8))
    for a in range(8):
        for b in range(8):
            shared = [level for level in range(depth) if a >> (depth - 1 - level) == b >> (depth - 1 - level)]
            expected[a, b] = sum(separation**2 * decay**level for level in shared)
    np.testing.assert_allclose(found, expected, atol=5 * expected.max() * math.sqrt(2 / inputs))


def test_gaussian_classes_lie_around_their_means():
    options = {"inputs": 6, "depth": 2, "branching": 3, "separation": 4.0, "decay": 0.5}
    text = ",".join(f"{key}={value}" for key, value in options.items())
    data = load(f"gaussian-classes:samples=18000,{text}")
    means = class_means(**options, seed=0)
    residual = data.inputs.double() - means[data.targets]
    assert data.outputs == 9
    assert float(residual.mean(0).abs().max()) < 5 / math.sqrt(len(data))
    assert float((residual.var(0) - 1).abs().max()) < 5 * math.sqrt(2 / len(data))


def test_label_noise_replaces_the_share_that_was_asked_for():
    base = "gaussian-classes:samples=20000,test=5000,label_noise="
    clean, noisy = load(base + "0"), load(base + "0.2")
    assert torch.equal(clean.inputs, noisy.inputs)
    for one, other in ((clean, noisy), (clean.test, noisy.test)):
        share = float((one.targets != other.targets).double().mean())
        assert share == pytest.approx(0.2, abs=5 * math.sqrt(0.2 * 0.8 / len(one)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("teacher:colour=3", ["'colour'", "inputs", "noise"]),
        ("teacher:inputs=many", ["inputs", "'many'", "whole number"]),
        ("teacher:noise=-1", ["noise=-1.0", "at least 0"]),
        ("teacher:activation=swish", ["'swish'", "relu, tanh, erf, linear"]),
        ("teacher:samples=0", ["samples=0", "at least 1"]),
        ("gaussian-classes:label_noise=2", ["label_noise=2.0", "between 0 and 1"]),
        ("gaussian-classes:depth=12", ["samples=2000", "4096 classes need at least 8192"]),
        ("mnist1d:lots", ["'lots'", "whole number"]),
        ("mnist1d:3", ["3", "at least 20"]),
        ("digits:3", ["digits", "no options", "'3'"]),
    ],
)
def test_options_that_do_not_work_are_named(text, words):
    with pytest.raises(DataError) as error:
        load(text)
    assert all(word in str(error.value) for word in words), error.value
