"""Modules and inputs that cannot be traced: one sentence with the value and the mend."""

import pytest
import torch
from torch import nn

from widthwise.core import ModelError, TraceError
from widthwise.program import trace
from widthwise.program._trace import _check_module


def message(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert text.endswith(".") and "\n" not in text
    return text


def test_a_module_that_raises_names_the_exception_and_the_shapes():
    with pytest.raises(ModelError) as error:
        trace(nn.Linear(4, 2), torch.randn(3, 5))
    assert not isinstance(error.value, TraceError)
    assert "Linear raises RuntimeError" in message(error)
    assert "(3, 5) float32" in message(error)


def test_a_module_that_torch_cannot_export():
    class Branching(nn.Linear):
        def forward(self, x):
            return x * 2 if float(x.sum()) > 0 else super().forward(x)

    module = Branching(4, 2).train()
    with pytest.raises(TraceError) as error:
        trace(module, torch.ones(3, 4))
    assert "torch.export cannot trace Branching" in message(error)
    assert module.training


def test_no_parameters():
    with pytest.raises(ModelError) as error:
        trace(nn.ReLU(), torch.ones(2, 3))
    assert "ReLU has no parameters" in message(error)


def test_lazy_parameters():
    with pytest.raises(ModelError) as error:
        trace(nn.LazyLinear(3), torch.ones(2, 3))
    assert "lazy parameters" in message(error)


@pytest.mark.parametrize("inputs", [3.5, "text", (), {"x": 3}])
def test_inputs_of_no_known_form(inputs):
    with pytest.raises(ModelError) as error:
        trace(nn.Linear(3, 2), inputs)
    assert "example_inputs" in message(error)


def test_a_factory_instead_of_a_module():
    with pytest.raises(ModelError) as error:
        _check_module(lambda: nn.Linear(3, 2))
    assert "give the module itself" in message(error)


def mlp(width: int, depth: int = 1, activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    hidden = [layer for _ in range(depth) for layer in (nn.Linear(width, width), activation())]
    return nn.Sequential(nn.Linear(3, width), *hidden, nn.Linear(width, 2))


@pytest.mark.parametrize(
    ("wider", "words"),
    [(mlp(8, 2), "another architecture"), (mlp(8, 1, nn.Tanh), "another architecture"), (mlp(4), "same sizes")],
)
def test_wider_must_differ_in_width_only(wider, words):
    with pytest.raises(TraceError) as error:
        trace(mlp(4), torch.ones(2, 3), wider=wider)
    assert words in message(error)
