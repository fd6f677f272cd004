"""Modules of many architectures, and an interpreter that runs a traced program on real tensors."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from widthwise.program import Program, Ref, trace


def run_program(program: Program, inputs: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> dict[str, Any]:
    """Every node's value, computed with its own target; `values` replaces weights and constants by node name."""
    results: dict[str, Any] = {}

    def filled(value: Any) -> Any:
        if isinstance(value, Ref):
            return results[value.name]
        if isinstance(value, (list, tuple)):
            return type(value)(filled(item) for item in value)
        return value

    with torch.no_grad():
        for node in program.nodes:
            if node.kind == "input":
                results[node.name] = inputs[node.name].clone()
            elif node.kind == "op":
                kwargs = {key: filled(value) for key, value in node.kwargs.items()}
                results[node.name] = node.target(*filled(node.args), **kwargs)
            else:
                held = values.get(node.name, node.value)
                results[node.name] = held.clone() if node.kind == "constant" and held is not None else held
    return results


class CNN(nn.Module):
    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(2)
        self.second = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.head = nn.Linear(2 * width * 2 * 3, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.pool(self.relu(self.norm(self.first(x))))
        h = self.second(h)
        h += 1
        return self.head(h.relu_().flatten(1))


class Residual(nn.Module):
    def __init__(self, width: int = 16, depth: int = 2) -> None:
        super().__init__()
        self.stem = nn.Linear(3, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
            for _ in range(depth)
        )
        self.head = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        for block in self.blocks:
            h = h + block(h)
        return self.head(h)


class TiedAutoencoder(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, 5))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x @ self.weight.t()) @ self.weight


class SharedHead(nn.Module):
    """A token model whose readout is its embedding, under a second name."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, width)
        self.norm = nn.LayerNorm(width)
        self.readout = nn.Linear(width, 11, bias=False)
        self.readout.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        hidden = self.norm(self.embed(tokens))
        with torch.no_grad():
            size = hidden.square().mean()
        return {"size": size, "logits": self.readout(hidden)}


class Grouped(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv1d(3, 2 * width, 1)
        self.grouped = nn.Conv1d(2 * width, 4 * width, 3, padding=1, groups=2)
        self.depthwise = nn.Conv1d(4 * width, 4 * width, 3, padding=1, groups=4 * width)
        self.norm = nn.GroupNorm(1, 4 * width)
        self.head = nn.Conv1d(4 * width, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.depthwise(self.grouped(self.stem(x).tanh()).tanh()))
        return self.head(h).mean(-1)


class Attention(nn.Module):
    """Causal self-attention written out with views, with two tokens' worth of learned position."""

    def __init__(self, width: int = 12, heads: int = 3) -> None:
        super().__init__()
        self.heads = heads
        self.embed = nn.Embedding(7, width)
        self.position = nn.Parameter(0.02 * torch.randn(1, 5, width))
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.head = nn.Linear(width, 7)

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.embed(tokens) + self.position
        batch, length, width = h.shape

        def split(x: Tensor) -> Tensor:
            return x.view(batch, length, self.heads, -1).transpose(1, 2)

        query, key, value = split(self.query(h)), split(self.key(h)), split(self.value(h))
        scores = query @ key.transpose(-2, -1) / (width // self.heads) ** 0.5
        mask = torch.ones(length, length, dtype=torch.bool).tril()
        weights = scores.masked_fill(~mask, float("-inf")).softmax(-1)
        mixed = (weights @ value).transpose(1, 2).reshape(batch, length, width)
        return self.head(h + self.out(mixed))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], width: int = 6) -> None:
        super().__init__()
        self.core = kind(3, width, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * width, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.core(x)[0][:, -1])


class Bilinear(nn.Module):
    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, width), nn.Linear(4, 2 * width)
        self.mixed, self.head = nn.Bilinear(width, 2 * width, width), nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.mixed(self.first(x).tanh(), self.second(x).tanh())))


class Generator(nn.Sequential):
    def __init__(self, width: int = 3) -> None:
        super().__init__(
            nn.Linear(5, width * 4 * 4),
            nn.Unflatten(1, (width, 4, 4)),
            nn.ConvTranspose2d(width, 2 * width, 4, 2, 1),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.Conv2d(2 * width, 4 * width, 3, padding=1),
            nn.PixelShuffle(2),
            nn.Conv2d(width, 3, 1),
        )


def _mlp(width: int = 8) -> nn.Module:
    return nn.Sequential(
        nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2 * width), nn.Tanh(), nn.Linear(2 * width, 3)
    )


def _encoder(width: int = 12) -> nn.Module:
    layer = nn.TransformerEncoderLayer(width, 3, 2 * width, batch_first=True, norm_first=True)
    return nn.Sequential(
        nn.Linear(4, width), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(width, 2)
    )


def _tokens(*shape: int) -> Tensor:
    return torch.randint(0, 7, shape)


ZOO: dict[str, tuple[Callable[..., nn.Module], Callable[[int], Tensor]]] = {
    "mlp": (_mlp, lambda n: torch.randn(n, 4)),
    "cnn": (CNN, lambda n: torch.randn(n, 3, 8, 12)),
    "residual": (Residual, lambda n: torch.randn(n, 3)),
    "tied autoencoder": (TiedAutoencoder, lambda n: torch.randn(n, 5)),
    "shared head": (SharedHead, lambda n: _tokens(n, 4)),
    "grouped": (Grouped, lambda n: torch.randn(n, 3, 7)),
    "attention": (Attention, lambda n: _tokens(n, 5)),
    "encoder": (_encoder, lambda n: torch.randn(n, 5, 4)),
    "lstm": (lambda width=6: Recurrent(nn.LSTM, width), lambda n: torch.randn(n, 5, 3)),
    "gru": (lambda width=6: Recurrent(nn.GRU, width), lambda n: torch.randn(n, 5, 3)),
    "rnn": (lambda width=6: Recurrent(nn.RNN, width), lambda n: torch.randn(n, 5, 3)),
    "bilinear": (Bilinear, lambda n: torch.randn(n, 4)),
    "generator": (Generator, lambda n: torch.randn(n, 5)),
}


Case = tuple[nn.Module, Tensor, Program]


@functools.cache
def traced(name: str) -> Case:
    """A module in evaluation mode with random statistics and gains, one batch of three examples, and its program."""
    torch.manual_seed(0)
    build, inputs = ZOO[name]
    module, batch = build().eval(), inputs(3)
    with torch.no_grad():
        for buffer in module.buffers():
            if buffer.is_floating_point():
                buffer.uniform_(0.5, 2.0)
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module, batch, trace(module, batch)


@pytest.fixture(params=list(ZOO))
def case(request: pytest.FixtureRequest) -> Case:
    return traced(request.param)


@pytest.fixture
def execute() -> Callable[..., dict[str, Any]]:
    return run_program


@pytest.fixture
def zoo() -> dict[str, tuple[Callable[..., nn.Module], Callable[[int], Tensor]]]:
    return ZOO
