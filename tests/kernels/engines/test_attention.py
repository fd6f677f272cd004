"""The token machine on transformers, against PyTorch's engine and against closed forms."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.kernels.networks import Function
from widthwise.core import DataError
from widthwise.kernels import Limit, infinite
from widthwise.kernels.engines._kept import _plans
from widthwise.program import trace

WIDTH, HEADS, TOKENS = 24, 3, 12
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}


class Attention(nn.Module):
    """Several heads with scores over the head size; queries are the keys (else scores vanish).

    Args:
        mask: made from the positions and the layer's input, added to the scores.
    """

    def __init__(self, *, tied: bool = True, causal: bool = False, softmax: bool = True, bias: bool = True) -> None:
        super().__init__()
        self.tied, self.causal, self.softmax = tied, causal, softmax
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH, bias=bias) for _ in range(4))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = (part(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in (self.q, self.k, self.v))
        q, scale = k if self.tied else q, HEADS / WIDTH
        if self.softmax:
            y = functional.scaled_dot_product_attention(q, k, v, mask, is_causal=self.causal, scale=scale)
        else:
            y = (q @ k.transpose(-1, -2) * scale) @ v
        return self.o(y.transpose(1, 2).flatten(2))


class Pre(nn.Module):
    """Norms in front of attention and perceptron."""

    def __init__(self, activation: nn.Module | None = None, **attention: bool) -> None:
        super().__init__()
        self.attention, self.first, self.second = Attention(**attention), nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.activation = activation or nn.GELU()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.attention(self.first(x), mask)
        return x + self.down(self.activation(self.up(self.second(x))))


class Post(Pre):
    """Norms behind the sums."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.first(x + self.attention(x, mask))
        return self.second(x + self.down(self.activation(self.up(x))))


class Language(nn.Module):
    """Tokens and positions, blocks, a linear readout of every position, of the first one, or of their mean."""

    def __init__(self, block: Callable[[], nn.Module], length: int = 6, read: str = "all", pad: int | None = None):
        super().__init__()
        self.token, self.position = nn.Embedding(TOKENS, WIDTH, padding_idx=pad), nn.Embedding(length, WIDTH)
        self.blocks = nn.ModuleList([block() for _ in range(2)])
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3)
        self.read, self.pad = read, pad

    def forward(self, ids: Tensor) -> Tensor:
        x = self.token(ids) + self.position(torch.arange(ids.shape[1]))
        mask = None if self.pad is None else (ids != self.pad)[:, None, None, :]
        for block in self.blocks:
            x = block(x, mask)
        x = self.norm(x)
        return self.head(x if self.read == "all" else x[:, 0] if self.read == "first" else x.mean(1))


class Vision(nn.Module):
    """Patches (or a convolutional stem), with a class token or the mean over patches as readout."""

    def __init__(self, stem: nn.Module, patches: int, token: bool) -> None:
        super().__init__()
        self.stem, self.block, self.head = stem, Pre(), nn.Linear(WIDTH, 3)
        self.token = nn.Parameter(torch.randn(1, 1, WIDTH)) if token else None
        self.position = nn.Parameter(torch.randn(1, patches + token, WIDTH)) if patches else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        if self.token is not None:
            x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        x = self.block(x if self.position is None else x + self.position)
        return self.head(x[:, 0] if self.token is not None else x.mean(1))


