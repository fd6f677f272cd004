"""Which engine evaluates a matrix, and the matrix from the fused engine, tile by tile."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from widthwise.core import DataError, progress
from widthwise.kernels._evaluator import Evaluator
from widthwise.kernels._fields import Field
from widthwise.kernels.engines._features import features, has_zero_variance
from widthwise.kernels.engines._kept import kept
from widthwise.kernels.engines._plan import Plan, compile_plan
from widthwise.kernels.engines._tokens_dispatch import token_grams

if TYPE_CHECKING:
    from widthwise.kernels._limit import Limit
    from widthwise.kernels.engines._run import Side

Engine = Literal["auto", "torch", "numba", "triton"]
Wanted = Sequence[tuple[str, Field]]

TORCH_SECONDS = 3e-8  # per number and pair, on one core (measured: 2e-8 for dense networks to 5e-8)
LOAD_SECONDS, COMPILE_SECONDS = 2.0, 25.0
TILE_WORK, LARGEST_SIDE, DENSE_SIDE = 1e9, 256, 1024
KEPT_BYTES = 1 << 30
_PLANNED: ContextVar[int] = ContextVar("planned pairs", default=0)


@contextmanager
def part_of(pairs: int) -> Iterator[None]:
    """What is evaluated inside is a part of so many pairs in all: the engine is chosen for the whole."""
    token = _PLANNED.set(pairs)
    try:
        yield
    finally:
        _PLANNED.reset(token)


def fused_grams(
    limit: "Limit",
    inputs: tuple[Tensor, Tensor | None],
    wanted: Wanted,
    *,
    contribution: Callable,
    dtype: torch.dtype,
    engine: Engine,
    show: bool,
) -> list[Tensor] | None:
    """One matrix per wanted moment or tangent from the fused engine; None where PyTorch's engine is to be used.

    Raises:
        DataError: the engine was asked for by name and does not fit.
    """
    if engine == "torch":
        return None
    x1, x2 = inputs
    fields = tuple({id(u): u for _, u in wanted}.values())
    if engine == "triton" or (engine == "auto" and on_gpu(x1, x2, dtype) and find_spec("triton") is not None):
        return _from_gpu(limit, inputs, wanted, fields, contribution, dtype=dtype, engine=engine, show=show)
    plain = _plain(x1, x2, dtype)
    plan: Plan | None = None
    if plain:
        plan = kept(limit, ("planes",), fields, lambda: compile_plan(*fields, contribution=contribution))
    pairs = max(pair_count(x1, x2), _PLANNED.get())
    if plan is not None and engine == "auto" and not worthwhile(limit.numbers_per_pair(), pairs):
        return None
    found = None
    if plan is not None:
        found = _Grams(limit, plan, x1, x2, dtype).run(show)
    elif plain:
        found = token_grams(
            limit, inputs, wanted, fields,
            contribution=contribution, dtype=dtype, pairs=pairs, named=engine == "numba", show=show,
        )  # fmt: skip
    if found is None:
        if engine == "numba":
            raise DataError("engine 'numba' does not fit this network or these inputs; take engine='auto'.")
        return None
    return _chosen(found, fields, wanted)


def _chosen(found: Tensor, fields: tuple[Field, ...], wanted: Wanted) -> list[Tensor]:
    """The matrix of each wanted moment or tangent."""
    return [found[[id(u) for u in fields].index(id(u)), 0 if what == "moment" else 1] for what, u in wanted]


def on_gpu(x1: Any, x2: Any, dtype: torch.dtype) -> bool:
    """Whether inputs and result are what the Triton kernels read: CUDA tensors, float32, no gradients."""
    known = [x for x in (x1, x2) if x is not None]
    if not all(isinstance(x, Tensor) for x in known) or dtype != torch.float32:
        return False
    if torch.is_grad_enabled() and any(x.requires_grad for x in known):
        return False
    return all(x.device.type == "cuda" for x in known) and len({x.device for x in known}) == 1


def _from_gpu(
    limit: "Limit",
    inputs: tuple[Tensor, Tensor | None],
    wanted: Wanted,
    fields: tuple[Field, ...],
    contribution: Callable,
    *,
    dtype: torch.dtype,
    engine: Engine,
    show: bool,
) -> list[Tensor] | None:
    """The same from the Triton kernels; under Triton's interpreter they take tensors of the CPU.

    Raises:
        DataError: the engine was asked for by name, and Triton, a GPU, single precision or a plan is missing.
    """
    named = engine == "triton"
    if named and find_spec("triton") is None:
        raise DataError("engine 'triton' needs the package triton; pip install 'widthwise[triton]' or engine='auto'.")
    if named and dtype != torch.float32:
        raise DataError(
            f"engine 'triton' computes float32, not {dtype}; pass dtype=torch.float32 or take engine='auto'."
        )
    x1, x2 = inputs
    if named and not on_gpu(x1, x2, dtype) and os.environ.get("TRITON_INTERPRET") != "1":
        where = ", ".join(sorted({str(x.device) for x in (x1, x2) if x is not None}))
        raise DataError(
            f"engine 'triton' needs inputs on one CUDA device without gradients, and these are on {where}; "
            "move them there with x.cuda(), or take engine='auto'."
        )
    plan = compile_plan(*fields, contribution=contribution)
    found = None
    if plan is not None:
        found = import_module("widthwise.kernels.engines._triton").grams(limit, plan, x1, x2, show=show)
    if found is None and named:
        raise DataError("engine 'triton' does not fit this network or these inputs; take engine='auto'.")
    return None if found is None else _chosen(found, fields, wanted)


def _plain(x1: Any, x2: Any, dtype: torch.dtype) -> bool:
    """Whether inputs and result are what the fused engine reads: real numbers on the CPU, no gradients."""
    known = [x for x in (x1, x2) if x is not None]
    if not all(isinstance(x, Tensor) for x in known):
        return False
    if torch.is_grad_enabled() and any(x.requires_grad for x in known):
        return False
    return all(x.device.type == "cpu" for x in known) and dtype in (torch.float32, torch.float64)


def pair_count(x1: Tensor, x2: Tensor | None) -> int:
    """Pairs of inputs that are computed."""
    n = x1.shape[0]
    return n * (n + 1) // 2 if x2 is None else n * x2.shape[0]


def worthwhile(numbers: int, pairs: int) -> bool:
    """Whether the fused engine is faster although its code is loaded first, or compiled when it runs the first time.

    Args:
        numbers: that PyTorch's engine keeps per pair of inputs.
    """
    threads = torch.get_num_threads()
    return TORCH_SECONDS * numbers * pairs / threads > (LOAD_SECONDS if compiled_before() else COMPILE_SECONDS)


@cache
def compiled_before() -> bool:
    """Whether compiled code of the engine is on disk."""
    if find_spec("numba") is None:
        return False
    path = Path(machine().run_blocks.stats.cache_path)
    return any(path.glob("_machine.run_blocks-*.nbi"))


def machine() -> Any:
    """The compiled loops, imported when first needed: Numba takes longer to import than a small kernel to compute."""
    return import_module("widthwise.kernels.engines._machine")


def runner() -> Any:
    """What runs plans; imports Numba."""
    return import_module("widthwise.kernels.engines._run")


class _Grams:
    """One evaluation of a plan on two sets of inputs."""

    def __init__(self, limit: "Limit", plan: Plan, x1: Tensor, x2: Tensor | None, dtype: torch.dtype) -> None:
        self.limit, self.plan, self.x1, self.x2, self.dtype = limit, plan, x1, x2, dtype
        self.sides: dict[tuple[int, int], Side] = {}
        self.kept = 0

    def run(self, show: bool) -> Tensor | None:
        """``[fields, 2, n1, n2]``, or None where an input has zero variance and the plan cannot take it."""
        by_angle = self.by_angle() if len(self.plan.given) == 1 else None
        if by_angle is not None:
            return by_angle
        n1, n2 = self.x1.shape[0], (self.x1 if self.x2 is None else self.x2).shape[0]
        fitting = int(np.clip((TILE_WORK / max(1.0, self.plan.work)) ** 0.5, 16, LARGEST_SIDE))
        side = DENSE_SIDE if self.plan.given else fitting
        result = torch.empty(self.plan.outputs, 2, n1, n2, dtype=self.dtype)
        tiles = [(i, j) for i in range(0, n1, side) for j in range(0, n2, side) if self.x2 is not None or j >= i]
        run = runner()
        with progress("kernel tiles", len(tiles), show=show and len(tiles) > 1) as advance:
            for i, j in tiles:
                rows, columns = slice(i, min(i + side, n1)), slice(j, min(j + side, n2))
                same = self.x2 is None and i == j
                left = self.side(0, rows)
                right = left if same else self.side(0 if self.x2 is None else 1, columns)
                if left is None or right is None:
                    return None
                tile = run.evaluate(self.plan, left, right, same=same, dtype=self.dtype)
                result[:, :, rows, columns] = tile
                if self.x2 is None and not same:
                    result[:, :, columns, rows] = tile.transpose(2, 3)
                advance(1)
        return result

    def by_angle(self) -> Tensor | None:
        """The same for kernels of one angle, None where this one is not."""
        cosine = import_module("widthwise.kernels.engines._cosine")
        evaluators = [self.limit.evaluator(x, None, self.dtype) for x in (self.x1, self.x2) if x is not None]
        data = [_read(self.plan.given[0], evaluator) for evaluator in evaluators]
        squares = [torch.linalg.vecdot(x, x) / x.shape[1] for x in data]
        homogeneous = cosine.one_angle(self.plan, torch.cat(squares))
        first = int(squares[0].argmax())
        if homogeneous is None or float(squares[0][first]) == 0.0:
            return None
        row, square = self.reference(torch.ones_like(self.x1[:1])) if homogeneous else (None, 0.0)
        if row is None or square == 0.0:
            row, square = self.reference(self.x1[first : first + 1])
        table = cosine.fit(self.plan, row, square, self.dtype)
        if table is None:
            return None
        roots = [value.sqrt() for value in squares]
        width = data[0].shape[1]
        unit = [x / torch.where(r > 0, r * width**0.5, 1.0)[:, None] for x, r in zip(data, roots, strict=True)]
        scales = [r / square**0.5 if homogeneous else torch.ones_like(r) for r in roots]
        found = cosine.angle_grams(
            table, unit[0], unit[1] if len(unit) > 1 else None, (scales[0], scales[-1]), self.dtype
        )
        return found.reshape(self.plan.outputs, 2, *found.shape[1:])

    def reference(self, x: Tensor) -> tuple[np.ndarray, float]:
        """Features and mean square of one input."""
        alone = self.limit.evaluator(x, None, torch.float64)
        exact = _read(self.plan.given[0], alone)
        return features(self.plan, alone)[0], float((exact * exact).mean())

    def side(self, which: int, rows: slice) -> "Side | None":
        """Features of some of the inputs, kept as long as memory allows."""
        key = (which, rows.start)
        if key not in self.sides:
            found = self._side((self.x1, self.x2)[which], rows)  # type: ignore[arg-type]
            if found is None or self.kept > KEPT_BYTES:
                return found
            self.kept += found.features.nbytes
            self.sides[key] = found
        return self.sides[key]

    def _side(self, x: Tensor, rows: slice) -> "Side | None":
        step = self.limit.tile_side() ** 2
        found, given = [], []
        for start in range(rows.start, rows.stop, step):
            evaluator = self.limit.evaluator(x[start : min(start + step, rows.stop)], None, torch.float64)
            found.append(features(self.plan, evaluator))
            given.append([_read(field, evaluator) for field in self.plan.given])
        if self.plan.zero_tangents and any(has_zero_variance(self.plan, part) for part in found):
            return None
        matrices = tuple(torch.cat(parts) for parts in zip(*given, strict=True))
        real = np.float32 if self.dtype == torch.float32 else np.float64
        return runner().Side(np.concatenate(found).astype(real, copy=False), matrices)


def _read(field: Any, evaluator: Evaluator) -> Tensor:
    """What a given field reads, ``[n, features]``."""
    return field.read(evaluator.data[0][field.node].to(evaluator.dtype))[:, 0]
