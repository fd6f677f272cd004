"""Gradients of the loss of single examples."""

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Num
from torch import Tensor, nn

from widthwise.probe._examples import ExampleGradients
from widthwise.probe._modules import call, measuring, placed, rows_that_fit, select_parameters


def per_example_gradients(
    module: nn.Module,
    inputs: Num[Tensor, "n *shape"],
    targets: Num[Tensor, "n *outputs"],
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    parameters: Iterable[str] | None = None,
    chunk: int | None = None,
) -> dict[str, Tensor]:
    """Gradient of each example's own loss, by parameter, in evaluation mode.

    Args:
        module: the network.
        inputs, targets: the examples.
        loss: ``(outputs [1, ...], targets [1, ...]) -> scalar``, for example
            `torch.nn.functional.cross_entropy`. For a loss that is a mean over examples, the mean of the rows is the
            gradient of the batch.
        parameters: names to differentiate by; None: all that require a gradient.
        chunk: examples per vectorised call; None: as many as a quarter of the free memory holds, at most 64.

    Returns:
        By parameter name, ``[n, *shape of the parameter]``.

    Raises:
        DataError: an input is not finite.
        ModelError: the module does not take the inputs, or a name is unknown.
        ResourceError: the gradients of one example do not fit in memory.

    >>> model = nn.Linear(2, 1)
    >>> gradients = per_example_gradients(model, torch.randn(5, 2), torch.randn(5, 1), nn.functional.mse_loss)
    >>> gradients["weight"].shape
    torch.Size([5, 1, 2])
    """
    chosen = select_parameters(module, parameters)
    inputs, targets = placed(module, inputs, "inputs"), placed(module, targets)
    size = sum(tensor.numel() * tensor.element_size() for tensor in chosen.values())
    chunk = chunk or min(64, rows_that_fit(size, inputs.device, "the gradients"))
    with measuring(module), torch.no_grad():
        call(module, inputs[:1])
        gradients = ExampleGradients(module, chosen, loss)
        parts = [gradients(x, y) for x, y in zip(inputs.split(chunk), targets.split(chunk), strict=True)]
    return {name: torch.cat([part[name][:, 0] for part in parts]) for name in chosen}
