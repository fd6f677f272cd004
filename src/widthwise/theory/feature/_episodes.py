"""Few-shot tasks: some classes, some labelled examples of each, and queries."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from widthwise.core import generator
from widthwise.theory.feature._errors import FeatureLimitError, at_least


@dataclass(frozen=True)
class Episodes:
    """Tasks of equal size. Labels count from 0 within each task.

    Attributes:
        support, support_labels: what a learner adapts to, ``[tasks, ways * shots, inputs]`` and ``[tasks, ...]``.
        queries, query_labels: what it is asked then.
    """

    support: Float[Tensor, "tasks support inputs"]
    support_labels: Int[Tensor, "tasks support"]
    queries: Float[Tensor, "tasks queries inputs"]
    query_labels: Int[Tensor, "tasks queries"]

    @property
    def ways(self) -> int:
        """Classes per task."""
        return int(self.support_labels.max()) + 1


def draw_episodes(
    examples: Float[Tensor, "classes examples inputs"],
    *,
    tasks: int,
    ways: int = 5,
    shots: int = 1,
    queries: int = 1,
    seed: int = 0,
) -> Episodes:
    """Random tasks from a pool of classes: `ways` classes each, `shots` examples to learn from, `queries` asked.

    Raises:
        FeatureLimitError: the pool has fewer classes or examples than a task needs.

    >>> draw_episodes(torch.randn(20, 4, 7), tasks=3).support.shape
    torch.Size([3, 5, 7])
    """
    classes, pool = examples.shape[:2]
    at_least("tasks", tasks, 1, "there is nothing to learn otherwise")
    at_least("ways", ways, 2, "a task tells classes apart")
    if ways > classes or shots + queries > pool:
        raise FeatureLimitError(
            f"the pool has {classes} classes of {pool} examples and a task needs {ways} classes of {shots + queries}; "
            "ask for less."
        )
    random = generator(seed, "episodes")
    chosen = torch.rand(tasks, classes, generator=random).argsort(1)[:, :ways]
    members = torch.rand(tasks, ways, pool, generator=random).argsort(2)[:, :, : shots + queries]
    drawn = examples[chosen[:, :, None], members]  # [tasks, ways, shots + queries, inputs]
    labels = torch.arange(ways)[None, :, None].expand(tasks, ways, shots + queries)
    return Episodes(
        drawn[:, :, :shots].flatten(1, 2),
        labels[:, :, :shots].flatten(1),
        drawn[:, :, shots:].flatten(1, 2),
        labels[:, :, shots:].flatten(1),
    )
