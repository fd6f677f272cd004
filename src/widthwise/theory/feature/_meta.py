"""Model-agnostic meta-learning of modules: start from weights that few steps adapt to a task.

Source: Finn et al. 2017 (arXiv:1703.03400); Yang & Hu 2021 (arXiv:2011.14522), section on MAML: run on a `LinearLimit`
it is the training of the infinitely wide linear network, inner and outer loop, first or second order.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

from widthwise.core import Value, progress
from widthwise.theory.feature._episodes import Episodes
from widthwise.theory.feature._errors import FeatureLimitError, at_least, positive

Weights = dict[str, Tensor]
CHUNK = 16  # tasks at a time: each has its own copy of the weights


@runtime_checkable
class MetaLearner(Protocol):
    """What `meta_train` and `meta_test` need."""

    def adapt(self, tasks: Episodes, steps: int, rate: float) -> Float[Tensor, "tasks queries ways"]:
        """Outputs at the queries after `steps` of gradient descent on each task's support."""

    def meta_step(self, tasks: Episodes, steps: int, inner_rate: float, rate: float, clip: float | None) -> float:
        """Move the common start down the gradient of the adapted loss; returns that loss."""


class GradientLearner:
    """MAML of any module with parameters.

    Args:
        module: changed in place by training; a `LinearLimit` for infinite width.
        order: ``"first"`` leaves out how the inner steps depend on the start, ``"second"`` is the full gradient.

    Source: arXiv:1703.03400, algorithm 1 and section 5.2.
    """

    def __init__(self, module: nn.Module, order: Literal["first", "second"] = "first") -> None:
        if order not in ("first", "second"):
            raise FeatureLimitError(f"order={order!r} is not known; give 'first' or 'second'.")
        self.module, self.order = module, order

    def _weights(self) -> Weights:
        return {name: value.detach() for name, value in self.module.named_parameters()}

    def _loss(self, weights: Weights, x: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(functional_call(self.module, weights, (x,)), labels)

    def _descend(self, weights: Weights, x: Tensor, labels: Tensor, steps: int, rate: float) -> Weights:
        for _ in range(steps):
            slopes = grad(self._loss)(weights, x, labels)
            weights = {name: value - rate * slopes[name] for name, value in weights.items()}
        return weights

    def adapt(self, tasks: Episodes, steps: int, rate: float) -> Float[Tensor, "tasks queries ways"]:
        """Outputs at the queries after `steps` of gradient descent on each task's support."""
        start = self._weights()

        def one(x: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
            return functional_call(self.module, self._descend(start, x, labels, steps, rate), (queries,))

        return vmap(one, chunk_size=CHUNK)(tasks.support, tasks.support_labels, tasks.queries)

    def meta_gradient(self, tasks: Episodes, steps: int, inner_rate: float) -> tuple[Weights, float]:
        """Mean over tasks of the gradient of the adapted loss in the start, and that loss."""
        start = self._weights()

        def one(x: Tensor, labels: Tensor, queries: Tensor, asked: Tensor) -> tuple[Weights, Tensor]:
            def after(weights: Weights) -> Tensor:
                return self._loss(self._descend(weights, x, labels, steps, inner_rate), queries, asked)

            def at_end(weights: Weights) -> Tensor:
                return self._loss(weights, queries, asked)

            if self.order == "second":
                return grad(after)(start), after(start)
            end = self._descend(start, x, labels, steps, inner_rate)
            return grad(at_end)(end), at_end(end)

        slopes, losses = vmap(one, chunk_size=CHUNK)(
            tasks.support, tasks.support_labels, tasks.queries, tasks.query_labels
        )
        return {name: value.mean(0) for name, value in slopes.items()}, float(losses.mean())

    def meta_step(self, tasks: Episodes, steps: int, inner_rate: float, rate: float, clip: float | None) -> float:
        """One step of gradient descent on the start; returns the loss before it."""
        slopes, loss = self.meta_gradient(tasks, steps, inner_rate)
        size = torch.stack([value.square().sum() for value in slopes.values()]).sum().sqrt()
        factor = rate * clip_factor(float(size), clip)
        with torch.no_grad():
            for name, value in self.module.named_parameters():
                value.sub_(factor * slopes[name])
        return loss


def clip_factor(size: float, clip: float | None) -> float:
    """What a gradient of that norm is multiplied by."""
    return 1.0 if clip is None or size <= clip else clip / size


@dataclass(frozen=True)
class MetaTraining(Value):
    """Adapted losses ``[steps]``, each on the tasks of its step, before it."""

    losses: Float[Tensor, "steps"]


@dataclass(frozen=True)
class MetaAccuracy(Value):
    """Share of queries answered rightly: mean over tasks and its standard error."""

    accuracy: float
    error: float


def meta_train(
    learner: MetaLearner,
    draw: Callable[[int], Episodes],
    *,
    steps: int,
    rate: float = 0.1,
    inner_steps: int = 1,
    inner_rate: float = 0.4,
    clip: float | None = 0.5,
) -> MetaTraining:
    """Meta-train a learner by gradient descent. Defaults of rates and clipping are those of the paper's linear limit.

    Args:
        learner: a `GradientLearner` or a `KernelLearner`.
        draw: gives the tasks of step t, ``draw(t)``.
        clip: largest norm of the gradient over tasks; None for no limit.

    Raises:
        FeatureLimitError: the loss stops being finite.

    >>> from widthwise.theory import GradientLearner, LinearLimit, draw_episodes
    >>> pool = torch.randn(30, 4, 6, generator=torch.Generator().manual_seed(0))
    >>> learner = GradientLearner(LinearLimit(6, 5))
    >>> run = meta_train(learner, lambda step: draw_episodes(pool, tasks=8, seed=step), steps=3)
    >>> len(run.losses)
    3
    """
    at_least("steps", steps, 1, "nothing else trains")
    at_least("inner_steps", inner_steps, 1, "nothing else adapts")
    positive("rate", rate), positive("inner_rate", inner_rate)
    losses: list[float] = []
    with progress("meta-training", float(steps)) as advance:
        for step in range(steps):
            losses.append(learner.meta_step(draw(step), inner_steps, inner_rate, rate, clip))
            if not losses[-1] < 1e6:
                raise FeatureLimitError(
                    f"meta-training diverges: the loss is {losses[-1]:.3g} after {step} steps with rate={rate} and "
                    f"inner_rate={inner_rate}; give smaller ones."
                )
            advance(1)
    return MetaTraining(torch.tensor(losses, dtype=torch.float64))


def meta_test(learner: MetaLearner, tasks: Episodes, *, inner_steps: int = 20, inner_rate: float = 0.4) -> MetaAccuracy:
    """Accuracy on new tasks, each adapted to by `inner_steps` of gradient descent from the common start."""
    right = (learner.adapt(tasks, inner_steps, inner_rate).argmax(-1) == tasks.query_labels).double().mean(1)
    error = float(right.std()) / len(right) ** 0.5 if len(right) > 1 else float("nan")
    return MetaAccuracy(float(right.mean()), error)
