"""Tensor programs, kernels: a transformer block of the paper's kind at growing widths."""

import torch
from torch import Tensor, nn

from widthwise.probe import empirical_ntk, features
from widthwise.studies._findings import Outcome, compare
from widthwise.studies._tensor_programs_kernels_finite import (
    BIAS_STD,
    DRAWS,
    IMAGES,
    WEIGHT_STD,
    digits,
    gaussian,
    kernel,
    slope,
)
from widthwise.studies._types import Scale

WIDTHS: dict[Scale, tuple[int, ...]] = {"quick": (32, 64, 128, 256), "full": (64, 128, 256, 512, 1024, 2048)}


class Transformer(nn.Module):
    """Rows of an image as tokens: ``k = U x``, ``softmax(k k' / n) k + k``, layer norm, a perceptron with a skip, layer
    norm, and a readout of the mean over tokens. Only the square matrices are trained, so that all terms of the tangent
    kernel are of one order in the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, width), nn.Linear(width, 1)
        self.up, self.down = nn.Linear(width, width), nn.Linear(width, width)
        self.inner, self.outer = (nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        trained = {self.up.weight, self.down.weight}
        for parameter in self.parameters():
            parameter.requires_grad_(parameter in trained)

    def forward(self, x: Tensor) -> Tensor:
        k = self.first(x.squeeze(1))
        h = self.inner(torch.softmax(k @ k.transpose(1, 2) / k.shape[-1], -1) @ k + k)
        return self.last(self.outer(h + self.down(torch.relu(self.up(h)))).mean(1))


def errors(width: int, draws: int, x: Tensor) -> Tensor:
    """Relative Frobenius errors of NNGP and NTK, ``[draws, 2]``, against the limit at this width."""
    limit = kernel(Transformer(width), x, "standard")
    expected = (limit.nngp(x), limit(x).ntk)
    found = torch.empty(draws, 2, dtype=torch.float64)
    for draw in range(draws):
        net = gaussian(lambda: Transformer(width), "transformer", width, draw)
        h = features(net, x).flatten(1)
        got = (WEIGHT_STD**2 * h @ h.T / width + BIAS_STD**2, empirical_ntk(net, x))
        found[draw] = torch.stack([(g - e).norm() / e.norm() for g, e in zip(got, expected, strict=True)])
    return found


def attention(scale: Scale) -> Outcome:
    """Slopes of both errors against the width."""
    x, draws, widths = digits(), DRAWS[scale], WIDTHS[scale]
    found = [errors(width, draws, x) for width in widths]
    fits = [slope(widths, [one[:, column] for one in found]) for column in range(2)]
    rows = ("NNGP slope", "NTK slope")
    detail = f"{IMAGES} digits of eight rows, {draws} draws per width, widths {widths[0]} to {widths[-1]}."
    measured, uncertainty = zip(*fits, strict=True)
    return [compare("attention-rate", rows, [-0.5] * 2, measured, detail, uncertainty=uncertainty)], {}
