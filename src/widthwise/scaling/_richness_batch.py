"""Many small networks trained at once: one forward pass for a whole grid of output scales and learning rates."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.backends import mha
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from widthwise.core import DataError, ModelError, all_finite, evaluating

Weights = dict[str, Tensor]
SampleLoss = Callable[[Tensor, Tensor], Tensor]
BLOWN = 1e3  # times the loss at initialisation: a run that got there counts as diverged
CHECKS = 20  # how often diverged runs are taken out of the batch


@dataclass(frozen=True)
class Cell:
    """One run: output divided by `gamma`, learning rate `rate`, initialisation number `seed`."""

    gamma: float
    rate: float
    seed: int


@dataclass(frozen=True, eq=False)
class Starts:
    """Initialisations of one architecture and what they are trained on.

    Attributes:
        module: any of them; only its code is used.
        weights: trained tensors by name, one dict per seed.
        factors: learning rate of each tensor over the base rate.
        inputs, targets: the data, all on one device.
        outputs: of each initialisation on all inputs, ``[seeds, n, outputs]``, subtracted during training.
        loss: ``(outputs [b, k], targets [b, ...]) -> scalar``.
        initial: loss of zero outputs, that of every run before its first step.
    """

    module: nn.Module = field(repr=False)
    weights: tuple[Weights, ...] = field(repr=False)
    factors: Mapping[str, float]
    inputs: Tensor = field(repr=False)
    targets: Tensor = field(repr=False)
    outputs: Float[Tensor, "seeds n k"] = field(repr=False)
    loss: SampleLoss = field(repr=False)
    initial: float

    @classmethod
    def of(
        cls,
        modules: Sequence[nn.Module],
        factors: Mapping[str, float],
        inputs: Tensor,
        targets: Tensor,
        loss: SampleLoss | None = None,
    ) -> "Starts":
        """Take the weights of modules of one architecture.

        Raises:
            ModelError: outputs are not rows that fit the targets.
            DataError: inputs or targets are not finite, or not as many.
        """
        check_pairs(inputs, targets)
        weights = tuple(
            {name: value.detach().clone() for name, value in module.named_parameters() if value.requires_grad}
            for module in modules
        )
        with torch.no_grad():
            outputs = torch.stack([_rows(module, inputs) for module in modules])
        chosen = loss or (half_square if targets.is_floating_point() else cross_entropy)
        try:
            initial = float(chosen(torch.zeros_like(outputs[0]), targets))
        except (RuntimeError, IndexError, ValueError) as error:
            raise DataError(
                f"targets of shape {list(targets.shape)} do not fit outputs of shape {list(outputs.shape[1:])}; "
                "give one row of targets, or one class, per example."
            ) from error
        return cls(modules[0], weights, dict(factors), inputs, targets, outputs, chosen, initial)


def half_square(outputs: Tensor, targets: Tensor) -> Tensor:
    """Half the squared error, mean over examples and outputs."""
    return (outputs - targets.reshape(outputs.shape)).square().mean() / 2


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of class numbers, in the form that is fast under `torch.func.vmap`."""
    own = outputs.gather(1, targets.reshape(-1, 1)).squeeze(1)
    return (outputs.logsumexp(1) - own).mean()


def check_pairs(inputs: Tensor, targets: Tensor) -> None:
    """Refuse data that no network can be trained on.

    Raises:
        DataError: empty, not finite, or not one target per input.
    """
    if len(inputs) == 0 or len(inputs) != len(targets):
        raise DataError(f"there are {len(inputs)} inputs and {len(targets)} targets; give one target per input.")
    for name, tensor in (("inputs", inputs), ("targets", targets)):
        if not all_finite(tensor):
            raise DataError(f"some {name} are not finite; leave those examples out.")


