"""The Triton kernels under Triton's interpreter, against PyTorch's engine; and that they compile for a GPU."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.kernels.engines.test_suite import CASES, C, Case, conv, inputs, pooled
from widthwise.core import DataError
from widthwise.kernels import infinite
from widthwise.kernels._limit import Limit
from widthwise.program import trace

triton = pytest.importorskip("triton", reason="the package triton is not installed")
tl = pytest.importorskip("triton.language")
arc = pytest.importorskip("widthwise.kernels.engines._triton_math").arc
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not INTERPRETED, reason="runs in the interpreter's own process")
compiled = pytest.mark.skipif(INTERPRETED, reason="the interpreter replaces the compiler")
TOLERANCE = 1e-6


def sequence(pool: nn.Module) -> nn.Module:
    layers = [nn.Conv1d(1, C, 3, padding=1), nn.ReLU(), pool, nn.Conv1d(C, C, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(C, 1))


SMALL = {
    "pooled": Case(lambda: pooled(conv(2, 3, padding=1), nn.ReLU(), conv(C, 3, padding=1), nn.ReLU()), (2, 3, 2)),
    "even kernel": Case(lambda: pooled(conv(1, 2, padding=1), nn.LeakyReLU(0.3)), (1, 3, 2)),
    "strided": Case(lambda: pooled(conv(1, 3, padding=1, stride=2), nn.ReLU()), (1, 4, 4)),
    "average pool": Case(lambda: sequence(nn.AvgPool1d(2)), (1, 4)),
    "overlapping pool": Case(lambda: sequence(nn.AvgPool1d(3, 2)), (1, 5)),
}
RUN = [
    "dense", "dense without biases", "dense, other activations", "dense, norm", "dense, residual", "flattened",
    "flattened, then dense", *SMALL,
]  # fmt: skip


def limits(case: Case, parametrization: str = "ntk") -> tuple[Limit, Limit]:
    torch.manual_seed(0)
    program = trace(case.build(), torch.randn(2, *case.shape))
    found = [
        infinite(program, parametrization, case.weight_std, case.bias_std, engine=engine)
        for engine in ("triton", "torch")
    ]
    return found[0], found[1]


def assert_agree(got: Tensor, expected: Tensor) -> None:
    assert got.dtype == torch.float32 and got.device.type == "cpu"
    torch.testing.assert_close(got.double(), expected, rtol=TOLERANCE, atol=TOLERANCE * float(expected.abs().max()))


@interpreted
@pytest.mark.parametrize("name", RUN)
def test_agrees_with_torch(name: str) -> None:
    case = (CASES | SMALL)[name]
    fused, plain = limits(case)
    x1, x2 = inputs(case, 3), inputs(case, 2, seed=2)
    for pair in ((x1, None), (x1, x2)):
        found, expected = fused(*pair, dtype=torch.float32), plain(*pair)
        assert_agree(found.nngp, expected.nngp)
        assert_agree(found.ntk, expected.ntk)


@interpreted
@pytest.mark.parametrize("parametrization", ["plain", "standard"])
def test_other_parametrizations(parametrization: str) -> None:
    fused, plain = limits(CASES["dense"], parametrization)
    x = inputs(CASES["dense"], 3)
    assert_agree(fused(x, dtype=torch.float32).ntk, plain(x).ntk)


@interpreted
def test_dense_tiles_join_and_are_symmetric() -> None:
    """More inputs than a tile has rows, and more numbers per input than are multiplied at once."""
    case = Case(lambda: nn.Sequential(nn.Linear(35, C), nn.ReLU(), nn.Linear(C, 1)), (35,))
    fused, plain = limits(case)
    x1, x2 = inputs(case, 70), inputs(case, 5, seed=2)
    found = fused(x1, dtype=torch.float32)
    assert torch.equal(found.ntk, found.ntk.T)
    assert_agree(found.ntk, plain(x1).ntk)
    assert_agree(found.ntk.diagonal(), plain(x1).ntk.diagonal())
    assert_agree(fused(x1, x2, dtype=torch.float32).nngp, plain(x1, x2).nngp)


@interpreted
def test_tiles_of_pairs_join(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("widthwise.kernels.engines._triton.TILE_SIDE", 2)
    monkeypatch.setattr("widthwise.kernels.engines._triton.PAIRS_AT_ONCE", 3)
    case = Case(lambda: nn.Sequential(conv(1, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(6 * C, 1)), (1, 2, 3))
    fused, plain = limits(case)
    x = inputs(case, 3)
    assert_agree(fused(x, dtype=torch.float32).ntk, plain(x).ntk)


@interpreted
def test_black_pixels() -> None:
    case = Case(lambda: pooled(conv(1, 3, padding=1, bias=False), nn.ReLU()), (1, 3, 2), 1.4, 0.0)
    fused, plain = limits(case)
    x = inputs(case, 2)
    x[:, :, :2] = 0
    x[1] = 0
    assert_agree(fused(x, dtype=torch.float32).ntk, plain(x).ntk)


@triton.jit
def angles(rho, angle, root, SIZE: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.arange(0, SIZE)
    a, b = arc(tl.load(rho + at), 0.0)
    tl.store(angle + at, a)
    tl.store(root + at, b)


@interpreted
def test_angles_against_numpy() -> None:
    """The polynomials, single precision: asin and the root over the whole range."""
    rho = torch.linspace(-1, 1, 4096)
    angle, root = torch.empty_like(rho), torch.empty_like(rho)
    angles[(1,)](rho, angle, root, 4096)
    exact = rho.double().numpy()
    assert np.abs(angle.double().numpy() - np.arcsin(exact)).max() < 4e-7
    assert np.abs(root.double().numpy() - np.sqrt(1 - exact**2)).max() < 4e-7


@compiled
def test_under_the_interpreter() -> None:
    """Triton reads the variable when it is imported, so that the tests above need a process of their own."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(Path(__file__))]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    answer = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert answer.returncode == 0, answer.stdout[-4000:] + answer.stderr[-2000:]
    assert " passed" in answer.stdout


