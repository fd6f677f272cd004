"""Losses by name, and evaluation of a network on a data set."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from widthwise.core import DataError, ModelError, evaluating
from widthwise.data import DataSet
from widthwise.train._types import Evaluation

Loss = str | Callable[[Tensor, Tensor], Tensor]
"""``"mse"``, ``"cross-entropy"``, or ``(outputs [n, outputs], targets) -> mean over examples``. A callable gets class
indices ``[n]`` for classification and target rows ``[n, outputs]`` for regression."""


def squared_error(outputs: Float[Tensor, "n outputs"], targets: Float[Tensor, "n outputs"]) -> Float[Tensor, ""]:
    """Mean over examples of the squared error summed over outputs.

    >>> squared_error(torch.ones(5, 2), torch.zeros(5, 2))
    tensor(2.)
    """
    return (outputs - targets).square().sum(-1).mean()


def resolve_loss(
    loss: Loss, data: DataSet, frequencies: Tensor | None = None
) -> tuple[Callable[[Tensor, Tensor], Tensor], Tensor]:
    """The loss as a function, and the targets it takes.

    Raises:
        DataError: cross-entropy for a regression task.
        ModelError: no such loss.
    """
    if loss == "mse":
        return squared_error, data.encoded(frequencies)
    if loss == "cross-entropy":
        if not data.is_classification:
            raise DataError(f"data set {data.name} has no classes for loss 'cross-entropy'; use loss='mse'.")
        return F.cross_entropy, data.targets
    if callable(loss):
        return loss, data.targets
    raise ModelError(f"no loss is called {loss!r}; use 'mse', 'cross-entropy' or a function.")


def on_module(tensor: Tensor, module: nn.Module) -> Tensor:
    """`tensor` on the module's device and, if real, in its floating-point type."""
    first = next(module.parameters(), None)
    if first is None:
        return tensor
    return tensor.to(first.device, first.dtype if tensor.is_floating_point() else tensor.dtype)


def check_outputs(module: nn.Module, data: DataSet) -> None:
    """Run the module on two examples and compare the shape of its outputs with the task's.

    Raises:
        ModelError: it raises, or the shape is not ``[n, outputs]``.
    """
    inputs = on_module(data.inputs[:2], module)
    try:
        with evaluating(module), torch.no_grad():
            outputs = module(inputs)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"the module raises on inputs of shape {tuple(inputs.shape)} from data set {data.name}: {reason}; give a "
            "module that takes them."
        ) from error
    given = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
    if given != (len(inputs), data.outputs):
        raise ModelError(
            f"the module gives {given} for {len(inputs)} examples of data set {data.name}, which has {data.outputs} "
            f"outputs; give a module whose outputs have shape [n, {data.outputs}]."
        )


def evaluate(
    module: nn.Module,
    data: DataSet,
    frequencies: Float[Tensor, "outputs"] | None = None,
    *,
    loss: Loss = "mse",
    batch_size: int = 256,
) -> Evaluation:
    """Mean squared error, accuracy and loss in evaluation mode, `batch_size` examples in memory at a time.

    Args:
        module: gives ``[n, outputs]``.
        data: examples; moved to the module's device batch by batch.
        frequencies: class frequencies subtracted from the one-hot targets; give the training set's for a held-out
            set. None: those of `data`. With ``loss="mse"`` they are added back to the outputs before the largest is
            taken as the class.
        loss: see `fit`.
        batch_size: examples per forward pass; changes the result by rounding only.

    Raises:
        ModelError: no such loss.
        DataError: cross-entropy for a regression task.

    >>> data = DataSet("two", torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [0.0]]))
    >>> evaluate(nn.Identity(), data).mse
    2.5
    """
    function, targets = resolve_loss(loss, data, frequencies)
    encoded = data.encoded(frequencies)
    shift = data.class_frequencies() if frequencies is None else frequencies.double()
    squares, right, total = 0.0, 0, 0.0
    with evaluating(module), torch.no_grad():
        for start in range(0, len(data), batch_size):
            rows = slice(start, start + batch_size)
            outputs = module(on_module(data.inputs[rows], module))
            total += float(function(outputs, on_module(targets[rows], module))) * len(outputs)
            outputs = outputs.double().cpu()
            squares += float((outputs - encoded[rows].cpu()).square().sum())
            if data.is_classification:
                scores = outputs + shift.cpu() if loss == "mse" else outputs
                right += int((scores.argmax(-1) == data.targets[rows].cpu()).sum())
    n = len(data)
    return Evaluation(squares / n, right / n if data.is_classification else None, total / n)
