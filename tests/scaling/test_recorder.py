"""The recorder against plain forward hooks: the same tensors, and a module left as it was."""

import pytest
import torch
from torch import Tensor, nn

from widthwise.scaling import parametrize
from widthwise.scaling._recorder import Recorder


class Twice(nn.Module):
    """One layer used twice, one that returns a pair, one that reads tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 4)
        self.shared = nn.Linear(4, 4)
        self.cell = nn.GRU(4, 3, batch_first=True)
        self.low = nn.Linear(3, 2).bfloat16()

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.shared(self.shared(self.table(tokens)).relu_())
        return self.low(self.cell(h)[0].bfloat16())


def by_hooks(module: nn.Module, *inputs: Tensor) -> tuple[Tensor, list[tuple[str, Tensor, Tensor]]]:
    """What every module with weights is called with and returns, call by call."""
    seen: list[tuple[str, Tensor, Tensor]] = []
    handles = []
    for path, part in module.named_modules():
        if list(part.parameters(recurse=False)):

            def keep(_, args, output, path=path):
                first = output[0] if isinstance(output, tuple) else output
                seen.append((path, args[0], first))

            handles.append(part.register_forward_hook(keep, prepend=True))
    output = module(*inputs)
    for handle in handles:
        handle.remove()
    return output, seen


def test_the_same_tensors_as_with_hooks() -> None:
    torch.manual_seed(0)
    module, tokens = Twice(), torch.randint(5, (6, 7))
    expected, seen = by_hooks(module, tokens)
    recorder = Recorder(module)
    with recorder.recording():
        output = module(tokens)
    output.float().sum().backward()
    assert torch.equal(output, expected)
    assert set(recorder.outputs) == {path for path, _, _ in seen}
    assert "table" not in recorder.inputs
    for path, value in recorder.outputs.items():
        calls = [found for name, _, found in seen if name == path]
        assert value.dtype == torch.float32 and not value.requires_grad
        assert torch.equal(value, torch.cat(calls).float())
    last = [given for name, given, _ in seen if name == "shared"][-1]
    assert torch.equal(recorder.inputs["shared"], last)


def test_multipliers_that_hooks_carry_are_seen() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 2))
    parametrize(net, "mup", lr=0.1, example_inputs=torch.ones(2, 3))
    recorder = Recorder(net)
    with recorder.recording():
        output = net(torch.ones(2, 3))
    assert torch.equal(recorder.outputs["2"], output)
    scaled = torch.relu(recorder.outputs["0"]) / 64
    torch.testing.assert_close(recorder.inputs["2"], scaled)


@pytest.mark.parametrize("net", [nn.Linear(3, 2), nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)])
def test_the_module_is_left_as_it_was_even_after_an_error(net: nn.Module) -> None:
    own = {path: set(vars(part)) for path, part in net.named_modules()}
    recorder = Recorder(net)
    with pytest.raises(ZeroDivisionError), recorder.recording():
        raise ZeroDivisionError
    assert {path: set(vars(part)) for path, part in net.named_modules()} == own
    assert not any(part._forward_hooks for part in net.modules())


def test_a_replaced_forward_is_called_and_put_back() -> None:
    net = nn.Linear(2, 2)
    net.forward = replaced = lambda x: 2 * x  # type: ignore[method-assign]
    recorder = Recorder(net)
    with recorder.recording():
        net(torch.ones(1, 2))
    assert net.forward is replaced
    assert torch.equal(recorder.outputs[""], torch.full((1, 2), 2.0))


def test_an_earlier_recording_is_forgotten() -> None:
    net = nn.Linear(2, 2)
    recorder = Recorder(net)
    for count in (3, 5):
        with recorder.recording():
            net(torch.ones(count, 2))
    assert recorder.outputs[""].shape == (5, 2)


def test_a_fused_encoder_layer_is_seen_part_by_part() -> None:
    """Evaluated without gradients, the layer runs as one kernel; its parts are to be recorded all the same."""
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True).eval()
    recorder = Recorder(layer)
    with recorder.recording(), torch.no_grad():
        layer(torch.randn(2, 3, 4))
    assert {"linear1", "linear2", "norm1", "norm2"} <= set(recorder.outputs)
