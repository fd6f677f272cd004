"""Modules whose parameters come from outside: same forward code, values given at each call."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from torch import Tensor, nn

from widthwise.core import ModelError


class Externalized(nn.Module):
    """A module without values for some of its parameters; made by :func:`externalize`.

    Attributes:
        primary: the module; its forward code is untouched.
        shapes: of the external parameters, by name.
    """

    def __init__(
        self, primary: nn.Module, slots: Mapping[str, Sequence[str]], shapes: Mapping[str, torch.Size]
    ) -> None:
        super().__init__()
        self.primary = primary
        self.shapes = dict(shapes)
        self._slots = {name: tuple(places) for name, places in slots.items()}

    @contextmanager
    def using(self, values: Mapping[str, Tensor]) -> Iterator[nn.Module]:
        """The primary module with these values, inside the block; they are taken out even where the block raises.

        Raises:
            ModelError: a missing, unknown or misshapen value, or a block within a block.
        """
        self._check(values, batched=False)
        owners = [(self.primary.get_submodule(path), key, name) for path, key, name in self._places()]
        if any(owner._parameters.get(key) is not None for owner, key, _ in owners):
            raise ModelError("the module has external values already; leave the first `using` block before the next.")
        try:
            for owner, key, name in owners:
                owner._parameters[key] = values[name]  # type: ignore[assignment]
            yield self.primary
        finally:
            for owner, key, _ in owners:
                owner._parameters[key] = None

    def forward(self, values: Mapping[str, Tensor], *args: Any, **kwargs: Any) -> Any:
        """The primary module's output for one set of values."""
        with self.using(values) as primary:
            return primary(*args, **kwargs)

    def batched(
        self, values: Mapping[str, Tensor], *args: Tensor, inputs: Literal["shared", "paired"] = "shared"
    ) -> Any:
        """Outputs for several sets of values at once, by `torch.func.vmap`.

        Args:
            values: each with a leading axis, of one length.
            args: the primary's arguments; ``"paired"``: with that leading axis too, one for each set of values.

        Raises:
            ModelError: as `using`, or leading axes of different lengths.

        Modules that change state in their forward pass (batch norm in training mode) cannot be vmapped; use group norm.
        """
        self._check(values, batched=True)
        dims = (0, *[0 if inputs == "paired" else None for _ in args])
        return torch.func.vmap(self.forward, in_dims=dims, randomness="different")(dict(values), *args)

    def _places(self) -> Iterator[tuple[str, str, str]]:
        for name, places in self._slots.items():
            for place in places:
                path, _, key = place.rpartition(".")
                yield path, key, name

    def _check(self, values: Mapping[str, Tensor], batched: bool) -> None:
        if values.keys() != self.shapes.keys():
            name = sorted(values.keys() ^ self.shapes.keys())[0]
            word = "is missing" if name in self.shapes else "is not external"
            raise ModelError(f"parameter {name} {word}; give values for exactly {', '.join(self.shapes)}.")
        for name, shape in self.shapes.items():
            given = values[name].shape
            if (given[1:] if batched else given) != shape or len(given) != len(shape) + batched:
                leading = "a leading axis and then " if batched else ""
                raise ModelError(f"parameter {name} has shape {tuple(given)}; give {leading}{tuple(shape)}.")
        if batched and len({value.shape[0] for value in values.values()}) > 1:
            raise ModelError("the leading axes of the values differ in length; give as many of each parameter.")


def externalize(module: nn.Module, parameters: str | Sequence[str] = "*") -> tuple[Externalized, dict[str, Tensor]]:
    """A copy of a module whose chosen parameters come from outside, and the values that they had.

    Tied parameters are one external parameter, under its first name. Buffers and the other parameters stay in the
    module, move and are saved with it. Nothing is traced: any module works whose forward pass reads its parameters by
    attribute.

    Args:
        module: left as it is.
        parameters: patterns of names, as in `fnmatch`.

    Returns:
        The module, and its values: a start for `HyperNet(theta0=...)` that makes an ordinary network.

    Raises:
        ModelError: a pattern that matches no parameter.

    >>> external, values = externalize(torch.nn.Linear(2, 1))
    >>> {name: tuple(shape) for name, shape in external.shapes.items()}
    {'weight': (1, 2), 'bias': (1,)}
    >>> external({"weight": torch.ones(1, 2), "bias": torch.zeros(1)}, torch.tensor([[1.0, 2.0]])).item()
    3.0
    """
    patterns = [parameters] if isinstance(parameters, str) else list(parameters)
    primary = copy.deepcopy(module)
    names: dict[Tensor, list[str]] = {}
    for name, parameter in primary.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for aliases in names.values() for name in aliases):
            known = ", ".join(aliases[0] for aliases in list(names.values())[:8])
            raise ModelError(f"no parameter is called {pattern!r}; give patterns of names such as {known}.")
    chosen = {
        aliases[0]: (aliases, tensor)
        for tensor, aliases in names.items()
        if any(fnmatchcase(name, pattern) for name in aliases for pattern in patterns)
    }
    values = {name: tensor.detach().clone() for name, (_, tensor) in chosen.items()}
    for aliases, _ in chosen.values():
        for alias in aliases:
            path, _, key = alias.rpartition(".")
            primary.get_submodule(path)._parameters[key] = None
    external = Externalized(
        primary, {name: aliases for name, (aliases, _) in chosen.items()}, {n: v.shape for n, v in values.items()}
    )
    return external, values
