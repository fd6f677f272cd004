"""The study of layer balance: exact parts hold, and fail on a broken formula."""

import numpy as np
import pytest

from widthwise.studies import _get_rich_quick_exact as exact
from widthwise.studies import _get_rich_quick_networks as networks
from widthwise.theory import _unbalanced_metric as metric


def verdicts(outcome) -> dict[str, bool]:
    return {finding.claim: finding.holds for finding in outcome[0]}


@pytest.mark.parametrize("experiment", exact.EXPERIMENTS, ids=lambda experiment: experiment.__name__)
def test_exact_experiments_hold(experiment):
    assert all(verdicts(experiment("quick")).values())


def test_a_wrong_metric_is_found(monkeypatch):
    right = exact.function_metric
    monkeypatch.setattr(exact, "function_metric", lambda beta, delta: right(beta, -delta))
    assert not verdicts(exact.movement("quick"))["kernel-movement"]


def test_a_wrong_bias_is_found(monkeypatch):
    right = metric.bias_gradient
    monkeypatch.setattr(metric, "bias_gradient", lambda beta, delta: right(beta, delta + 0.1))
    assert not verdicts(exact.bias("quick"))["implicit-bias"]


def test_students_start_as_the_sheet_says():
    students = networks._Students([(0.1, -1.0), (0.5, 0.7)], 2)
    for k, (tau, delta, _) in enumerate(students.settings):
        norms, a = students.w[k].norm(dim=1), students.a[k]
        assert np.allclose(a**2 - norms**2, delta) and np.allclose(a.abs() * norms, tau**2)
        assert float(((students.x[k] @ students.w[k].T).relu() @ a).abs().max()) < 1e-12


def test_students_train_by_the_gradient_of_the_mean_squared_error():
    students = networks._Students([(0.5, 0.0)], 1)
    w, a = students.w[0].clone().requires_grad_(), students.a[0].clone().requires_grad_()
    loss = ((students.x[0] @ w.T).relu() @ a - students.y[0]).square().mean()
    loss.backward()
    students.train(1)
    assert np.allclose(students.w[0], (w - 0.2 * w.grad).detach())
    assert np.allclose(students.a[0], (a - 0.2 * a.grad).detach())


@pytest.mark.slow
def test_balance_of_networks():
    assert verdicts(networks.conservation("quick")) == {"conservation": True}
    assert verdicts(networks.portrait("quick")) == {"upstream": True, "small-scale": True}
