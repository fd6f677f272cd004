"""Examples that were run through the module, and the slopes of their outputs, layer after layer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from widthwise.probe._layer_contraction_capture import Call

Receive = Callable[[int, Tensor], None]
"""``(call, slopes [heads, *shape of its result])``."""


@dataclass
class Block:
    """Some examples: their outputs with the graph, and the calls seen.

    Attributes:
        outputs: ``[n, outputs]``.
    """

    outputs: Tensor
    calls: list[Call]

    @property
    def n(self) -> int:
        return len(self.outputs)

    def slopes(self, cotangents: Tensor, calls: list[int], rows: slice = slice(None)) -> dict[int, Tensor]:
        """For each of `calls` ``[heads, *shape of its result]``: gradients of
        ``sum(outputs[rows] @ cotangents[head])``."""
        edges = [self.calls[call].edge for call in calls]
        heads = []
        for cotangent in cotangents:
            seed = torch.zeros_like(self.outputs)
            seed[rows] = cotangent
            heads.append(torch.autograd.grad(self.outputs, edges, seed, retain_graph=True, allow_unused=True))
        return {
            call: torch.stack(
                [part if part is not None else self.outputs.new_zeros(self.calls[call].shape) for part in parts]
            )
            for call, parts in zip(calls, zip(*heads, strict=True), strict=True)
        }

    def stream(self, cotangents: Tensor, receive: Receive, *, batched: bool, retain: bool = True) -> None:
        """Hand on the slopes of each call when the backward pass comes to it, and keep none.

        Calls that the outputs do not depend on are left out.

        Args:
            cotangents: ``[heads, outputs]``.
            batched: all heads in one vectorised pass. Otherwise one after the other, and nothing is handed on before
                the last, unless there is only one.
            retain: the graph is needed again.
        """
        if len(cotangents) > 1 and not batched:
            collected: dict[int, list[Tensor]] = {}
            for number, cotangent in enumerate(cotangents):
                last = number + 1 == len(cotangents)
                keep = lambda call, slope: collected.setdefault(call, []).append(slope)  # noqa: E731
                self.stream(cotangent[None], keep, batched=False, retain=retain or not last)
            for call in list(collected):
                receive(call, torch.cat(collected.pop(call)))
            return
        ends = [self.calls[call].edge for call in self._ends()]
        seeds = cotangents.unsqueeze(1).expand(-1, self.n, -1)

        def pull(seed: Tensor) -> Tensor:
            torch.autograd.grad(self.outputs, ends, seed, retain_graph=retain, allow_unused=True)
            return seed[:0]  # a mapped function must return something

        heads = len(cotangents)
        for number, call in enumerate(self.calls):
            call.tap.sink = lambda slope, number=number: receive(number, slope.expand(heads, *slope.shape[1:]))
        try:
            if heads > 1:
                torch.func.vmap(pull)(seeds)
            else:
                pull(seeds[0])
        finally:
            for call in self.calls:
                call.tap.sink = None

    def _ends(self) -> list[int]:
        """Calls behind which there is no other: a backward pass as far as these comes to all."""
        numbers: dict[Any, list[int]] = {}
        for number, call in enumerate(self.calls):
            numbers.setdefault(call.edge.node, []).append(number)
        found: list[int] = []
        leads: dict[Any, bool] = {}
        stack: list[tuple[Any, bool]] = [(self.outputs.grad_fn, False)]
        while stack:
            node, seen = stack.pop()
            if node is None or (node in leads and not seen):
                continue
            behind = [later for later, _ in node.next_functions if later is not None]
            if not seen:
                leads[node] = False
                stack.append((node, True))
                stack.extend((later, False) for later in behind if later not in leads)
                continue
            leads[node] = any(leads[later] or later in numbers for later in behind)
            if node in numbers and not leads[node]:
                found += numbers[node]
        return found
