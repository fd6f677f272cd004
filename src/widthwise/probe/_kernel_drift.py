"""How far training moves the tangent kernel and the features of networks of growing width."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from widthwise.core import Axis, DataError, Figure, Line, Points, Value, seeded
from widthwise.core import progress as progress_bar
from widthwise.numerics import PowerLawFit, fit_power_law
from widthwise.probe._features import features
from widthwise.probe._modules import placed
from widthwise.probe._ntk import empirical_ntk
from widthwise.probe._training import descent


@dataclass(frozen=True)
class KernelDrift(Value):
    """Relative change of kernels from initialisation to the end of training, by width and draw.

    Attributes:
        widths: given to the factory.
        ntk: ``||T_t - T_0|| / ||T_0||`` (Frobenius) of the empirical tangent kernel, ``[widths, draws]``.
        features: the same of the mean product of the last hidden layer's activations.
        loss: loss at the end over loss at the start.
        rates: learning rates on the sum of squared errors / 2, ``[widths, draws]``.
        steps: of gradient descent.
    """

    widths: tuple[int, ...]
    ntk: Float[np.ndarray, "widths draws"]
    features: Float[np.ndarray, "widths draws"]
    loss: Float[np.ndarray, "widths draws"]
    rates: Float[np.ndarray, "widths draws"]
    steps: int

    @property
    def ntk_law(self) -> PowerLawFit:
        """Power law of the root mean square drift of the NTK: exponent near -1 when lazy, 0 where features learn."""
        return self._law(self.ntk)

    @property
    def feature_law(self) -> PowerLawFit:
        """The same of the features."""
        return self._law(self.features)

    def slope_error(self, resamples: int = 400, seed: int = 0) -> float:
        """Standard error of the exponent of `ntk_law`, by resampling draws."""
        source = np.random.default_rng(seed)
        draws = self.ntk.shape[1]
        chosen = source.integers(draws, size=(resamples, len(self.widths), draws))
        rows = np.arange(len(self.widths))[:, None]
        return float(np.std([self._law(self.ntk[rows, one]).slope for one in chosen]))

    def _law(self, drift: np.ndarray) -> PowerLawFit:
        return fit_power_law(self.widths, np.sqrt(np.square(drift).mean(1)))

    def plot(self) -> Figure:
        """Both drifts against width, with the law of the first."""
        at = tuple(float(width) for width in self.widths)
        parts: list[Points | Line] = []
        for slot, (name, drift) in enumerate((("tangent kernel", self.ntk), ("features", self.features))):
            root = np.sqrt(np.square(drift).mean(1))
            bars = np.square(drift).std(1) / np.sqrt(drift.shape[1]) / (2 * root)
            parts.append(Points(name, at, tuple(root.tolist()), tuple(bars.tolist()), slot))
            law = tuple(self._law(drift).predict(at).tolist())
            parts.append(Line(f"slope {self._law(drift).slope:.2f}", at, law, slot, dashed=True))
        caption = "Root mean square over draws of the relative change from initialisation to the end of training."
        return Figure("Kernel drift", Axis("width", "log"), Axis("relative change", "log"), tuple(parts), caption)


def kernel_drift(
    build: Callable[[int], nn.Module],
    widths: Sequence[int],
    x: Num[Tensor, "n *shape"],
    targets: Float[Tensor, "n outputs"],
    *,
    steps: int = 50,
    share: float | int = 0.5,
    rate: Callable[[int], float] | None = None,
    draws: int = 4,
    seed: int = 0,
    progress: bool = True,
) -> KernelDrift:
    """Train networks of several widths by full-batch gradient descent and compare kernels before and after.

    The relative change of the tangent kernel falls like 1/width where training is lazy (arXiv:1909.11304,
    arXiv:1909.08156), and does not fall where features are learned at every width (muP).

    Args:
        build: ``build(width)`` gives a module with a linear readout, initialised from PyTorch's global generator.
        x, targets: training set, targets as regression rows; the loss is half the sum of squared errors.
        steps: of gradient descent.
        share: learning rate as a share of the largest stable one at initialisation, ``2 / lambda_max``.
        rate: learning rate by width instead, for example of a parametrisation under test.
        draws: networks per width.

    Raises:
        DataError: the targets do not fit, a number is not finite, or draws or steps are not positive.
        ModelError: the module does not take the inputs or has no linear readout.

    >>> from widthwise.nn import mlp
    >>> x = torch.randn(6, 3)
    >>> drift = kernel_drift(lambda width: mlp(width, (3,), 1), [16, 64], x, x[:, :1], steps=5, draws=2)
    >>> drift.ntk.shape
    (2, 2)
    """
    if draws < 1 or steps < 1:
        raise DataError(f"draws={draws} and steps={steps} must both be at least 1.")
    found = np.empty((4, len(widths), draws))
    with progress_bar("kernel drift", float(draws * len(widths)), show=progress) as advance:
        for row, width in enumerate(widths):
            for draw in range(draws):
                with seeded(seed, "kernel drift", width, draw):
                    module = build(width)
                chosen = None if rate is None else float(rate(width))
                found[:, row, draw] = _drift(
                    module, placed(module, x, "x"), placed(module, targets, "targets"), steps, float(share), chosen
                )
                advance(1)
    return KernelDrift(tuple(int(width) for width in widths), found[0], found[1], found[2], found[3], steps)


def _drift(
    module: nn.Module, x: Tensor, targets: Tensor, steps: int, share: float, rate: float | None
) -> tuple[float, ...]:
    before, seen = empirical_ntk(module, x, outputs="full"), _gram(module, x)
    if rate is None:
        size = len(x) * before.shape[2]
        matrix = before.permute(0, 2, 1, 3).reshape(size, size)
        rate = share * 2 / float(torch.linalg.eigvalsh(matrix)[-1])
    losses = [loss for _, loss in zip(range(steps + 1), descent(module, x, targets, rate), strict=False)]
    after, now = empirical_ntk(module, x, outputs="full"), _gram(module, x)
    changes = (float((b - a).norm() / a.norm()) for a, b in ((before, after), (seen, now)))
    return (*changes, losses[-1] / losses[0], rate)


def _gram(module: nn.Module, x: Tensor) -> Tensor:
    hidden = features(module, x).flatten(1)
    return hidden @ hidden.T / hidden.shape[1]
