"""Networks that the kernel tests share: name -> how to build one at a width, and inputs for it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


class Function(nn.Module):
    """A module whose forward pass is given: ``forward(self, x)``."""

    def __init__(self, function: Callable[["Function", Tensor], Tensor], **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


class Block(nn.Module):
    """``x + f(x)``."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.branch = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


@dataclass(frozen=True)
class Network:
    """`build(width)` makes a network with 4 outputs; `shape` is that of one input; `tokens` the vocabulary, if any."""

    build: Callable[[int], nn.Module]
    shape: tuple[int, ...]
    tokens: int = 0
    sampled: bool = False

    def inputs(self, count: int, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        if self.tokens:
            return torch.randint(0, self.tokens, (count, *self.shape), generator=generator)
        return torch.randn(count, *self.shape, generator=generator, dtype=torch.float64)


OUTPUTS = 4


def mlp(*between: Callable[[int], nn.Module], **options: bool) -> Callable[[int], nn.Module]:
    def build(width: int) -> nn.Module:
        layers = [nn.Linear(3, width, **options), *(make(width) for make in between)]
        layers += [nn.Linear(width, width, **options), nn.ReLU(), nn.Linear(width, OUTPUTS, **options)]
        return nn.Sequential(*layers)

    return build


def zeroed(width: int) -> nn.Module:
    net = mlp(lambda n: nn.ReLU())(width)
    for name, parameter in net.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
    return net


def evaluated_batch_norm(width: int) -> nn.Module:
    net = nn.Sequential(
        nn.Conv2d(2, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Flatten(), nn.Linear(9 * width, OUTPUTS)
    )
    net[1].running_mean.fill_(0.3)
    net[1].running_var.fill_(0.5)
    nn.init.constant_(net[1].weight, 0.7)
    nn.init.constant_(net[1].bias, 0.2)
    return net.eval()


def tower(dims: int) -> Callable[[int], nn.Module]:
    conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]
    pool = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}[dims]
    return lambda n: nn.Sequential(
        conv(2, n, 3, padding=1), nn.ReLU(), conv(n, n, 3, stride=2), nn.GELU(), pool(1), nn.Flatten(),
        nn.Linear(n, OUTPUTS),
    )  # fmt: skip


def preactivation(n: int) -> nn.Module:
    blocks = [Block(nn.ReLU(), nn.Linear(n, n)) for _ in range(2)]
    return nn.Sequential(nn.Linear(3, n), *blocks, nn.ReLU(), nn.Linear(n, OUTPUTS))


def postactivation(n: int) -> nn.Module:
    blocks = [m for _ in range(2) for m in (Block(nn.Linear(n, n), nn.Tanh(), nn.Linear(n, n)), nn.ReLU())]
    return nn.Sequential(nn.Linear(3, n), nn.ReLU(), *blocks, nn.Linear(n, OUTPUTS))


def concatenation(n: int) -> nn.Module:
    def forward(m: Function, x: Tensor) -> Tensor:
        h = m.first(x)
        return m.last(torch.cat([functional.relu(m.left(functional.relu(h))), torch.tanh(m.right(h))], -1))

    return Function(
        forward,
        first=nn.Linear(3, n),
        left=nn.Linear(n, n),
        right=nn.Linear(n, 2 * n),
        last=nn.Linear(3 * n, OUTPUTS),
    )


def reused(n: int) -> nn.Module:
    """The same matrix three times, with a skip around it."""

    def forward(m: Function, x: Tensor) -> Tensor:
        h = functional.relu(m.first(x))
        for _ in range(3):
            h = functional.relu(m.again(h) + m.skip(x))
        return m.last(h)

    return Function(
        forward, first=nn.Linear(3, n), again=nn.Linear(n, n), skip=nn.Linear(3, n), last=nn.Linear(n, OUTPUTS)
    )


def tokens(n: int, position: Tensor | None = None, padding: int | None = None) -> nn.Module:
    def forward(m: Function, x: Tensor) -> Tensor:
        h = functional.relu(m.hidden(m.table(x) + m.position))
        return m.last(h.mean(1))

    position = torch.randn(6, n) if position is None else position
    parts = {"hidden": nn.Linear(n, n), "last": nn.Linear(n, OUTPUTS)}
    return Function(forward, table=nn.Embedding(9, n, padding_idx=padding), position=nn.Parameter(position), **parts)


