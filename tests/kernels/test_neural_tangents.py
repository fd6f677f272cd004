"""Every kernel that neural-tangents 0.6.5 can express agrees with it (float64, values stored with the tests)."""

import pytest
import torch

from tests.kernels.modules import build, load_cases
from widthwise.kernels import infinite
from widthwise.program import trace

INPUTS, CASES = load_cases()


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_agrees_with_neural_tangents(case):
    x1, x2 = INPUTS[case["inputs"]]["x1"], INPUTS[case["inputs"]]["x2"]
    module, weight_std, bias_std = build(case, tuple(x1.shape[1:]))
    limit = infinite(trace(module, x1[:2].float()), case["parametrization"], weight_std, bias_std)
    symmetric, cross = limit(x1), limit(x1, x2)
    for got, key in (
        (symmetric.nngp, "nngp"),
        (symmetric.ntk, "ntk"),
        (cross.nngp, "nngp_12"),
        (cross.ntk, "ntk_12"),
    ):
        expected = torch.tensor(case[key], dtype=torch.float64)
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max()))