@compiled
def test_one_sentence_where_it_cannot_run() -> None:
    fused, _ = limits(CASES["dense"])
    x = inputs(CASES["dense"], 3)
    with pytest.raises(DataError, match=r"float32, not torch\.float64"):
        fused(x)
    with pytest.raises(DataError, match=r"CUDA device.* on cpu; move them"):
        fused(x, dtype=torch.float32)


@compiled
def test_one_sentence_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("widthwise.kernels.engines._dispatch.find_spec", lambda name: None)
    fused, _ = limits(CASES["dense"])
    with pytest.raises(DataError, match=r"widthwise\[triton\]"):
        fused(inputs(CASES["dense"], 3), dtype=torch.float32)


@interpreted
def test_what_does_not_fit_is_refused() -> None:
    program = trace(nn.Sequential(nn.Linear(5, C), nn.Tanh(), nn.Linear(C, 1)), torch.randn(2, 5))
    with pytest.raises(DataError, match="engine 'triton' does not fit"):
        infinite(program, engine="triton")(torch.randn(3, 5), dtype=torch.float32)


@compiled
def test_not_imported_before_it_is_needed() -> None:
    code = "import sys, widthwise; sys.exit('widthwise.kernels.engines._triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


F, INT, DOUBLE = "*fp32", "*i32", "*fp64"
DENSE = dict.fromkeys(("x", "y", "data1", "data2", "pars", "results"), F) | {"ops": INT}
STAGE = (
    dict.fromkeys(("x", "y", "given", "pars", "weights", "buffers", "results", "scratch"), F)
    | dict.fromkeys(("left", "right", "diagonal", "ops", "shifts", "where", "lists"), INT)
    | {"sums": DOUBLE}
)


@pytest.mark.slow
@compiled
@pytest.mark.parametrize(
    ("name", "constants"),
    [
        ("run_dense", {"SAME": True, "SIDE": 64, "DEPTH": 32, "PRECISION": "ieee"}),
        ("run_dense", {"SAME": False, "SIDE": 64, "DEPTH": 32, "PRECISION": "tf32x3"}),
        ("run_stage", {"LANES": 1, "HEIGHT": 32, "WIDTH": 32, "SLOTS": 0, "MOST": 1}),
        ("run_stage", {"LANES": 4, "HEIGHT": 16, "WIDTH": 16, "SLOTS": 2, "MOST": 2}),
        ("run_stage", {"LANES": 1024, "HEIGHT": 1, "WIDTH": 1, "SLOTS": 0, "MOST": 1}),
    ],
)
def test_compiles_for_a_gpu(name: str, constants: dict) -> None:
    """Machine code for compute capability 9.0, which needs no GPU; it is not run."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from widthwise.kernels.engines import _triton

    kernel = getattr(_triton, name)
    pointers = DENSE if name == "run_dense" else STAGE
    signature = {arg: "constexpr" if arg in constants else pointers.get(arg, "i32") for arg in kernel.arg_names}
    values = {(kernel.arg_names.index(arg),): value for arg, value in constants.items()}
    try:
        found = triton.compile(ASTSource(kernel, signature, values), target=GPUTarget("cuda", 90, 32))
    except RuntimeError as error:
        pytest.skip(f"no assembler for GPUs here: {error}")
    assert len(found.asm["cubin"]) > 0
    assert found.metadata.shared <= 100 << 10
