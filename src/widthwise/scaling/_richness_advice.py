"""What to set after a sweep over feature-learning strength and learning rate."""

from dataclasses import dataclass
from math import isfinite

import numpy as np

from widthwise.core import DataError, Value
from widthwise.scaling._richness_fit import RateBound
from widthwise.scaling._richness_plane import RichnessSweep, richness_law


@dataclass(frozen=True)
class RichnessAdvice(Value):
    """The strength and learning rate of the lowest training loss.

    Attributes:
        gamma: what the outputs are divided by.
        rate: best learning rate there, with the tried rates it lies between.
        lr: for ``parametrize(module, scheme, lr=lr, optimizer="sgd", gamma=gamma)``, which carries out the law: the
            rate over ``richness_law(gamma, depth)``.
        loss: lowest mean training loss at that gamma; losses: at every gamma of the sweep (infinite where none ended).
        cautions: what to know before relying on it, one sentence each.
    """

    gamma: float
    rate: RateBound
    lr: float
    loss: float
    losses: tuple[float, ...]
    cautions: tuple[str, ...]

    @property
    def call(self) -> str:
        """The line of code."""
        return f'ww.parametrize(module, lr={self.lr:.3g}, optimizer="sgd", gamma={self.gamma:.4g})'


def richness_advice(sweep: RichnessSweep) -> RichnessAdvice:
    """Read off a sweep which strength and learning rate to take.

    Args:
        sweep: from `richness_sweep`.

    Raises:
        DataError: no run of the sweep trained.

    >>> from widthwise.scaling._richness_plane import read_plane
    >>> losses = np.array([[[0.8, 0.6, 0.7]], [[0.7, 0.4, 0.5]], [[0.6, 0.5, 0.55]]])
    >>> found = richness_advice(read_plane(2, [0.5, 1.0, 4.0], [0.1, 0.2, 0.4], 100, losses, 1.0))
    >>> found.gamma, found.cautions
    (1.0, ())
    """
    mean = np.where(np.isfinite(sweep.losses), sweep.losses, np.inf).mean(1).min(1)
    known = [k for k, one in enumerate(sweep.optima) if isfinite(one.value)]
    if not known:
        raise DataError(
            f"no run of the sweep got below {sweep.trained:g} of its initial loss; give more steps or other rates."
        )
    best = min(known, key=lambda k: float(mean[k]))
    gamma, rate = sweep.gammas[best], sweep.optima[best]
    cautions = []
    if len(known) > 1 and best in (known[0], known[-1]):
        side = "smallest" if best == known[0] else "largest"
        cautions.append(f"gamma = {gamma:.4g} is the {side} that trained; wider gammas or more steps may do better.")
    if rate.censored:
        cautions.append(f"the best rate at gamma = {gamma:.4g} lies at the end of the tried ones.")
    untrained = [sweep.gammas[k] for k in range(len(sweep.gammas)) if k not in known]
    if untrained:
        more = "; rich networks need about gamma^(1 - 2/L) times more" if untrained[-1] > 1 else ""
        which = ", ".join(f"{value:.4g}" for value in untrained)
        cautions.append(f"at gamma = {which} nothing trained within {sweep.steps} steps{more}.")
    lr = rate.value / richness_law(gamma, sweep.depth)
    return RichnessAdvice(gamma, rate, lr, float(mean[best]), tuple(float(v) for v in mean), tuple(cautions))
