"""Activations that enter the last linear layer."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from widthwise.core import ModelError, generator
from widthwise.probe._modules import call, measuring, placed, refuse_infinite


def last_layer(module: nn.Module, x: Num[Tensor, "n *shape"] | None = None) -> tuple[str, nn.Linear]:
    """Name and module of the linear layer that produces the output.

    With inputs, the module runs on the first of them and the layer must be one whose result is the module's output.
    Without, it is the last `nn.Linear` in the order of registration.

    Raises:
        ModelError: there is none.

    >>> last_layer(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)))[0]
    '2'
    """
    linear = {name: part for name, part in module.named_modules() if isinstance(part, nn.Linear)}
    if x is not None:
        linear = _producing(module, linear, placed(module, x[:1]))
    if not linear:
        raise ModelError(
            f"no nn.Linear of {type(module).__name__} produces its output; name the layer whose inputs are the "
            "features with layer=."
        )
    return list(linear.items())[-1]


def features(
    module: nn.Module, x: Num[Tensor, "n *shape"], layer: str | None = None, *, batch_size: int = 256
) -> Float[Tensor, "n *features"]:
    """Activations that enter the last linear layer, in evaluation mode, `batch_size` examples at a time.

    Args:
        module: any module with a linear readout.
        x: inputs.
        layer: name of another layer whose input is wanted; None: the layer that `last_layer` finds.
        batch_size: examples per forward pass.

    Raises:
        DataError: an input is not finite.
        ModelError: there is no such layer, it is not used, or the module does not take the inputs.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> features(model, torch.randn(5, 2)).shape
    torch.Size([5, 3])
    """
    if layer is None:
        layer = last_layer(module, x)[0]
    refuse_infinite(x, "x")
    parts = dict(module.named_modules())
    if layer not in parts:
        raise ModelError(f"{type(module).__name__} has no layer '{layer}'; see module.named_modules().")
    with measuring(module), torch.no_grad(), _inputs_of(parts[layer]) as seen:
        rows = []
        for piece in x.split(batch_size):
            call(module, placed(module, piece))
            if not seen:
                raise ModelError(f"layer '{layer}' does not run in a forward pass; name another.")
            rows.append(seen.pop())
            seen.clear()
    return torch.cat(rows)


@contextmanager
def _inputs_of(layer: nn.Module) -> Iterator[list[Tensor]]:
    seen: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].detach().clone()))
    try:
        yield seen
    finally:
        handle.remove()


def _producing(module: nn.Module, linear: dict[str, nn.Linear], x: Tensor) -> dict[str, nn.Linear]:
    """Those of `linear` whose result is the module's output.

    Each result is replaced by random negative numbers, and the layer whose numbers come out is the one: its own
    results could pass through a ReLU unchanged by chance.
    """
    source = generator(0, "last layer")
    results: dict[str, Tensor] = {}

    def replace(name: str) -> Callable[[nn.Module, object, Tensor], Tensor]:
        def hook(_: nn.Module, __: object, result: Tensor) -> Tensor:
            results[name] = -1 - torch.rand(result.shape, generator=source).to(result)
            return results[name].clone()

        return hook

    handles = [part.register_forward_hook(replace(name)) for name, part in linear.items()]
    try:
        with measuring(module), torch.no_grad():
            output = call(module, x)
    finally:
        for handle in handles:
            handle.remove()
    return {
        name: linear[name]
        for name, result in results.items()
        if result.numel() == output.numel() and torch.equal(result.reshape(output.shape), output)
    }
