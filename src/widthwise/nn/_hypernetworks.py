"""Hypernetworks that train well: inputs of constant norm, and an offset that is an ordinary network's weights."""

from collections.abc import Mapping, Sequence
from math import prod, sqrt
from typing import Any, Literal

import torch
from torch import Tensor, nn

from widthwise.core import DataError, ModelError
from widthwise.nn._hypernetworks_parts import (
    LEAKY_GAIN,
    ChunkedHead,
    DenseHead,
    Encoding,
    encode,
    ordinary_values,
)

Shapes = Mapping[str, Sequence[int]]
_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "leaky_relu": nn.LeakyReLU,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


class HyperNet(nn.Module):
    """Parameters of another network, predicted from a few inputs: ``theta = theta0 + h(E(gamma))``.

    Without an encoding and with piecewise-linear activations, ``h(a gamma) = a h(gamma)`` at first: the size of
    the predicted parameters, and of the gradients, follows the size of the input. The encoding E gives inputs in
    [0, 1] a constant norm, and theta0 carries the weights of an ordinary network, which h only has to correct.

    Args:
        inputs: shapes of the inputs by name; they are flattened in the order of sorted names.
        outputs: shapes of the predicted parameters by name, as `Externalized.shapes`.
        hidden: sizes of the hidden layers, one at least.
        encoding: ``"cos|sin"``, ``"z|1-z"``, or None: the inputs as they are.
        residual: whether theta0 is added; where False the offset is one trained vector that starts at zero.
        theta0: values to start from, as :func:`externalize` gives them or of a trained network; by default
            `ordinary_values`.
        activation: ``"leaky_relu"``, ``"relu"``, ``"gelu"``, ``"silu"`` or ``"tanh"``.
        normalization: ``"layer"`` puts a layer norm after each hidden linear layer (the paper's ablation).
        dropout: after each activation.
        split_init: whether rows of the head start with the fan-out of the tensor that they predict, or of all.
        chunk: parameters predicted at once by a shared head; None: one row for each parameter.

    Raises:
        ModelError: a setting out of range, or a theta0 of other shapes.
        ResourceError: the head would not fit in memory to train.

    Source: arXiv:2304.07645, sections 3 and 4.

    >>> net = HyperNet({"gamma": ()}, {"weight": (3, 2), "bias": (3,)}, hidden=(8,))
    >>> {name: tuple(value.shape) for name, value in net(gamma=torch.tensor(0.5)).items()}
    {'weight': (3, 2), 'bias': (3,)}
    >>> {name: tuple(value.shape) for name, value in net(gamma=torch.tensor([0.1, 0.2])).items()}
    {'weight': (2, 3, 2), 'bias': (2, 3)}
    """

    def __init__(
        self,
        inputs: Shapes,
        outputs: Shapes,
        hidden: Sequence[int] = (16, 128),
        *,
        encoding: Encoding | None = "cos|sin",
        residual: bool = True,
        theta0: Mapping[str, Tensor] | None = None,
        activation: Literal["leaky_relu", "relu", "gelu", "silu", "tanh"] = "leaky_relu",
        normalization: Literal["layer"] | None = None,
        dropout: float = 0.0,
        split_init: bool = True,
        chunk: int | None = None,
    ) -> None:
        super().__init__()
        _check(inputs, outputs, hidden, chunk)
        self.inputs = {name: tuple(inputs[name]) for name in sorted(inputs)}
        self.outputs = {name: tuple(shape) for name, shape in outputs.items()}
        self.encoding, self.residual, self.check_range = encoding, residual, encoding is not None
        width = sum(map(prod, self.inputs.values())) * (1 if encoding is None else 2)
        self.body = _body(width, hidden, _ACTIVATIONS[activation], normalization, dropout)
        sizes = [prod(shape) for shape in self.outputs.values()]
        self.head = (
            DenseHead(hidden[-1], sizes, split_init)
            if chunk is None
            else ChunkedHead(hidden[-1], sizes, split_init, chunk)
        )
        self.offset = nn.Parameter(torch.zeros(sum(sizes)))
        if theta0 is not None and not residual:
            raise ModelError("theta0 was given with residual=False; leave one of them out.")
        if residual:
            self.set_theta0(ordinary_values(self.outputs) if theta0 is None else theta0)

    def forward(self, **values: Tensor) -> dict[str, Tensor]:
        """Predicted parameters by name; with a leading axis where every input has one.

        Raises:
            DataError: missing, unknown or misshapen inputs; encoded inputs outside [0, 1] (set ``check_range`` to
                False under `vmap`, or to save the synchronisation of a device).
        """
        return self._unflatten(self.offset + self.correction(**values))

    def correction(self, **values: Tensor) -> Tensor:
        """What the hypernetwork adds to its offset, ``[..., parameters]``."""
        flat = self._flatten(values)
        if self.encoding is not None:
            self._require_range(flat)
            flat = encode(flat, self.encoding)
        return self.head(self.body(flat))

    @property
    def theta0(self) -> dict[str, Tensor]:
        """The offset by parameter: the weights of an ordinary network (views; they share its gradient)."""
        return self._unflatten(self.offset)

    @torch.no_grad()
    def set_theta0(self, values: Mapping[str, Tensor]) -> None:
        """Copy values into the offset, for example of a trained network.

        Raises:
            ModelError: other names or shapes.
        """
        shapes = {name: tuple(value.shape) for name, value in values.items()}
        if shapes != self.outputs:
            wrong = next(name for name in {**self.outputs, **shapes} if shapes.get(name) != self.outputs.get(name))
            raise ModelError(
                f"theta0 has {wrong} of shape {shapes.get(wrong)}; give exactly the predicted parameters "
                f"({wrong}: {self.outputs.get(wrong)})."
            )
        self.offset.copy_(torch.cat([values[name].reshape(-1) for name in self.outputs]))

    def freeze_theta0(self, frozen: bool = True) -> None:
        """Keep the offset as it is while the rest trains (or train it again)."""
        self.offset.requires_grad_(not frozen)

    def _unflatten(self, flat: Tensor) -> dict[str, Tensor]:
        parts = flat.split([prod(shape) for shape in self.outputs.values()], dim=-1)
        return {
            name: part.reshape((*flat.shape[:-1], *shape))
            for (name, shape), part in zip(self.outputs.items(), parts, strict=True)
        }

    def _flatten(self, values: Mapping[str, Tensor]) -> Tensor:
        if values.keys() != self.inputs.keys():
            name = sorted(values.keys() ^ self.inputs.keys())[0]
            raise DataError(
                f"input {name} is {'missing' if name in self.inputs else 'unknown'}; give {', '.join(self.inputs)}."
            )
        leading = set()
        for name, shape in self.inputs.items():
            batch = tuple(values[name].shape[: values[name].ndim - len(shape)])
            if len(batch) > 1 or tuple(values[name].shape) != (*batch, *shape):
                raise DataError(
                    f"input {name} has shape {tuple(values[name].shape)}; give {shape}, with one leading axis or none."
                )
            leading.add(batch)
        if len(leading) > 1:
            raise DataError("the inputs have different leading axes; give as many of each, or none of any.")
        batch = leading.pop()
        return torch.cat([values[name].reshape((*batch, prod(shape))) for name, shape in self.inputs.items()], dim=-1)

    def _require_range(self, flat: Tensor) -> None:
        if self.check_range and not torch.compiler.is_compiling() and not ((flat >= 0) & (flat <= 1)).all():
            outside = flat[~((flat >= 0) & (flat <= 1))][0].item()
            raise DataError(
                f"an input is {outside:.4g}, outside [0, 1], where the encoding repeats itself; map it with to_unit, "
                "or give encoding=None."
            )