class Biased(nn.Module):
    """Scores with a constant bias for each head and pair of positions."""

    def __init__(self, length: int = 5) -> None:
        super().__init__()
        slopes, places = torch.tensor([0.5, 0.25, 0.125]), torch.arange(length)
        self.register_buffer("bias", -slopes[:, None, None] * (places[:, None] - places).abs())
        self.first, self.attention, self.last = nn.Linear(4, WIDTH), Attention(), nn.Linear(WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(functional.relu(self.attention(self.first(x), self.bias)))


def stem() -> nn.Module:
    """Two convolutions and a pool: positions that overlap, and an activation under the first norm."""
    return nn.Sequential(
        nn.Conv2d(1, WIDTH, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ReLU()
    )


def sequences(*layers: nn.Module, pool: bool = True) -> nn.Module:
    """Layers between a linear one and a readout."""
    net = {"first": nn.Linear(4, WIDTH), "inner": nn.Sequential(*layers), "last": nn.Linear(WIDTH, 1)}
    return Function(lambda m, x: m.last(m.inner(m.first(x)).mean(1) if pool else m.inner(m.first(x))), **net)


def flattened() -> nn.Module:
    """All patches side by side in front of the readout."""

    def forward(m: Function, x: Tensor) -> Tensor:
        return m.last(m.inner(m.stem(x).flatten(2).transpose(1, 2)).transpose(1, 2).flatten(1))

    return Function(forward, stem=nn.Conv2d(3, WIDTH, 2, 2), inner=Pre(), last=nn.Linear(6 * WIDTH, 1))


@dataclass(frozen=True)
class Case:
    """A network, the shape of one input, and whether inputs are tokens."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    tokens: bool = False


def padded() -> nn.Module:
    return Language(lambda: Pre(), read="mean", pad=0)


CASES = {
    "gpt": Case(lambda: Language(lambda: Pre(tied=False, causal=True)), (6,), True),
    "gpt, tied": Case(lambda: Language(lambda: Pre(causal=True)), (6,), True),
    "bert": Case(lambda: Language(lambda: Post(), read="first"), (6,), True),
    "mean of tokens": Case(lambda: Language(lambda: Post(nn.ReLU()), read="mean"), (6,), True),
    "padding": Case(padded, (6,), True),
    "vit": Case(lambda: Vision(nn.Conv2d(3, WIDTH, 2, 2), 6, token=True), (3, 4, 6)),
    "vit, mean": Case(lambda: Vision(nn.Conv2d(3, WIDTH, 2, 2), 6, token=False), (3, 4, 6)),
    "convolutions below": Case(lambda: Vision(stem(), 0, token=False), (1, 6, 4)),
    "one token": Case(lambda: sequences(Pre()), (1, 4)),
    "seventeen tokens": Case(lambda: sequences(Pre(nn.ReLU())), (17, 4)),
    "tokens out": Case(lambda: sequences(Post(), pool=False), (5, 4)),
    "flattened": Case(flattened, (3, 4, 6)),
    "weights without softmax": Case(lambda: sequences(Pre(softmax=False)), (5, 4)),
    "bias for each head": Case(Biased, (5, 4)),
    "deep": Case(lambda: sequences(*[Pre() for _ in range(4)]), (4, 4)),
    "sine": Case(lambda: sequences(Pre(Function(lambda m, x: torch.sin(1.3 * x + 0.2)), bias=False)), (5, 4)),
}  # fmt: skip


def inputs(case: Case, count: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if case.tokens:
        return torch.randint(0, TOKENS, (count, *case.shape), generator=generator)
    return torch.randn(count, *case.shape, generator=generator, dtype=torch.float64)


def limits(case: Case, parametrization: str = "ntk") -> tuple[Limit, Limit]:
    """The same limit on the fused engine and on PyTorch's."""
    torch.manual_seed(0)
    example = inputs(case, 2)
    program = trace(case.build().eval(), example if case.tokens else example.float())
    found = [infinite(program, parametrization, 1.3, 0.2, engine=engine) for engine in ("numba", "torch")]
    return found[0], found[1]


def assert_agree(got: Tensor, expected: Tensor, dtype: torch.dtype, factor: float = 1.0) -> None:
    assert got.dtype == dtype
    tolerance = factor * TOLERANCE[dtype]
    scale = tolerance * float(expected.abs().max())
    torch.testing.assert_close(got.double(), expected.double(), rtol=tolerance, atol=scale)


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_torch(name: str) -> None:
    """Symmetric and rectangular, both precisions, and where every gain and bias is trained."""
    case = CASES[name]
    x1, x2 = inputs(case, 5), inputs(case, 3, seed=2)
    for parametrization in ("ntk", "standard"):
        fused, plain = limits(case, parametrization)
        for pair in ((x1, None), (x1, x2)):
            expected = plain(*pair)
            for dtype in TOLERANCE:
                found = fused(*pair, dtype=dtype)
                assert_agree(found.nngp, expected.nngp, dtype)
                assert_agree(found.ntk, expected.ntk, dtype)


def test_blocks_and_tiles_join(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers of inputs that fill no register, several tiles, several threads."""
    case = CASES["gpt, tied"]
    fused, plain = limits(case)
    x1, x2 = inputs(case, 37), inputs(case, 21, seed=2)
    expected = plain(x1), plain(x1, x2)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        for most in (4096, 16):
            monkeypatch.setattr("widthwise.kernels.engines._tokens_run.MOST_SIDE", most)
            monkeypatch.setattr("widthwise.kernels.engines._tokens_run.LEAST_SIDE", 16)
            for dtype in TOLERANCE:
                found = fused(x1, dtype=dtype), fused(x1, x2, dtype=dtype)
                assert torch.equal(found[0].ntk, found[0].ntk.T)
                for got, right in zip(found, expected, strict=True):
                    assert_agree(got.nngp, right.nngp, dtype)
                    assert_agree(got.ntk, right.ntk, dtype)
    finally:
        torch.set_num_threads(threads)


X = torch.randn(3, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_softmax_of_the_kernel_itself() -> None:
    """``A K A'`` with ``A = softmax(K)`` by hand: the attention of arXiv:2006.10540 with tied queries and keys."""

    def forward(m: Function, x: Tensor) -> Tensor:
        k = m.first(x)
        return m.last((functional.softmax(k @ k.transpose(1, 2) / WIDTH, -1) @ m.value(x)).mean(1))

    layers = {name: nn.Linear(4, WIDTH, bias=False) for name in ("first", "value")}
    net = Function(forward, **layers, last=nn.Linear(WIDTH, 1, bias=False))
    limit = infinite(trace(net, X[:2].float()), weight_std=1.0, engine="numba")
    k = torch.einsum("apd,bqd->abpq", X, X) / 4
    own = torch.stack([k[i, i] for i in range(3)]).softmax(-1)
    expected = torch.einsum("apq,abqs,brs->abpr", own, k, own).mean((2, 3))
    torch.testing.assert_close(limit(X).nngp, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(limit(X).ntk, 2 * expected, rtol=1e-12, atol=0)


def test_vanishing_scores_average() -> None:
    """Untied queries and keys over the head size: every token gets the mean of those it may attend to."""
    net = sequences(Attention(tied=False, causal=True, bias=False), pool=False)
    for parameter in net.parameters():
        parameter.data.zero_() if parameter.dim() == 1 else None
    limit = infinite(trace(net, X[:2].float()), weight_std=1.0, bias_std=0.0, engine="numba")
    weights = torch.ones(3, 3, dtype=torch.float64).tril() / torch.arange(1, 4)[:, None]
    moment = torch.einsum("pq,apqd->apd", weights, X.unsqueeze(1).expand(-1, 3, -1, -1))
    expected = torch.einsum("apd,bpd->ab", moment, moment) / 12
    torch.testing.assert_close(limit(X).nngp, expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(limit(X).ntk, 4 * expected, rtol=1e-12, atol=1e-14)


def test_single_kernels_and_features() -> None:
    case = CASES["bert"]
    fused, plain = limits(case)
    x = inputs(case, 4)
    assert_agree(fused.nngp(x), plain.nngp(x), torch.float64)
    for got, expected in zip(fused.ntk_and_features(x), plain.ntk_and_features(x), strict=True):
        assert_agree(got, expected, torch.float64)


def test_one_input() -> None:
    case = CASES["bert"]
    fused, plain = limits(case)
    x = inputs(case, 1)
    for dtype in TOLERANCE:
        assert_agree(fused(x, dtype=dtype).ntk, plain(x).ntk, dtype)


def test_plans_are_made_once() -> None:
    fused, _ = limits(CASES["bert"])
    x = inputs(CASES["bert"], 3)
    fused(x)
    before = dict(_plans[fused])
    fused(x)
    assert len(before) == 2 and _plans[fused] == before
    for _ in range(20):
        fused.feature_kernel(x)
    assert len(_plans[fused]) <= 8


def test_tokens_outside_the_table_are_refused() -> None:
    fused, _ = limits(CASES["bert"])
    with pytest.raises(DataError, match=f"token {TOKENS} is not in table"):
        fused(torch.full((2, 6), TOKENS))


@pytest.mark.parametrize(
    "net",
    [
        sequences(nn.TransformerEncoderLayer(WIDTH, HEADS, 2 * WIDTH, batch_first=True)),
        sequences(Pre(nn.Tanh())),
    ],
    ids=["random scores", "tanh"],
)
def test_what_does_not_fit_is_left_to_torch(net: nn.Module) -> None:
    """Scores over the root of the head size are random: means over heads are sampled, by PyTorch."""
    program = trace(net.eval(), torch.randn(2, 5, 4))
    limit = infinite(program)
    assert torch.isfinite(limit(torch.randn(2, 5, 4)).ntk).all()
    with pytest.raises(DataError, match="engine 'numba' does not fit"):
        infinite(program, engine="numba")(torch.randn(2, 5, 4))


def test_gradients_are_left_to_torch() -> None:
    case = CASES["tokens out"]
    program = trace(case.build(), inputs(case, 2).float())
    x = inputs(case, 2).requires_grad_()
    infinite(program)(x).ntk.sum().backward()
    assert x.grad is not None and math.isfinite(float(x.grad.norm()))
