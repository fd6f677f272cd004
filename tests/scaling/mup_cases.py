"""The networks that microsoft/mup and `parametrize` are compared on, written once: only the readout's class differs."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

Readout = Callable[..., nn.Module]


def mlp(width: int, readout: Readout = nn.Linear) -> nn.Module:
    return nn.Sequential(
        nn.Linear(12, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width, bias=False),
        nn.Tanh(), readout(width, 5),
    )  # fmt: skip


def uneven(width: int, readout: Readout = nn.Linear) -> nn.Module:
    """Widths that grow at different rates."""
    return nn.Sequential(
        nn.Linear(12, width), nn.ReLU(), nn.Linear(width, width**2 // 16), nn.ReLU(), nn.Linear(width**2 // 16, width),
        nn.ReLU(), readout(width, 5),
    )  # fmt: skip


class ResNet(nn.Module):
    """A stem, a block with a strided shortcut, pooling, readout."""

    def __init__(self, width: int, readout: Readout = nn.Linear) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(2 * width)
        self.conv2, self.norm2 = nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width)
        self.shortcut = nn.Conv2d(width, 2 * width, 1, stride=2, bias=False)
        self.readout = readout(2 * width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem_norm(self.stem(x)))
        branch = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        return self.readout(torch.relu(branch + self.shortcut(x)).mean((2, 3)))


class Transformer(nn.Module):
    """Token and position tables, one block with separate projections, norm, untied readout."""

    def __init__(self, width: int, readout: Readout = nn.Linear) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(11, width), nn.Parameter(torch.randn(6, width))
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.readout = readout(width, 11)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions
        h = self.norm1(x)
        q, k, v = (part(h).unflatten(-1, (4, -1)).transpose(1, 2) for part in (self.query, self.key, self.value))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, scale=8 / q.shape[-1])
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return self.readout(self.norm3(x + self.down(torch.relu(self.up(self.norm2(x))))))


CASES: dict[str, Callable[..., nn.Module]] = {
    "mlp": mlp,
    "uneven": uneven,
    "resnet": ResNet,
    "transformer": Transformer,
}
BASE, WIDTHS = 16, (16, 64, 80)


def example(name: str) -> Tensor:
    """A batch that the case takes."""
    generator = torch.Generator().manual_seed(0)
    if name == "resnet":
        return torch.randn(2, 3, 8, 8, generator=generator)
    if name == "transformer":
        return torch.randint(11, (2, 6), generator=generator)
    return torch.randn(4, 12, generator=generator)
