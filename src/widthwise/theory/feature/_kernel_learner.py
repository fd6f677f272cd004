"""Few-shot learners in the kernel limits: functions that grow by one kernel bump per example seen.

Source: Yang & Hu 2021 (arXiv:2011.14522), MAML experiments: NNGP and NTK baselines.
"""

from collections.abc import Callable
from math import pi

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from widthwise.theory.feature._episodes import Episodes
from widthwise.theory.feature._errors import FeatureLimitError
from widthwise.theory.feature._meta import clip_factor

Kernel = Callable[[Tensor, Tensor], Tensor]
"""``[*, n, inputs]`` and ``[*, m, inputs]`` in, ``[*, n, m]`` out."""


def linear_kernel(x: Float[Tensor, "*b n d"], y: Float[Tensor, "*b m d"]) -> Float[Tensor, "*b n m"]:
    """NNGP kernel of linear networks, and up to a factor their NTK."""
    return x @ y.mT


def relu_kernels(
    *, weight_variance: float = 1.0, bias_variance: float = 0.0, readout_variance: float = 1.0
) -> tuple[Kernel, Kernel]:
    """NNGP and tangent kernel of one hidden layer of ReLU units, first and readout weights trained.

    ``E relu(h) relu(h')`` and that plus ``readout_variance E relu'(h) relu'(h') x.x'``, with h of variance
    ``weight_variance |x|^2 + bias_variance``.

    >>> x = torch.ones(1, 1, dtype=torch.float64)
    >>> [float(kernel(x, x)) for kernel in relu_kernels()]
    [0.5, 1.0]
    """

    def parts(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        s, t = ((weight_variance * z.square().sum(-1) + bias_variance).sqrt() for z in (x, y))
        size = (s[..., :, None] * t[..., None, :]).clamp_min(torch.finfo(x.dtype).tiny)
        q = ((weight_variance * x @ y.mT + bias_variance) / size).clamp(-1, 1)
        angle = torch.acos(-q)
        return size * ((1 - q * q).sqrt() + angle * q) / (2 * pi), angle / (2 * pi)

    def nngp(x: Tensor, y: Tensor) -> Tensor:
        return parts(x, y)[0]

    def ntk(x: Tensor, y: Tensor) -> Tensor:
        value, slope = parts(x, y)
        return value + readout_variance * slope * (x @ y.mT)

    return nngp, ntk


class KernelLearner:
    """First-order MAML in the kernel regime: ``f(x) = sum_s K(x, x_s) c_s``, zero at first.

    A step of gradient descent with output gradients d at inputs x appends the rows x with coefficients ``-rate d``; an
    inner loop keeps its rows to itself; weight decay would multiply the coefficients. The norm of a gradient, which
    clipping needs, is ``tr(d' K d)^(1/2)``.

    Args:
        kernel: `linear_kernel`, one of `relu_kernels`, or any other.
        ways: outputs.

    Raises:
        FeatureLimitError: fewer than two outputs.

    >>> learner = KernelLearner(linear_kernel, 5)
    >>> learner(torch.ones(3, 7)).shape
    torch.Size([3, 5])
    """

    def __init__(self, kernel: Kernel, ways: int) -> None:
        if ways < 2:
            raise FeatureLimitError(f"ways={ways} is too small; a task tells at least 2 classes apart.")
        self.kernel, self.ways = kernel, ways
        self._rows: list[Tensor] = []
        self._coefficients: list[Tensor] = []

    def __call__(self, x: Float[Tensor, "points inputs"]) -> Float[Tensor, "points ways"]:
        """The function before adaptation."""
        if not self._rows:
            return x.new_zeros(len(x), self.ways)
        return self.kernel(x, torch.cat(self._rows)) @ torch.cat(self._coefficients)

    def append(self, x: Float[Tensor, "points inputs"], coefficients: Float[Tensor, "points ways"]) -> None:
        """Add ``sum K(., x) c`` to the function."""
        self._rows.append(x)
        self._coefficients.append(coefficients)

    def decay(self, factor: float) -> None:
        """Multiply the function by a factor, as a step of weight decay does."""
        self._coefficients = [factor * one for one in self._coefficients]

    def adapt(self, tasks: Episodes, steps: int, rate: float) -> Float[Tensor, "tasks queries ways"]:
        """Outputs at the queries after `steps` of gradient descent on each task's support."""
        count = tasks.support.shape[1]
        both = torch.cat([tasks.support, tasks.queries], 1)
        f = self(both.flatten(0, 1)).unflatten(0, both.shape[:2])
        push = self.kernel(both, tasks.support)
        wanted = one_hot(tasks.support_labels, self.ways).to(f.dtype)
        for _ in range(steps):
            f = f - rate * push @ (f[:, :count].softmax(-1) - wanted) / count
        return f[:, count:]

    def meta_step(self, tasks: Episodes, steps: int, inner_rate: float, rate: float, clip: float | None) -> float:
        """One step of first-order MAML; returns the loss before it."""
        f = self.adapt(tasks, steps, inner_rate)
        loss = float(cross_entropy(f.flatten(0, 1), tasks.query_labels.flatten()))
        wanted = one_hot(tasks.query_labels, self.ways).to(f.dtype)
        d = ((f.softmax(-1) - wanted) / tasks.query_labels.numel()).flatten(0, 1)
        x = tasks.queries.flatten(0, 1)
        size = float((d * (self.kernel(x, x) @ d)).sum().clamp_min(0).sqrt())
        self.append(x, -rate * clip_factor(size, clip) * d)
        return loss
