"""Mean squares of activations and of their gradients, layer by layer."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from widthwise.core import Value, generator
from widthwise.probe._modules import call, measuring, placed


@dataclass(frozen=True)
class ActivationMoments(Value):
    """Mean squares at the outputs of the innermost modules, in the order in which they run.

    Attributes:
        names: path of each module; a module that runs twice stands twice.
        kinds: class name of each, for example ``"Linear"``.
        forward: mean square of the outputs, over examples and entries.
        backward: mean square of the gradients with respect to those outputs, over examples and entries, when each
            example's cotangent at the module's output has independent N(0, 1) entries; NaN where the output of the
            module does not depend on it.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    forward: Float[Tensor, "layers"]
    backward: Float[Tensor, "layers"]

    def of_kind(self, kind: str) -> "ActivationMoments":
        """Only the modules of one class."""
        kept = [index for index, name in enumerate(self.kinds) if name == kind]
        return ActivationMoments(
            tuple(self.names[index] for index in kept), (kind,) * len(kept), self.forward[kept], self.backward[kept]
        )


def activation_moments(module: nn.Module, x: Num[Tensor, "n *shape"], *, seed: int = 0) -> ActivationMoments:
    """Forward and backward mean squares with depth (the q and p of signal propagation, arXiv:1611.01232).

    One forward and one backward pass over all of `x` in evaluation mode; parameters and their ``.grad`` stay as they
    are. A random cotangent stands for the gradient of a loss: only ratios between layers matter.

    Args:
        module: the network, at initialisation or trained.
        x: inputs.
        seed: of the cotangent.

    Raises:
        DataError: an input is not finite.
        ModelError: the module does not take the inputs.

    >>> activation_moments(nn.Sequential(nn.Linear(2, 3), nn.ReLU()), torch.randn(5, 2)).kinds
    ('Linear', 'ReLU')
    """
    x = placed(module, x, "x").detach()
    if x.is_floating_point():
        x = x.clone().requires_grad_()
    record = _Record()
    leaves = [(name, part) for name, part in module.named_modules() if not list(part.children())]
    handles = [part.register_forward_hook(record.hook(name)) for name, part in leaves]
    try:
        with measuring(module), torch.enable_grad():
            outputs = call(module, x)
            cotangent = torch.randn(outputs.shape, generator=generator(seed, "cotangent"), dtype=torch.float64)
            leaf = [p for p in module.parameters() if p.requires_grad]
            sources = leaf + ([x] if x.requires_grad else [])
            torch.autograd.grad(outputs, sources, cotangent.to(outputs), allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
    return ActivationMoments(
        tuple(record.names), tuple(record.kinds), torch.tensor(record.forward), torch.tensor(record.backward)
    )


class _Record:
    """What the hooks saw. Gradients are caught by hooks on the tensors, which hold even if a later layer overwrites
    its input in place."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.kinds: list[str] = []
        self.forward: list[float] = []
        self.backward: list[float] = []

    def hook(self, name: str) -> Callable[[nn.Module, object, object], None]:
        def seen(part: nn.Module, _: object, result: object) -> None:
            if not isinstance(result, Tensor) or not result.is_floating_point():
                return
            index = len(self.names)
            self.names.append(name)
            self.kinds.append(type(part).__name__)
            self.forward.append(_mean_square(result))
            self.backward.append(float("nan"))
            if result.requires_grad:
                result.register_hook(lambda gradient: self.backward.__setitem__(index, _mean_square(gradient)))

        return seen


def _mean_square(values: Tensor) -> float:
    return values.detach().double().square().mean().item()
