"""Tensor programs, kernels: a simple recurrent network, against the recursion over pairs of time steps."""

import numpy as np
import torch
from torch import Tensor, nn

from widthwise.core import generator
from widthwise.studies._findings import Outcome, compare
from widthwise.studies._tensor_programs_kernels_finite import SLUG, kernel
from widthwise.studies._types import Scale

W, U, B = 1.2, 0.8, 0.1  # variances
STEPS: dict[Scale, int] = {"quick": 6, "full": 24}


class Unrolled(nn.Module):
    """``h = W s + U x + b, s = erf(h)`` over time, read out at the last step or from the mean over time."""

    def __init__(self, average: bool) -> None:
        super().__init__()
        self.w, self.u, self.last = nn.Linear(8, 8, bias=False), nn.Linear(3, 8), nn.Linear(8, 1, bias=False)
        self.average = average

    def forward(self, x: Tensor) -> Tensor:
        s, states = torch.zeros(x.shape[0], 8), []
        for t in range(x.shape[1]):
            s = torch.erf(self.w(s) + self.u(x[:, t]))
            states.append(s)
        return self.last(torch.stack(states, 1).mean(1) if self.average else s)


def closed_recursion(x: np.ndarray, average: bool) -> np.ndarray:
    """The tangent kernel ``[n, n]`` by gradients of unscaled matrices, for sequences ``[n, T, d]``."""
    count, steps, features = x.shape
    inner = np.einsum("itd,jsd->ijts", x, x) / features
    shape = (count, count, steps + 1, steps + 1)
    h, s, slope, back = np.zeros(shape), np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for t in range(1, steps + 1):
        for r in range(1, steps + 1):
            h[:, :, t, r] = B + U * inner[:, :, t - 1, r - 1]
        for a, c in [(r, t) for r in range(1, t + 1)] + [(t, r) for r in range(1, t)]:
            h[:, :, a, c] = W * s[:, :, a - 1, c - 1] + U * inner[:, :, a - 1, c - 1] + B
        for a, c in [(r, t) for r in range(1, t + 1)] + [(t, r) for r in range(1, t)]:
            p, q = (1 + 2 * np.diagonal(h[:, :, k, k]) for k in (a, c))
            root = p[:, None] * q[None]
            s[:, :, a, c] = 2 / np.pi * np.arcsin(2 * h[:, :, a, c] / np.sqrt(root))
            slope[:, :, a, c] = 4 / np.pi / np.sqrt(root - 4 * h[:, :, a, c] ** 2)
    end = np.arange(1, steps + 1) == steps
    read = np.ones((steps, steps)) / steps**2 if average else np.outer(end, end).astype(float)
    theta = np.einsum("ijts,ts->ij", s[:, :, 1:, 1:], read)
    for t in range(steps, 0, -1):
        for r in range(steps, 0, -1):
            after = back[:, :, t + 1, r + 1] if max(t, r) < steps else 0.0
            back[:, :, t, r] = slope[:, :, t, r] * (read[t - 1, r - 1] + W * after)
            theta += back[:, :, t, r] * (s[:, :, t - 1, r - 1] + inner[:, :, t - 1, r - 1] + 1)
    return theta


def recurrent(scale: Scale) -> Outcome:
    """The tangent kernel of the recurrent network, by the rules and by the recursion."""
    x = torch.randn(2, STEPS[scale], 3, generator=generator(0, SLUG, "recurrent"), dtype=torch.float64)
    scales = {"w.weight": W**0.5, "u.weight": U**0.5, "*": 1.0}
    rows, predicted, measured = [], [], []
    for name, average in (("mean over time", True), ("last step", False)):
        got = kernel(Unrolled(average), x, "plain", scales, B**0.5)(x).ntk
        expected = closed_recursion(x.numpy(), average)
        for i, j in ((0, 0), (0, 1), (1, 1)):
            rows.append(f"{name}, {i + 1}{j + 1}")
            predicted.append(float(expected[i, j]))
            measured.append(float(got[i, j]))
    detail = f"Two sequences of {STEPS[scale]} normal vectors of dimension 3; variances {W}, {U} and {B}; erf."
    return [compare("recurrent-recursion", rows, predicted, measured, detail, relative=1e-9)], {}
