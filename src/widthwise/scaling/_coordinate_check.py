"""`coordinate_check`: do activations, updates and attention scores keep their size as the width grows?"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from widthwise.core import ModelError, progress, seeded
from widthwise.program import Program, trace
from widthwise.scaling._coordinate_result import CoordinateCheck, Kind, result_of
from widthwise.scaling._families import family_of
from widthwise.scaling._multipliers import without_multipliers
from widthwise.scaling._observe import (
    Cancellation,
    Sizes,
    alignments,
    rms,
    score_scales,
    score_tensors,
    update_ranks,
    weight_sizes,
)
from widthwise.scaling._parametrize import parametrize_traced
from widthwise.scaling._recorder import Recorder
from widthwise.scaling._runs import Batch, Data, Loss, at_least_three, batch_loss, batch_of, call, make_optimizers
from widthwise.scaling._schemes import AbcByRole

Build = Callable[[int], nn.Module]
Groups = Callable[[nn.Module], Iterable[dict[str, Any]]]


def coordinate_check(
    build: Build,
    widths: Sequence[int],
    data: Data,
    *,
    scheme: str | AbcByRole = "spectral",
    optimizer: str = "adamw",
    lr: float = 1e-2,
    base_width: int | None = None,
    groups: Groups | None = None,
    steps: int = 3,
    seeds: int = 3,
    batch_size: int = 64,
    loss: Loss | None = None,
    tolerance: float = 0.1,
    seed: int = 0,
    show_progress: bool = False,
    **settings: Any,
) -> CoordinateCheck:
    """Train networks of several widths for a few steps on one batch, and fit how every size depends on the width.

    Args:
        build: width to module; seeded here.
        widths: at least three.
        data: a data set, ``(inputs, targets)``, or keyword arguments of a module that returns its loss.
        scheme, optimizer, lr: for `parametrize`, relative to `base_width` (the smallest width).
        groups: a user's own parametrisation instead: sets up a module and gives its parameter groups.
        steps: optimiser steps, all on one batch of `batch_size` examples.
        seeds: networks per width.
        loss: ``loss(output, targets)``; cross-entropy or half the squared error if None.
        tolerance: how far from zero an exponent may be.
        settings: more of `parametrize`'s arguments.

    Raises:
        DataError: fewer than three widths.
        ModelError: the widths change no weight or change the depth too, or nothing requires gradients.

    Source: arXiv:2203.03466, appendix D.1 (coordinate check); arXiv:2310.17813 (natural norms).

    >>> import torch
    >>> from torch import nn
    >>> def build(n):
    ...     return nn.Sequential(nn.Linear(4, n), nn.ReLU(), nn.Linear(n, n), nn.ReLU(), nn.Linear(n, 2))
    >>> data = torch.randn(32, 4), torch.randint(2, (32,))
    >>> check = coordinate_check(build, [32, 64, 128], data, scheme="standard", optimizer="adam", seeds=2)
    >>> "readout init" in [verdict.rule for verdict in check.verdicts]
    True
    """
    widths = tuple(sorted(set(widths)))
    at_least_three("width", len(widths), "for an exponent")
    batch = batch_of(data, batch_size, seed)
    check_factory(build, widths)
    programs = {width: traced(build(width), batch, build(_another(width, widths))) for width in widths}
    base_width = widths[0] if base_width is None else base_width
    base = programs.get(base_width) or traced(build(base_width), batch, build(_another(base_width, widths)))

    def prepared(module: nn.Module, program: Program) -> Iterable[dict[str, Any]]:
        if groups is not None:
            return groups(module)
        return parametrize_traced(module, program, base, scheme=scheme, lr=lr, optimizer=optimizer, **settings)

    collected: list[list[Sizes]] = []
    with progress("coordinate check", seeds * len(widths), show=show_progress) as advance:
        for number in range(seeds):
            collected.append([])
            for width in widths:
                with seeded(seed, "coordinate check", width, number):
                    module = build(width)
                    program = rebound(programs[width], module)
                    own = list(prepared(module, program))
                run = _Run(module, program, batch, own, optimizer, loss)
                collected[-1].append(run.sizes(steps))
                advance(1)
    kind = Kind(programs[widths[0]], tolerance, family_of(optimizer) == "gradient", run.bounded_rank())
    return result_of(widths, steps, seeds, collected, kind)


def _another(width: int, widths: Sequence[int]) -> int:
    return widths[0] if width == widths[-1] else widths[-1]


def check_factory(build: Build, widths: Sequence[int]) -> None:
    """A factory has to change weights with the width, and nothing else.

    Raises:
        ModelError: it does not.
    """
    first, last = dict(build(widths[0]).named_parameters()), dict(build(widths[-1]).named_parameters())
    if first.keys() != last.keys():
        name = sorted(first.keys() ^ last.keys())[0]
        raise ModelError(f"parameter {name} exists at some widths only; the width may not change the depth.")
    if not any(value.requires_grad for value in first.values()):
        raise ModelError("no parameter of the module requires gradients, so that there is nothing to train.")
    if all(first[name].shape == last[name].shape for name in first):
        raise ModelError(f"widths {widths[0]} and {widths[-1]} give weights of equal shapes; build(width) must use it.")


def traced(module: nn.Module, batch: Batch, wider: nn.Module) -> Program:
    """The program of a module whose multipliers are left out."""
    with without_multipliers(module):
        return trace(module, batch[0], wider=wider)


def rebound(program: Program, module: nn.Module) -> Program:
    """The program of one network for another draw of it."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    weights = tuple(replace(weight, value=parameters[weight.name]) for weight in program.weights)
    return replace(program, weights=weights)


