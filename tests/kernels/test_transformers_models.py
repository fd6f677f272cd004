"""Unmodified transformers have kernels, and finite ones agree with them."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.kernels.transformer_models import MODELS, TOKENS, Model, finite_kernels
from widthwise.core import seeded
from widthwise.kernels import Limit, infinite
from widthwise.program import trace

pytest.importorskip("transformers")


def limit_of(model: Model, width: int, heads: int) -> Limit:
    with seeded(1, "limit"):
        net = model.build(width, heads).eval()
    return infinite(trace(net, {name: x[:2] for name, x in model.given.items()}), "standard", method="exact")


def given(model: Model) -> dict[str, Tensor]:
    return {name: x.double() if x.is_floating_point() else x for name, x in model.given.items()}


@pytest.mark.parametrize("name", list(MODELS))
def test_certificate(name):
    """Attention alone is sampled, to within some percent; everything else is exact or quadrature."""
    limit = limit_of(MODELS[name], 32, 4)
    kernels = limit(given(MODELS[name]))
    for kernel in kernels:
        torch.testing.assert_close(kernel, kernel.T, rtol=1e-9, atol=1e-12)
        assert float(torch.linalg.eigvalsh(kernel).min()) > -1e-3 * float(kernel.diagonal().max())
    rules = {row.rule for row in limit.certificate}
    assert rules <= {"exact", "quadrature", "sampled", "concrete", "exact for tokens that are not in the inputs"}
    sampled = [row for row in limit.certificate if row.rule == "sampled"]
    assert {row.op for row in sampled} == {"aten.scaled_dot_product_attention.default"}
    assert all(0 < row.error < 0.05 for row in sampled)


def agrees(draws: Tensor, expected: Tensor, bias: float) -> None:
    error = float((draws.std(0) / len(draws) ** 0.5).norm() / expected.norm())
    assert float((draws.mean(0) - expected).norm() / expected.norm()) < 4 * error + bias
    assert error < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", list(MODELS))
def test_mean_over_initialisations(name):
    """Sixteen heads of sixteen entries: corrections fall like one over each, and act through the scores alone."""
    model, width, heads = MODELS[name], 256, 16
    kernels = limit_of(model, width, heads)(given(model))
    products, tangents = finite_kernels(model, width, heads, 30)
    agrees(products, kernels.nngp, 1 / heads)
    agrees(tangents, kernels.ntk, 1 / heads)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["own transformer", "llama"])
def test_error_falls_like_the_root_of_the_width(name):
    """Heads of sixteen entries, more of them in wider networks."""
    model, widths, draws = MODELS[name], (64, 128, 256), 30
    squares = []
    for width in widths:
        expected = limit_of(model, width, width // 16)(given(model)).ntk
        found = finite_kernels(model, width, width // 16, draws)[1]
        squares.append(((found - expected).norm(dim=(1, 2)) / expected.norm()).square().numpy())
    logs = np.log(widths) - np.mean(np.log(widths))
    weights = logs / (logs**2).sum()
    mean, scatter = np.mean(squares, 1), np.std(squares, 1, ddof=1)
    slope = float(weights @ np.log(mean)) / 2
    error = math.sqrt(float((weights**2) @ (scatter / mean) ** 2 / draws)) / 2
    assert abs(slope + 0.5) < 3 * error + 0.05, (slope, error)


@pytest.mark.slow
def test_tied_readout_of_tokens_in_the_inputs_has_no_limit():
    """Why the kernel of a tied readout is that of the other tokens: these have a mean, ``E_t . E_t`` over the residual.

    Entries of the table of fixed variance make it grow like the root of the width beside the other outputs; entries of
    variance 1 / width leave it as large as they are.
    """
    model = MODELS["gpt2"]
    means: dict[bool, list[float]] = {True: [], False: []}
    for fixed in means:
        for width in (64, 256):
            with seeded(2, "tied", width):
                net = model.build(width, width // 16).eval()
                if fixed:
                    torch.nn.init.normal_(net.transformer.wte.weight)
            with torch.no_grad():
                logits = net(**model.given).logits  # [n, positions, vocabulary]
            own = logits.gather(2, model.given["input_ids"].unsqueeze(2))
            means[fixed].append(float(own.mean() / logits[..., TOKENS:].std()))
    assert means[True][0] > 2
    assert 1.5 < means[True][1] / means[True][0] < 2.7
    assert all(0.4 < mean < 2.5 for mean in means[False])
