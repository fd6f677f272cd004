"""Layers contracted as the backward pass comes to them: same numbers, few slopes held, no graph kept alive."""

import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.probe.test_ntk_layers import LAYERED, Applied, brute_force, case
from widthwise.probe import _layer_contraction_plan as planning
from widthwise.probe import empirical_ntk
from widthwise.probe._layer_contraction import Weight
from widthwise.probe._layer_contraction_block import Block
from widthwise.probe._layer_contraction_capture import watched
from widthwise.probe._layer_contraction_products import Kept
from widthwise.probe._layer_contraction_shapes import patches
from widthwise.probe._layer_contraction_uses import Convolution
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


@pytest.mark.parametrize("name", ["cnn", "gpt2"])
@pytest.mark.parametrize("room", [0, 2000, 2**28])
@pytest.mark.parametrize("separate", [False, True])
def test_products_kept_from_output_to_output(
    name: str, room: int, separate: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for none, for some and for all layers, among the same examples and between others."""
    module, x = case(name)
    arguments = (module, x[:2], x[2:]) if separate else (module, x)
    expected = empirical_ntk(*arguments, method="jacobian")
    monkeypatch.setattr("widthwise.probe._ntk_layers._HEADS", 1)
    monkeypatch.setattr("widthwise.probe._ntk_layers._KEPT", room)
    monkeypatch.setattr("widthwise.probe._layer_contraction_products._ENTRIES", 100)
    monkeypatch.setattr(Weight, "by_positions", lambda self, *_: self.matrix)
    torch.testing.assert_close(empirical_ntk(*arguments, method="layers"), expected)


def test_patches_are_made_once_where_their_products_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    module, x = case("cnn")
    made: list[int] = []
    right = Convolution.known
    monkeypatch.setattr(Convolution, "known", lambda self, *args: made.append(1) or right(self, *args))
    monkeypatch.setattr("widthwise.probe._ntk_layers._HEADS", 1)
    monkeypatch.setattr(Weight, "by_positions", lambda self, *_: self.matrix)
    counts = []
    for room in (2**28, 0):
        monkeypatch.setattr("widthwise.probe._ntk_layers._KEPT", room)
        made.clear()
        empirical_ntk(module, x)
        counts.append(len(made))
    convolutions = sum(isinstance(part, nn.Conv2d | nn.Conv1d) for part in module.modules())
    outputs = module(x[:1]).numel()
    assert counts[1] - counts[0] == (outputs - 1) * convolutions


def test_room_is_given_once() -> None:
    kept = Kept(passes=2, room=100)
    first = kept.reserve("a", 60)
    assert first == [] and kept.room == 40
    assert kept.reserve("b", 60) is None
    assert kept.reserve("a", 60) is first and kept.room == 40
    assert Kept(passes=1, room=100).reserve("a", 60) is None


@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 1, 1), (2, 1, 1), (1, 0, 2), (3, 2, 1)])
def test_patches_are_those_of_unfold(stride: int, padding: int, dilation: int) -> None:
    h = torch.randn(2, 4, 9, 8, dtype=torch.float64)
    expected = F.unfold(h, (3, 2), dilation, padding, stride).unflatten(1, (4, 6))  # n channels kernel positions
    sides = tuple((side + 2 * padding - dilation * (size - 1) - 1) // stride + 1 for side, size in ((9, 3), (8, 2)))
    both = ((padding, padding),) * 2
    for groups in (1, 2, 4):
        for images in (h, h.contiguous(memory_format=torch.channels_last)):
            got = patches(images, (3, 2), sides, (stride, stride), both, (dilation, dilation), groups)
            ordered = expected.unflatten(1, (groups, -1)).permute(0, 1, 4, 3, 2).flatten(3)
            torch.testing.assert_close(got, ordered, rtol=0, atol=0)
