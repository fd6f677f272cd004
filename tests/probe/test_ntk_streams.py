"""Layers contracted as the backward pass comes to them: same numbers, few slopes held, no graph kept alive."""

import gc
import weakref

import pytest
import torch
from torch import nn

from tests.probe.test_ntk_layers import LAYERED, Applied, brute_force, case
from widthwise.probe import _layer_contraction_plan as planning
from widthwise.probe import empirical_ntk
from widthwise.probe._layer_contraction_block import Block
from widthwise.probe._layer_contraction_capture import watched
from widthwise.probe._modules import call, measuring
from widthwise.probe._ntk_layers import _Gathering


@pytest.mark.parametrize("name", LAYERED)
def test_slopes_handed_on_are_those_of_single_passes(name: str) -> None:
    module, x = case(name)
    with measuring(module):
        outputs, watch = watched(module, dict(module.named_parameters()), x, call)
    block = Block(outputs, watch.calls)
    cotangents = torch.randn(3, outputs.shape[1], dtype=torch.float64)
    expected = block.slopes(cotangents, list(range(len(block.calls))))
    for batched in (True, False):
        got: dict[int, torch.Tensor] = {}
        block.stream(cotangents, got.__setitem__, batched=batched)
        for number, slope in expected.items():
            torch.testing.assert_close(got.get(number, torch.zeros_like(slope)), slope)


@pytest.mark.parametrize("name", ["resnet2d", "gpt2", "weight norm"])
def test_without_vectorised_passes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, x = case(name)
    expected, full = empirical_ntk(module, x), empirical_ntk(module, x, outputs="full")
    right = planning._streams
    monkeypatch.setattr(planning, "_streams", lambda block, *, batched: not batched and right(block, batched=False))
    torch.testing.assert_close(empirical_ntk(module, x, method="layers"), expected)
    torch.testing.assert_close(empirical_ntk(module, x, method="layers", outputs="full"), full)


def test_slopes_that_would_be_wrong_send_all_to_jacobians(monkeypatch: pytest.MonkeyPatch) -> None:
    module, x = case("mlp")
    expected = empirical_ntk(module, x)
    right = Block.stream
    wrong = lambda self, c, receive, **k: right(self, c, lambda i, s: receive(i, 1.01 * s), **k)  # noqa: E731
    monkeypatch.setattr(Block, "stream", wrong)
    torch.testing.assert_close(empirical_ntk(module, x), expected)


def test_slopes_are_forgotten_layer_by_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    held = []
    forget = _Gathering._forget

    def watching(self: _Gathering) -> None:
        forget(self)
        held.append(len(self.slopes))

    monkeypatch.setattr(_Gathering, "_forget", watching)
    empirical_ntk(*case("resnet2d"))
    assert len(held) > 15 and max(held) == 0
    held.clear()
    empirical_ntk(*case("twice"))  # one matrix in two calls: the slopes of the later one wait
    assert max(held) == 1


def test_an_output_that_does_not_use_every_layer() -> None:
    """Two towers, one output each: a call without slopes stands for zeros, a parameter without any for nothing."""
    module = Applied(
        lambda self, x: torch.cat([self.one(torch.tanh(self.shared(x))), self.two(x)], 1),
        shared=nn.Linear(3, 3).double(),
        one=nn.Linear(3, 1).double(),
        two=nn.Linear(3, 1).double(),
    )
    x = torch.randn(4, 3, dtype=torch.float64)
    full = brute_force(module, x, x)
    for output in (0, 1):
        torch.testing.assert_close(
            empirical_ntk(module, x, outputs=output, method="layers"), full[:, :, output, output]
        )
    torch.testing.assert_close(empirical_ntk(module, x, outputs="full", method="layers"), full)


def test_no_cycle_keeps_a_graph_alive() -> None:
    module, x = case("resnet2d")
    gc.disable()
    try:
        outputs, watch = watched(module, dict(module.named_parameters()), x, call)
        block = Block(outputs, watch.calls)
        block.stream(torch.eye(3, dtype=torch.float64), lambda number, slope: None, batched=True)
        tap = weakref.ref(watch.calls[0].tap)
        assert tap() is not None
        del outputs, watch, block
        assert tap() is None
    finally:
        gc.enable()
