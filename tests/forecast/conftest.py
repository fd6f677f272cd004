"""One small forecast, made once, and what it was made from."""

from typing import Any

import pytest
import torch
from torch import nn

import widthwise as ww
from widthwise.data import load
from widthwise.forecast import resolve_model
from widthwise.forecast._curves import fit_task
from widthwise.forecast._grams import Grams
from widthwise.forecast._run import Run, Targets
from widthwise.forecast._settings import read_settings
from widthwise.forecast._stages import Stages
from widthwise.report import ForecastReport
from widthwise.theory import TaskSpectrum

SMALL: dict[str, Any] = {
    "samples": 96, "held_out": 64, "draws": 6, "training_seconds": 0.1, "progress": False, "seed": 3
}  # fmt: skip


def small_net(width: int = 24) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def make_run(model: Any = small_net, data: Any = "digits", **changes: Any) -> Run:
    """What `run_forecast` hands to every section, made by hand."""
    whole = load(data, seed=SMALL["seed"])
    asked = {key: value for key, value in SMALL.items() if key != "progress"} | {"sizes": None}
    asked |= {"kernel": "auto", "parametrization": "ntk"} | changes
    settings = read_settings(whole, **asked)
    train, test = whole.split(settings.samples, settings.held_out, seed=settings.seed)
    source = resolve_model(model, whole, None)
    return Run(source, train, test, Targets(train, test), settings, Stages(None, "test"), False)


@pytest.fixture(scope="session")
def run() -> Run:
    return make_run()


@pytest.fixture(scope="session")
def grams(run: Run) -> Grams:
    """By the public functions alone."""
    limit = ww.infinite(ww.trace(run.source.build(seed=run.settings.seed), run.train.inputs[:2]))
    train, test = run.train.inputs, run.test.inputs
    return Grams(
        limit(train).ntk, limit(test, train).ntk, limit.feature_kernel(train), limit.feature_kernel(test, train)
    )


@pytest.fixture(scope="session")
def task(run: Run, grams: Grams) -> TaskSpectrum:
    return fit_task(grams.ntk, run.targets, run.settings.seed)


@pytest.fixture(scope="session")
def report() -> ForecastReport:
    return ww.forecast(small_net, "digits", **SMALL)


@pytest.fixture(autouse=True)
def _global_seed() -> None:
    torch.manual_seed(0)
