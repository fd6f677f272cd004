"""Handling of the module under measurement: mode, device, inputs, parameters, memory."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from widthwise.core import DataError, ModelError, ResourceError, all_finite, available_bytes, evaluating


@contextmanager
def measuring(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block, each submodule's own mode restored after it.

    Attention takes the composed implementation, the one that can be vectorised and differentiated twice.
    """
    with evaluating(module), sdpa_kernel(SDPBackend.MATH):
        yield


def placed(module: nn.Module, x: Tensor, what: str | None = None) -> Tensor:
    """`x` on the module's device and, if real, in its floating-point type.

    Args:
        what: the name of `x`, whose values must then be finite.

    Raises:
        DataError: they are not.
    """
    if what is not None:
        refuse_infinite(x, what)
    first = next(module.parameters(), None)
    if first is None:
        return x
    dtype = first.dtype if x.is_floating_point() and first.is_floating_point() else x.dtype
    return x.to(device=first.device, dtype=dtype)


def refuse_infinite(x: Tensor, what: str) -> None:
    """Raises:
    DataError: an entry of `x` is not finite; with the index of the first.
    """
    if not all_finite(x):
        value, place = _first_not_finite(x)
        raise DataError(f"{what} hold {value} at {place}; remove or mend that example.")


def refuse_broken(parameters: dict[str, Tensor]) -> None:
    """Raises:
    ModelError: an entry of a parameter is not finite.
    """
    for name, tensor in parameters.items():
        if not all_finite(tensor):
            value, place = _first_not_finite(tensor)
            raise ModelError(f"parameter '{name}' is {value} at {place}; give weights from before training diverged.")


def _first_not_finite(x: Tensor) -> tuple[float, list[int]]:
    place = [int(i) for i in torch.nonzero(~torch.isfinite(x))[0]]
    return float(x[tuple(place)]), place


def call(module: nn.Module, x: Num[Tensor, "n *shape"]) -> Float[Tensor, "n outputs"]:
    """Outputs of the module as rows.

    Raises:
        ModelError: it raises on these inputs, or does not give one row per example.
    """
    try:
        outputs = module(x)
    except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"the module raises on inputs of shape {tuple(x.shape)} and type {x.dtype}: {first_line}; "
            "give a module that takes these inputs."
        ) from error
    if not isinstance(outputs, Tensor) or outputs.ndim < 1 or outputs.shape[0] != x.shape[0]:
        given = f"shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else f"a {type(outputs).__name__}"
        raise ModelError(
            f"the module gives {given} for {x.shape[0]} examples; wrap it so that it returns one row per example."
        )
    return outputs.reshape(len(outputs), -1)


def select_parameters(module: nn.Module, names: Iterable[str] | None) -> dict[str, Tensor]:
    """The trained parameters called `names` (None: all that require a gradient), ties counted once.

    Raises:
        ModelError: a name is unknown, or none is left.
    """
    known: dict[str, Tensor] = dict(module.named_parameters())
    if names is None:
        chosen = {name: tensor for name, tensor in known.items() if tensor.requires_grad}
    else:
        chosen = {}
        for name in names:
            if name not in known:
                close = get_close_matches(name, known, n=1)
                hint = f"did you mean '{close[0]}'?" if close else "see module.named_parameters()."
                raise ModelError(f"the module has no parameter '{name}'; {hint}")
            chosen[name] = known[name]
    if not chosen:
        raise ModelError("the module has no parameter to differentiate by; set requires_grad or name some.")
    return chosen


def free_bytes(device: torch.device) -> int:
    """Bytes that can still be allocated on `device`."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else available_bytes()


def rows_that_fit(bytes_per_row: int, device: torch.device, what: str, *, budget: int = 2**31) -> int:
    """How many rows of `bytes_per_row` to hold at once: a quarter of the free memory, at most `budget` bytes.

    Raises:
        ResourceError: not even two of them fit in the free memory.
    """
    free = free_bytes(device)
    if 3 * bytes_per_row > 0.9 * free:
        raise ResourceError(
            f"{what} needs about {3 * bytes_per_row / 2**30:.1f} GiB for one example and {free / 2**30:.1f} GiB are "
            "available; name fewer parameters."
        )
    return max(1, int(min(free / 4, budget) / bytes_per_row))
