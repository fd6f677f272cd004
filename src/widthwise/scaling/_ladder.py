"""What a transfer check grows: the width, or the number of residual branches."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from widthwise.core import DataError, ModelError
from widthwise.program import Program, trace
from widthwise.scaling._coordinate_check import Build, check_factory, traced
from widthwise.scaling._multipliers import without_multipliers
from widthwise.scaling._runs import Batch
from widthwise.scaling._structure import residual_branches

Along = Literal["width", "depth"]


@dataclass(frozen=True, eq=False)
class Ladder:
    """The program of each size, the one that its factors are relative to, and what else `parametrize` has to know."""

    programs: dict[int, Program]
    bases: dict[int, Program]
    settings: dict[str, Any] = field(default_factory=dict)


def ladder(
    build: Build, sizes: Sequence[int], along: Along, base_width: int | None, example: Batch, settings: dict[str, Any]
) -> Ladder:
    """Trace the network at every size.

    Raises:
        DataError: `along` is neither width nor depth, or a base width is given where the depth grows.
        ModelError: the sizes change nothing, or what they may not change.
    """
    if along == "width":
        return _widths(build, sizes, sizes[0] if base_width is None else base_width, example, settings)
    if along != "depth":
        raise DataError(f"along={along!r} is neither 'width' nor 'depth'.")
    if base_width is not None:
        raise DataError(
            f"base_width={base_width} has no meaning along the depth; give base_depth, a number of residual branches."
        )
    return _depths(build, sizes, example, settings)


def _widths(build: Build, widths: Sequence[int], base: int, example: Batch, settings: dict[str, Any]) -> Ladder:
    check_factory(build, widths)
    first, last = widths[0], widths[-1]
    programs = {w: traced(build(w), example, build(last if w == first else first)) for w in {*widths, base}}
    return Ladder(programs, dict.fromkeys(widths, programs[base]), settings)


def _depths(build: Build, depths: Sequence[int], example: Batch, settings: dict[str, Any]) -> Ladder:
    """Each depth is its own base in width, so that only the rule of depth acts."""
    modules = {depth: build(depth) for depth in depths}
    _check_shapes(modules)
    programs = {depth: _traced(module, example) for depth, module in modules.items()}
    counts = [residual_branches(programs[depth]).count for depth in depths]
    for one, two, depth, deeper in zip(counts, counts[1:], depths, depths[1:], strict=False):
        if two <= one:
            raise ModelError(
                f"depths {depth} and {deeper} give {one} and {two} residual branches; build(depth) has to add some, "
                "because only those have a rule of depth."
            )
    return Ladder(programs, programs, {"depth_rule": "sqrt", "base_depth": counts[0], **settings})


def _traced(module: nn.Module, example: Batch) -> Program:
    with without_multipliers(module):
        return trace(module, example[0])


def _check_shapes(modules: dict[int, nn.Module]) -> None:
    """Deeper networks have weights of the same shapes, only more; names may shift, as in `nn.Sequential`."""
    first, *deeper = modules
    if not any(value.requires_grad for value in modules[first].parameters()):
        raise ModelError("no parameter of the module requires gradients, so that there is nothing to train.")
    known = {tuple(value.shape) for value in modules[first].parameters()}
    for depth in deeper:
        for name, value in modules[depth].named_parameters():
            if tuple(value.shape) not in known:
                raise ModelError(
                    f"parameter {name} has shape {list(value.shape)} at depth {depth} and none has at depth {first}; "
                    "the depth may not change the width."
                )