def _body(
    width: int, hidden: Sequence[int], activation: type[nn.Module], normalization: str | None, dropout: float
) -> nn.Sequential:
    layers: list[nn.Module] = []
    for size in hidden:
        linear = nn.Linear(width, size)
        nn.init.normal_(linear.weight, std=LEAKY_GAIN / sqrt(size))  # Kaiming normal with fan-out
        nn.init.zeros_(linear.bias)
        norm: list[nn.Module] = [nn.LayerNorm(size)] if normalization == "layer" else []
        layers += [linear, *norm, activation(), *([nn.Dropout(dropout)] if dropout else [])]
        width = size
    return nn.Sequential(*layers)


def _check(inputs: Shapes, outputs: Shapes, hidden: Sequence[int], chunk: Any) -> None:
    for what, shapes in (("input", inputs), ("output", outputs)):
        empty = next((name for name, shape in shapes.items() if prod(shape) < 1), None)
        if not shapes or empty is not None:
            raise ModelError(f"a hypernetwork needs {what}s of one entry or more; {what}s {empty or 'are'} empty.")
    if not hidden or min(hidden) < 1:
        raise ModelError(f"hidden is {tuple(hidden)}; give the size of one hidden layer or more, each 1 or more.")
    if chunk is not None and chunk < 1:
        raise ModelError(f"chunk is {chunk}; give the parameters per chunk, 1 or more, or None.")
