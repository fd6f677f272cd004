"""When to evaluate, and which examples make each batch."""

import torch
from torch import Tensor

from widthwise.core import ModelError, generator


def evaluation_steps(total: int, per_decade: int) -> frozenset[int]:
    """0, `total`, and the rounded powers ``10^(k / per_decade)`` between; the same for a longer run.

    >>> sorted(evaluation_steps(12, 2))
    [0, 1, 3, 10, 12]
    """
    steps, power = {0, total}, 0
    while (step := round(10 ** (power / per_decade))) < total:
        steps.add(step)
        power += 1
    return frozenset(steps)


class Batches:
    """Examples of each step, a function of the seed and the step alone.

    Each epoch goes through a new random order; its last batch may be smaller. ``batch_size=None`` is the full batch.

    Raises:
        ModelError: the batch size is below 1.
    """

    def __init__(self, samples: int, batch_size: int | None, seed: int) -> None:
        if batch_size is not None and batch_size < 1:
            raise ModelError(f"batch_size={batch_size} must be at least 1, or None for the full batch.")
        self.samples = samples
        self.size = batch_size if batch_size is not None and batch_size < samples else None
        self.per_epoch = 1 if self.size is None else -(-samples // self.size)
        self.seed = seed
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)

    def rows(self, step: int) -> Tensor | None:
        """Indices of the examples of step `step` (from 0); None: all of them."""
        if self.size is None:
            return None
        epoch, batch = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = torch.randperm(self.samples, generator=generator(self.seed, "epoch", epoch))
        return self._order[batch * self.size : (batch + 1) * self.size]
