"""Derivatives of single examples: vectorised with `torch.func`, one at a time where that cannot be done."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

Gradients = dict[str, Tensor]
"""By parameter name, ``[n, outputs, *shape of the parameter]``."""

OfOutputs = Callable[..., Tensor]
"""``(outputs [1, ...], *further arguments of the example) -> values [m]``."""


class ExampleGradients:
    """Jacobian of ``function(module(x[None]), *rest)`` by parameter, for each example of a batch.

    Args:
        module: in the mode to measure it in.
        parameters: what to differentiate by, by name.
        function: from the module's outputs for one example to a vector of values.
    """

    def __init__(self, module: nn.Module, parameters: dict[str, Tensor], function: OfOutputs) -> None:
        self.module = module
        self.parameters = {name: tensor.detach() for name, tensor in parameters.items()}
        self.function = function
        self.vectorised: bool | None = None

    def __call__(self, *batch: Tensor) -> Gradients:
        """Gradients for the examples of `batch`: inputs, then the further arguments of `function`."""
        if self.vectorised is None:
            self.vectorised = self._can_vectorise(*(part[:1] for part in batch))
        if self.vectorised:
            return self._vectorised(*batch)
        rows = [self._one(*(part[i : i + 1] for part in batch)) for i in range(len(batch[0]))]
        return {name: torch.stack([row[name] for row in rows]) for name in self.parameters}

    def _values(self, parameters: dict[str, Tensor], x: Tensor, *rest: Tensor) -> Tensor:
        outputs = functional_call(self.module, parameters, (x.unsqueeze(0),))
        return self.function(outputs, *(part.unsqueeze(0) for part in rest)).reshape(-1)

    def _vectorised(self, *batch: Tensor) -> Gradients:
        axes = (None,) + (0,) * len(batch)
        return vmap(jacrev(self._values), axes)(self.parameters, *batch)

    def _can_vectorise(self, *example: Tensor) -> bool:
        try:
            self._vectorised(*example)
        except (RuntimeError, NotImplementedError, ValueError, TypeError):
            return False
        return True

    def _one(self, x: Tensor, *rest: Tensor) -> dict[str, Tensor]:
        leaves = {name: tensor.clone().requires_grad_() for name, tensor in self.parameters.items()}
        with torch.enable_grad():
            values = self._values(leaves, x[0], *(part[0] for part in rest)).unbind()
        rows = [
            torch.autograd.grad(value, list(leaves.values()), retain_graph=True, materialize_grads=True)
            for value in values
        ]
        return {name: torch.stack(parts) for name, parts in zip(leaves, zip(*rows, strict=True), strict=True)}
