"""Outputs and inputs of a module's layers during one forward pass, at little cost to the pass."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Seen = tuple[str, Tensor | None, Tensor | None]
"""Path of a module, what it was called with first, and what it returned first."""

WATCH_THEIR_HOOKS = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder, torch.jit.ScriptModule)
"""Modules that run fused without calling their parts, unless these have hooks, or whose forward cannot be replaced."""


class Recorder:
    """Outputs and inputs of the modules that own weights, from one forward pass.

    While the pass runs, tensors are only noted, cut off from the graph; they become float32, and those of a module
    that is called again are joined, when they are read. Modules are watched through their own `forward`, which costs
    a third of a forward hook: with one, PyTorch calls a module along another, slower way.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    >>> recorder = Recorder(net)
    >>> with recorder.recording():
    ...     y = net(torch.ones(4, 2))
    >>> {path: tuple(value.shape) for path, value in recorder.outputs.items()}
    {'0': (4, 3)}
    """

    def __init__(self, module: nn.Module) -> None:
        self._seen: list[Seen] = []
        self._by_hooks = any(isinstance(part, WATCH_THEIR_HOOKS) for part in module.modules())
        self._parts = [
            (path, part)
            for path, part in module.named_modules()
            if next(part.parameters(recurse=False), None) is not None
        ]
        self._watched = [] if self._by_hooks else [(vars(part), self._watch(path, part)) for path, part in self._parts]

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record inside the block; what an earlier block recorded is forgotten."""
        self._seen.clear()
        if self._by_hooks:
            handles = [part.register_forward_hook(self._hook(path), prepend=True) for path, part in self._parts]
            try:
                yield
            finally:
                for handle in handles:
                    handle.remove()
            return
        before = [(own, own.get("forward")) for own, _ in self._watched]
        for own, forward in self._watched:
            own["forward"] = forward
        try:
            yield
        finally:
            for own, forward in before:
                if forward is None:
                    del own["forward"]
                else:
                    own["forward"] = forward

    def _watch(self, path: str, part: nn.Module) -> Callable[..., Any]:
        note, inner = self._seen.append, part.forward

        def forward(*args: Any, **named: Any) -> Any:
            output = inner(*args, **named)
            note((path, _first(args), _first(output)))
            return output

        return forward

    def _hook(self, path: str) -> Callable[..., None]:
        note = self._seen.append

        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            note((path, _first(args), _first(output)))

        return hook

    @property
    def outputs(self) -> dict[str, Tensor]:
        """By path; a module that is called again adds to what it gave before."""
        found: dict[str, Tensor] = {}
        for path, _, value in self._seen:
            if value is not None and value.is_floating_point():
                own, known = value.float(), found.get(path)
                again = known is not None and known.shape[1:] == own.shape[1:]
                found[path] = torch.cat([known, own]) if again and known is not None else own
        return found

    @property
    def inputs(self) -> dict[str, Tensor]:
        """By path: what each module was last called with."""
        return {path: value.float() for path, value, _ in self._seen if value is not None and value.is_floating_point()}


def _first(value: Any) -> Tensor | None:
    """The tensor, or the first of several, cut off from the graph."""
    if isinstance(value, (tuple, list)):
        value = value[0] if value else None
    return value.detach() if isinstance(value, Tensor) else None
