"""Every engine on every architecture that it recognises, against PyTorch's engine."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from tests.kernels.networks import Block
from widthwise.core import DataError
from widthwise.kernels import Limit, infinite
from widthwise.kernels.engines import compile_plan
from widthwise.program import trace

C = 8
SCALES = {"weight_std": 1.3, "bias_std": 0.2}
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-6}


@dataclass(frozen=True)
class Case:
    """A network, the shape of one input, and its scales."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    weight_std: float = 1.3
    bias_std: float = 0.2


def conv(inputs: int, *rest: int, **options: object) -> nn.Conv2d:
    return nn.Conv2d(inputs, C, *rest, **options)  # type: ignore[arg-type]


def pooled(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(C, 1))


class Sine(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(1.7 * x + 0.4)


class Erf(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.erf(x)


class Concatenated(nn.Module):
    """Two branches side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.left, self.right = conv(2, 3, padding=1), conv(C, 3, padding=1), conv(C, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        return torch.cat([torch.relu(self.left(x)), nn.functional.gelu(self.right(x))], 1)


def same(channels: int, activation: nn.Module) -> list[nn.Module]:
    return [conv(channels, 3, padding=1), activation]


CASES = {
    "gap": Case(lambda: pooled(*same(1, nn.ReLU()), *same(C, nn.ReLU())), (1, 6, 7)),
    "gap without biases": Case(lambda: pooled(*same(3, nn.ReLU()), *same(C, nn.LeakyReLU(0.3))), (3, 5, 5), 1.4, 0.0),
    "one convolution": Case(lambda: pooled(conv(2, 3, padding=1)), (2, 4, 4)),
    "even kernel": Case(lambda: pooled(conv(1, 2), nn.ReLU(), conv(C, 4, padding=2), nn.ReLU()), (1, 6, 6)),
    "no padding": Case(lambda: pooled(conv(1, 3), nn.ReLU(), conv(C, 3), nn.ReLU()), (1, 7, 7)),
    "large kernel": Case(lambda: pooled(conv(1, 7, padding=3), nn.ReLU(), conv(C, 5, padding=2), nn.ReLU()), (1, 6, 6)),
    "wide padding": Case(lambda: pooled(conv(1, 3, padding=3), nn.ReLU(), conv(C, 3, padding=2), nn.ReLU()), (1, 4, 4)),
    "dilation": Case(
        lambda: pooled(conv(1, 3, padding=2, dilation=2), nn.ReLU(), conv(C, 3, padding=2, dilation=2)), (1, 6, 6)
    ),
    "one axis kernels": Case(
        lambda: pooled(conv(1, (1, 3), padding=(0, 1)), nn.ReLU(), conv(C, (3, 1), padding=(1, 0)), nn.ReLU()),
        (1, 5, 6),
    ),
    "stride": Case(
        lambda: pooled(*same(2, nn.ReLU()), conv(C, 3, stride=2, padding=1), nn.ReLU(), *same(C, nn.ReLU())), (2, 8, 7)
    ),
    "strided first": Case(lambda: pooled(conv(2, 3, stride=2, padding=1), nn.ReLU(), *same(C, nn.GELU())), (2, 8, 8)),
    "pool": Case(lambda: pooled(*same(1, nn.ReLU()), nn.AvgPool2d(2), *same(C, nn.ReLU())), (1, 6, 6)),
    "overlapping pool": Case(
        lambda: pooled(*same(1, nn.ReLU()), nn.AvgPool2d(3, 2, padding=1), *same(C, nn.ReLU())), (1, 7, 7)
    ),
    "pools, flattened": Case(
        lambda: nn.Sequential(
            *same(1, nn.ReLU()), nn.AvgPool2d(2), *same(C, nn.ReLU()), nn.AvgPool2d(2),
            nn.Flatten(), nn.Linear(4 * C, 1),
        ),
        (1, 8, 8),
    ),
    "flattened": Case(
        lambda: nn.Sequential(*same(2, nn.ReLU()), *same(C, nn.GELU()), nn.Flatten(), nn.Linear(25 * C, 1)), (2, 5, 5)
    ),
    "flattened, then dense": Case(
        lambda: nn.Sequential(
            *same(2, nn.ReLU()), nn.Flatten(), nn.Linear(25 * C, C), nn.ReLU(), nn.Linear(C, C), Erf(), nn.Linear(C, 1)
        ),
        (2, 5, 5),
    ),
    "circular": Case(
        lambda: pooled(conv(1, 3, padding=1, padding_mode="circular"), nn.ReLU(), *same(C, nn.ReLU())), (1, 5, 6)
    ),
    "circular inside": Case(
        lambda: pooled(*same(1, nn.ReLU()), conv(C, 3, padding=1, padding_mode="circular"), nn.ReLU()), (1, 5, 6)
    ),
    "residual": Case(
        lambda: pooled(
            conv(1, 3, padding=1), Block(nn.ReLU(), conv(C, 3, padding=1)), Block(nn.ReLU(), conv(C, 3, padding=1)),
            Erf(),
        ),
        (1, 5, 5),
    ),
    "concatenated": Case(
        lambda: nn.Sequential(Concatenated(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * C, 1)), (2, 5, 5)
    ),
    "group norm": Case(
        lambda: pooled(*same(1, nn.ReLU()), conv(C, 3, padding=1), nn.GroupNorm(1, C), Sine()), (1, 5, 5)
    ),
    "sequences": Case(
        lambda: nn.Sequential(
            nn.Conv1d(2, C, 3, padding=1), nn.ReLU(), nn.Conv1d(C, C, 5, stride=2), nn.ReLU(),
            nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(C, 1),
        ),
        (2, 13),
    ),
    "positions in the output": Case(lambda: nn.Sequential(*same(1, nn.ReLU()), conv(C, 3, padding=1)), (1, 5, 5)),
    "dense": Case(
        lambda: nn.Sequential(nn.Linear(5, C), nn.ReLU(), nn.Linear(C, C), nn.ReLU(), nn.Linear(C, 1)), (5,)
    ),
    "dense without biases": Case(
        lambda: nn.Sequential(
            nn.Linear(5, C, bias=False), nn.ReLU(), nn.Linear(C, C, bias=False), nn.ReLU(), nn.Linear(C, 1, bias=False)
        ),
        (5,), 1.4, 0.0,
    ),
    "dense, other activations": Case(
        lambda: nn.Sequential(
            nn.Linear(5, C), Erf(), nn.Linear(C, C), nn.GELU(), nn.Linear(C, C), Sine(), nn.Linear(C, 1)
        ),
        (5,),
    ),
    "dense, norm": Case(
        lambda: nn.Sequential(nn.Linear(5, C), nn.LayerNorm(C), nn.ReLU(), nn.Linear(C, C), nn.ReLU(), nn.Linear(C, 1)),
        (5,),
    ),
    "dense, residual": Case(
        lambda: nn.Sequential(
            nn.Linear(5, C), Block(nn.ReLU(), nn.Linear(C, C)), Block(nn.Linear(C, C), nn.ReLU(), nn.Linear(C, C)),
            nn.ReLU(), nn.Linear(C, 1),
        ),
        (5,),
    ),
}  # fmt: skip


def limits(case: Case, parametrization: str = "ntk") -> tuple[Limit, Limit]:
    """The same limit on the fused engine and on PyTorch's."""
    torch.manual_seed(0)
    program = trace(case.build(), torch.randn(2, *case.shape))
    found = [
        infinite(program, parametrization, case.weight_std, case.bias_std, engine=engine)
        for engine in ("numba", "torch")
    ]
    return found[0], found[1]


def inputs(case: Case, count: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *case.shape, generator=generator, dtype=torch.float64)


def assert_agree(got: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    assert got.dtype == dtype
    scale = TOLERANCE[dtype] * float(expected.abs().max())
    torch.testing.assert_close(got.double(), expected.double(), rtol=TOLERANCE[dtype], atol=scale)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("name", CASES)
def test_agrees_with_torch(name: str, dtype: torch.dtype) -> None:
    case = CASES[name]
    fused, plain = limits(case)
    x1, x2 = inputs(case, 5), inputs(case, 3, seed=2)
    for pair in ((x1, None), (x1, x2)):
        expected = plain(*pair)
        found = fused(*pair, dtype=dtype)
        assert_agree(found.nngp, expected.nngp, dtype)
        assert_agree(found.ntk, expected.ntk, dtype)


@pytest.mark.parametrize("parametrization", ["plain", "standard"])
@pytest.mark.parametrize("name", ["gap", "flattened", "residual", "dense", "pools, flattened"])
def test_other_parametrizations(name: str, parametrization: str) -> None:
    case = CASES[name]
    fused, plain = limits(case, parametrization)
    x = inputs(case, 4)
    assert_agree(fused(x).ntk, plain(x).ntk, torch.float64)


@pytest.mark.parametrize("name", ["gap", "flattened", "dense"])
def test_symmetric_and_exact_where_inputs_repeat(name: str) -> None:
    """The diagonal has no rounding of the angle at cosine one, at any size of the matrix."""
    case = CASES[name]
    fused, plain = limits(case)
    x = inputs(case, 7)
    for dtype in (torch.float64, torch.float32):
        found = fused(x, dtype=dtype)
        for kernel, expected in ((found.nngp, plain(x).nngp), (found.ntk, plain(x).ntk)):
            assert torch.equal(kernel, kernel.T)
            assert_agree(kernel.diagonal(), expected.diagonal(), dtype)


def test_blocks_and_tiles_join(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles smaller than the matrix, and numbers of pairs that fill no block."""
    monkeypatch.setattr("widthwise.kernels.engines._dispatch.LARGEST_SIDE", 16)
    monkeypatch.setattr("widthwise.kernels.engines._dispatch.DENSE_SIDE", 16)
    for name in ("gap", "flattened", "dense"):
        case = CASES[name]
        fused, plain = limits(case)
        x1, x2 = inputs(case, 35), inputs(case, 19, seed=2)
        assert_agree(fused(x1).ntk, plain(x1).ntk, torch.float64)
        assert_agree(fused(x1, x2).ntk, plain(x1, x2).ntk, torch.float64)


def test_black_pixels() -> None:
    """Positions without variance: no biases, and images with black borders."""
    case = CASES["gap without biases"]
    fused, plain = limits(case)
    x = inputs(case, 4)
    x[:, :, :3] = 0
    x[2] = 0
    assert_agree(fused(x).ntk, plain(x).ntk, torch.float64)


def test_features_and_single_kernels() -> None:
    case = CASES["gap"]
    fused, plain = limits(case)
    x = inputs(case, 4)
    for got, expected in zip(fused.ntk_and_features(x), plain.ntk_and_features(x), strict=True):
        assert_agree(got, expected, torch.float64)
    assert_agree(fused.nngp(x), plain.nngp(x), torch.float64)


def test_threads_share_the_work() -> None:
    case = CASES["gap"]
    fused, _ = limits(case)
    x = inputs(case, 30)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = fused(x).ntk
        torch.set_num_threads(3)
        assert torch.equal(fused(x).ntk, alone)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Linear(5, C), nn.Tanh(), nn.Linear(C, 1)],
        [nn.Linear(5, C), nn.ReLU(), nn.LayerNorm(C), nn.ReLU(), nn.Linear(C, 1)],
    ],
    ids=["tanh", "sampled"],
)
def test_what_does_not_fit_is_left_to_torch(layers: list[nn.Module]) -> None:
    program = trace(nn.Sequential(*layers), torch.randn(2, 5))
    limit = infinite(program)
    assert compile_plan(limit.output, contribution=lambda *_: 1.0) is None
    assert torch.isfinite(limit(torch.randn(3, 5)).ntk).all()
    with pytest.raises(DataError, match="engine 'numba' does not fit"):
        infinite(program, engine="numba")(torch.randn(3, 5))


def test_bad_input_is_refused() -> None:
    fused, _ = limits(CASES["gap"])
    with pytest.raises(DataError, match="empty"):
        fused(torch.zeros(0, 1, 6, 7))
    with pytest.raises(DataError, match="not finite"):
        fused(torch.full((2, 1, 6, 7), float("nan")))


def test_gradients_are_left_to_torch() -> None:
    case = CASES["dense"]
    program = trace(case.build(), torch.randn(2, 5))
    x = inputs(case, 3).requires_grad_()
    infinite(program, weight_std=1.3, bias_std=0.2)(x).ntk.sum().backward()
    assert x.grad is not None and bool(torch.isfinite(x.grad).all())
