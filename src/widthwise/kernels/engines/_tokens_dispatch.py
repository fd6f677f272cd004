"""When the token machine evaluates a matrix: plans by network, and whether they are worth loading it."""

import sys
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from widthwise.core import available_bytes
from widthwise.kernels._fields import Field, Inputs
from widthwise.kernels.engines._kept import kept
from widthwise.kernels.engines._tokens_plan import TokenPlan, compile_tokens

if TYPE_CHECKING:
    from widthwise.kernels._limit import Limit

TORCH_SECONDS = 3e-8  # per number and pair, on one core
LOAD_SECONDS, COMPILE_SECONDS = 2.0, 60.0
REGISTER_BYTES, SMALL_BYTES = 64, 1 << 26
RUN = "widthwise.kernels.engines._tokens_run"


def token_grams(
    limit: "Limit",
    inputs: tuple[Tensor, Tensor | None],
    wanted: Sequence[tuple[str, Field]],
    fields: tuple[Field, ...],
    *,
    contribution: Callable,
    dtype: torch.dtype,
    pairs: int,
    named: bool,
    show: bool,
) -> Tensor | None:
    """Moments and tangents of fields, ``[fields, 2, n1, n2]``; None where PyTorch's engine is to be used.

    Args:
        pairs: how many pairs of inputs are to be computed in all.
        named: whether the engine was asked for by name, so that its start need not be worth while.
    """
    if find_spec("numba") is None or not (named or ready(dtype) or _worthwhile(limit, pairs)):
        return None
    tangents = any(what == "tangent" for what, _ in wanted)
    plan = _plan(limit, inputs[0], fields, contribution, tangents)
    needed = 0 if plan is None else room(plan) * torch.get_num_threads()
    if plan is None or (needed > SMALL_BYTES and needed > available_bytes() // 4):
        return None
    found: Tensor | None = machine().Runner(limit, plan, dtype).grams(*inputs, show)
    return found


def _plan(
    limit: "Limit", x: Tensor, fields: tuple[Field, ...], contribution: Callable, tangents: bool
) -> TokenPlan | None:
    """The plan of these fields, made once."""

    def make() -> TokenPlan | None:
        data = limit.evaluator(x[:1], None, torch.float64).data[0]

        def numbered(u: Inputs) -> Tensor:
            one = data[u.node]
            return u.read(torch.arange(1.0, one.numel() + 1, dtype=torch.float64).reshape(one.shape))

        return compile_tokens(*fields, contribution=contribution, numbered=numbered, tangents=tangents)

    found: TokenPlan | None = kept(limit, ("tokens", tangents), fields, make)
    return found


def room(plan: TokenPlan) -> int:
    """Bytes that a thread takes for its planes."""
    slots = max(plan.whole.slots, plan.pair.slots)
    return ((2 * slots + 1) * plan.area + plan.places) * REGISTER_BYTES


def ready(dtype: torch.dtype) -> bool:
    """Whether the machine has already run in this process, so that a call costs no start."""
    return RUN in sys.modules and dtype in machine().started


def _worthwhile(limit: "Limit", pairs: int) -> bool:
    seconds = TORCH_SECONDS * limit.numbers_per_pair() * pairs / torch.get_num_threads()
    return seconds > LOAD_SECONDS and seconds > (LOAD_SECONDS if compiled_before() else COMPILE_SECONDS)


@cache
def compiled_before() -> bool:
    """Whether compiled code of the machine is on disk."""
    path = Path(import_module("widthwise.kernels.engines._tokens_machine").run_pairs.stats.cache_path)
    return any(path.glob("_tokens_machine.run_pairs-*.nbi"))


def machine() -> Any:
    """What runs plans; imports Numba."""
    return import_module(RUN)
