"""Fixtures: the usual forecast, and every case in turn."""

import pytest

from tests.report.report_cases import CASES, make_forecast
from widthwise.forecast._types import Forecast


@pytest.fixture
def forecast() -> Forecast:
    return make_forecast()


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest) -> Forecast:
    return CASES[request.param]()