@dataclass
class _Run:
    """One network: what is seen before, during and after its steps."""

    module: nn.Module
    program: Program
    batch: Batch
    groups: list[dict[str, Any]]
    optimizer: str
    loss: Loss | None

    def sizes(self, steps: int) -> Sizes:
        """All observables; updates are those of the first step, which no other layer's mistake has changed yet."""
        optimizers = make_optimizers(self.groups, self.optimizer)
        before = {weight.name: weight.value.detach().clone() for weight in self.program.weights}
        start, inputs = self._look()
        found: Sizes = {("activation", path): rms(value) for path, value in start["outputs"].items()}
        found |= {("score", path): rms(value) for path, value in start["scores"].items()}
        found |= score_scales(self.module, self.program)
        found |= weight_sizes(self.module, self.program, before, "weight")
        for step in range(steps):
            for one in optimizers:
                one.zero_grad()
            cancellation = Cancellation(self.module)
            with cancellation.recording() if step == 0 else nullcontext():
                batch_loss(self.module, self.batch, self.loss).backward()
            for one in optimizers:
                one.step()
            if step == 0:
                found |= cancellation.sizes(self.program)
                updates = {w.name: w.value.detach() - before[w.name] for w in self.program.weights}
                found |= weight_sizes(self.module, self.program, updates, "update")
                found |= update_ranks(self.program, updates)
                found |= alignments(self.program, inputs, updates)
        end, _ = self._look()
        for kind, name in (("outputs", "change"), ("scores", "score change")):
            found |= {(name, path): rms(end[kind][path] - value) for path, value in start[kind].items()}
        return found

    def bounded_rank(self) -> frozenset[str]:
        """Weights whose update has a rank that examples and positions bound: all but the orthogonalised ones."""
        names = {id(weight.value): weight.name for weight in self.program.weights}
        kept = [g for g in self.groups if family_of(g.get("optimizer", self.optimizer)) != "orthogonal"]
        return frozenset(names[id(value)] for group in kept for value in group["params"] if id(value) in names)

    def _look(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
        recorder = Recorder(self.module)
        with recorder.recording(), torch.no_grad():
            call(self.module, self.batch[0])
        return {
            "outputs": recorder.outputs,
            "scores": score_tensors(self.module, self.program, recorder.outputs),
        }, recorder.inputs