def token_positions(n: int) -> nn.Module:
    def forward(m: Function, x: Tensor) -> Tensor:
        return m.last(functional.relu(m.hidden(m.table(x) + m.place(torch.arange(6)))).mean(1))

    parts = {"hidden": nn.Linear(n, n), "last": nn.Linear(n, OUTPUTS)}
    return Function(forward, table=nn.Embedding(9, n), place=nn.Embedding(6, n), **parts)


def product(n: int) -> nn.Module:
    """A gated layer: two branches of one hidden layer, multiplied."""

    def forward(m: Function, x: Tensor) -> Tensor:
        h = functional.relu(m.first(x))
        return m.last(functional.silu(m.gate(h)) * m.value(h))

    return Function(
        forward, first=nn.Linear(3, n), gate=nn.Linear(n, n), value=nn.Linear(n, n), last=nn.Linear(n, OUTPUTS)
    )


def group_normalised(n: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, n, 3), nn.ReLU(), nn.GroupNorm(2, n), nn.Conv1d(n, n, 3, padding=1), nn.GroupNorm(4, n), nn.GELU(),
        nn.Flatten(), nn.Linear(4 * n, OUTPUTS),
    )  # fmt: skip


def exits(n: int) -> nn.Module:
    """One readout for two layers: the output stays linear in it."""

    def forward(m: Function, x: Tensor) -> Tensor:
        h = functional.relu(m.first(x))
        return m.last(h) + m.last(functional.relu(m.second(h)))

    return Function(forward, first=nn.Linear(3, n), second=nn.Linear(n, n), last=nn.Linear(n, OUTPUTS))


def stored_transposed(n: int) -> nn.Module:
    def forward(m: Function, x: Tensor) -> Tensor:
        return m.last(functional.relu(functional.relu(m.first(x)) @ m.w))

    return Function(
        forward, first=nn.Linear(3, n), w=nn.Parameter(torch.randn(n, n) / n**0.5), last=nn.Linear(n, OUTPUTS)
    )


NETWORKS: dict[str, Network] = {
    "mlp": Network(mlp(lambda n: nn.ReLU()), (3,)),
    "mlp without biases": Network(mlp(lambda n: nn.GELU(), bias=False), (3,)),
    "mlp with zero biases": Network(zeroed, (3,)),
    **{
        name: Network(mlp(lambda n, make=make: make()), (3,))
        for name, make in (
            ("tanh", nn.Tanh), ("silu", nn.SiLU), ("elu", nn.ELU), ("hardtanh", nn.Hardtanh),
            ("softplus", nn.Softplus), ("mish", nn.Mish), ("sigmoid", nn.Sigmoid), ("selu", nn.SELU),
        )
    },
    "layer norm": Network(mlp(nn.LayerNorm, lambda n: nn.ReLU()), (3,)),
    "layer norm after relu": Network(mlp(lambda n: nn.ReLU(), nn.LayerNorm), (3,)),
    "layer norm and tanh": Network(mlp(lambda n: nn.ReLU(), nn.LayerNorm, lambda n: nn.Tanh()), (3,), sampled=True),
    "rms norm": Network(mlp(lambda n: nn.GELU(), nn.RMSNorm), (3,)),
    "group norm": Network(group_normalised, (2, 6)),
    "batch norm in eval mode": Network(evaluated_batch_norm, (2, 5, 5)),
    "dropout in eval mode": Network(mlp(lambda n: nn.ReLU(), lambda n: nn.Dropout(0.5)), (3,)),
    "cnn1d": Network(tower(1), (2, 7)),
    "cnn2d": Network(tower(2), (2, 5, 5)),
    "cnn3d": Network(tower(3), (2, 3, 3, 3)),
    "preactivation": Network(preactivation, (3,)),
    "postactivation": Network(postactivation, (3,), sampled=True),
    "concatenation": Network(concatenation, (3,)),
    "reused matrix": Network(reused, (3,)),
    "readout of two layers": Network(exits, (3,)),
    "gated": Network(product, (3,)),
    "stored transposed": Network(stored_transposed, (3,)),
    "tokens": Network(tokens, (6,), tokens=9),
    "tokens with padding": Network(lambda n: tokens(n, padding=0), (6,), tokens=9),
    "tokens with zero positions": Network(lambda n: tokens(n, torch.zeros(6, n)), (6,), tokens=9),
    "tokens with looked-up positions": Network(token_positions, (6,), tokens=9),
}  # fmt: skip