@contextmanager
def _composed(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, and attention made of plain operations: the fused ones know no batch of networks, and one of
    them (inside `nn.TransformerEncoderLayer`) no gradient."""
    fast = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)
    try:
        with evaluating(module), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        mha.set_fastpath_enabled(fast)


def _rows(module: nn.Module, inputs: Tensor) -> Tensor:
    with _composed(module):
        try:
            found = [module(block) for block in inputs.split(1024)]
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            words = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ModelError(
                f"the module raises on inputs of shape {list(inputs.shape)}: {words}; give inputs that it takes."
            ) from error
    if not isinstance(found[0], Tensor) or sum(len(part) for part in found) != len(inputs):
        raise ModelError("the module does not give one row of outputs per example; wrap it so that it does.")
    return torch.cat(found).flatten(1)


@dataclass(frozen=True, eq=False)
class Trained:
    """What came of the cells.

    Attributes:
        losses: mean over the last tenth of the steps; infinite where a run diverged.
        curve: the loss before every step ``[cells, steps]``, infinite after a divergence; None unless asked for.
        alive: numbers of the cells that did not diverge, in the order of the first axis of `weights`.
        weights: after training, stacked.
    """

    losses: Float[np.ndarray, "cells"]
    curve: Float[np.ndarray, "cells steps"] | None
    alive: tuple[int, ...]
    weights: Weights


def train_cells(
    starts: Starts,
    cells: Sequence[Cell],
    steps: int,
    batch_size: int | None = 64,
    seed: int = 0,
    *,
    curves: bool = False,
    advance: Callable[[float], None] = lambda amount: None,
) -> Trained:
    """Train one network per cell by plain SGD on ``f = (h - h_0) / gamma``, all on the same batches."""
    run = _Run(starts, cells)
    generator = torch.Generator().manual_seed(seed)
    count = len(starts.inputs)
    tail = max(1, steps // 10)
    final = torch.zeros(len(cells), dtype=torch.float64)
    path = torch.full((len(cells), steps), torch.inf, dtype=torch.float64) if curves else None
    for step in range(steps):
        chosen = slice(None) if batch_size is None else torch.randint(count, (batch_size,), generator=generator)
        losses = run.step(chosen)
        if path is not None:
            path[run.alive, step] = losses
        if step >= steps - tail:
            final[run.alive] += losses / tail
        if step % max(1, steps // CHECKS) == 0 or step == steps - 1:
            run.drop(losses)
        advance(len(cells) / steps)
        if len(run.alive) == 0:
            break
    gone = torch.ones(len(cells), dtype=torch.bool)
    gone[run.alive] = False
    final[gone | ~torch.isfinite(final)] = torch.inf
    weights = {name: value.detach() for name, value in run.weights.items()}
    return Trained(final.numpy(), None if path is None else path.numpy(), tuple(run.alive.tolist()), weights)


class _Run:
    """The networks still in the batch: weights stacked along a first axis."""

    def __init__(self, starts: Starts, cells: Sequence[Cell]) -> None:
        self.starts = starts
        dtype, device = starts.outputs.dtype, starts.outputs.device
        self.alive = torch.arange(len(cells))
        self.seeds = torch.tensor([cell.seed for cell in cells], device=device)
        self.gammas = torch.tensor([cell.gamma for cell in cells], dtype=dtype, device=device)
        self.rates = torch.tensor([cell.rate for cell in cells], dtype=dtype, device=device)
        self.weights = {
            name: torch.stack([starts.weights[cell.seed][name] for cell in cells]).requires_grad_()
            for name in starts.weights[0]
        }
        module = starts.module

        def outputs(weights: Weights, inputs: Tensor) -> Tensor:
            return functional_call(module, weights, (inputs,)).flatten(1)

        self.forward = vmap(outputs, in_dims=(0, None), randomness="different")
        self.losses = vmap(starts.loss, in_dims=(0, None))

    def step(self, chosen: slice | Tensor) -> Tensor:
        """One step of every network; their losses before it."""
        starts = self.starts
        with _composed(starts.module), torch.enable_grad():
            try:
                outputs = self.forward(self.weights, starts.inputs[chosen])
            except RuntimeError as error:
                words = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise ModelError(
                    f"the module cannot be trained in a batch of networks: {words}; give one that torch.func.vmap "
                    "takes, without state that changes in the forward pass."
                ) from error
            before = starts.outputs[:, chosen][self.seeds]
            losses = self.losses((outputs - before) / self.gammas[:, None, None], starts.targets[chosen])
            gradients = torch.autograd.grad(losses.sum(), list(self.weights.values()), materialize_grads=True)
        with torch.no_grad():
            for (name, weight), gradient in zip(self.weights.items(), gradients, strict=True):
                size = (-1,) + (1,) * (weight.ndim - 1)
                weight -= (self.rates * starts.factors.get(name, 1.0)).reshape(size) * gradient
        return losses.detach().double().cpu()

    def drop(self, losses: Tensor) -> None:
        """Take out the networks that diverged."""
        keep = torch.isfinite(losses) & (losses < BLOWN * self.starts.initial)
        if bool(keep.all()):
            return
        self.alive = self.alive[keep]
        keep = keep.to(self.seeds.device)
        self.seeds, self.gammas, self.rates = self.seeds[keep], self.gammas[keep], self.rates[keep]
        self.weights = {name: value.detach()[keep].requires_grad_() for name, value in self.weights.items()}
