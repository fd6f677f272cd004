"""`parametrize`: initial scales, multipliers and learning rates per weight, so that settings hold at every width."""

from collections.abc import Mapping
from typing import Any, Literal

from torch import nn

from widthwise.core import DataError, ModelError, TraceError
from widthwise.program import Program, trace
from widthwise.scaling._examples import guess_examples
from widthwise.scaling._multipliers import without_multipliers
from widthwise.scaling._place import RECORD, carry_out
from widthwise.scaling._plan import ParameterGroups, ScalingPlan
from widthwise.scaling._planner import Override, Planner
from widthwise.scaling._schemes import AbcByRole, rule_of
from widthwise.scaling._structure import residual_branches

DepthRule = Literal["none", "sqrt", "linear"]


def parametrize(
    module: nn.Module,
    scheme: str | AbcByRole = "spectral",
    *,
    lr: float,
    optimizer: str = "adamw",
    example_inputs: Any = None,
    base: nn.Module | None = None,
    gamma: float = 1.0,
    depth_rule: DepthRule = "none",
    base_depth: int | None = None,
    weight_decay: float = 0.0,
    eps: float = 1e-8,
    overrides: Mapping[str, Override] | None = None,
    init: bool = True,
    dry_run: bool = False,
) -> ParameterGroups:
    """Set a module's initial scales and give parameter groups so that its hyperparameters hold at every width.

    Roles come from the traced program; no layer is replaced and nothing is attached to tensors. Existing random
    entries are multiplied (their distribution and seed stay); constant ones stay. With `base`, scales are relative to
    that model: at its own width nothing changes. Without it they are absolute: the learning rate is in natural units
    (relative change of the features per step), entries get the standard deviation that the rule names.

    Args:
        module: an ordinary module, before training and before it is wrapped (DDP, FSDP, compile).
        scheme: ``"spectral"`` (muP without multipliers), ``"mup"`` (readout multiplier), ``"standard"``, ``"ntk"``,
            ``"mean-field"``, or a table of exponents ``{role: (a, b, c)}``.
        lr: the base model's learning rate (or in natural units).
        optimizer: name of the optimiser, see `FAMILIES`.
        example_inputs: as for `widthwise.trace`; guessed for common modules.
        base: the same architecture at the width where the hyperparameters were found.
        gamma: richness: the output is divided by it and the learning rate follows (arXiv:2410.04642): gamma^2 below
            one, gamma^(2/L) above, for L matrices; the square root of that for sign-like updates.
        depth_rule: residual branches times ``1/sqrt(L)`` or ``1/L`` (L branches), with matching learning rates.
        base_depth: number of residual branches of the base model; that of `base`, or 1.
        weight_decay: decoupled; learning rate times weight decay stays what it is at the base.
        eps: of Adam-like optimisers; with `base` it follows the size of the gradients.
        overrides: by pattern of the weight's name (as in `fnmatch`): ``role``, or factors ``lr``, ``init``,
            ``weight_decay`` on top of the rule.
        init: whether to rescale the entries; False for a trained checkpoint.
        dry_run: change nothing; print the returned groups to see the table.

    Returns:
        Parameter groups for the optimiser, with ``.plan``.

    Raises:
        DataError: an unknown scheme, optimiser or override, or a setting out of range.
        ModelError: entries changed since an earlier call, or `base` has other parameters.

    Source: arXiv:2310.17813 (spectral condition), arXiv:2203.03466 (muP tables), arXiv:2310.02244 (depth).

    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Linear(8, 256), torch.nn.ReLU(), torch.nn.Linear(256, 1))
    >>> groups = parametrize(net, "spectral", lr=0.1, optimizer="sgd", example_inputs=torch.ones(2, 8))
    >>> [(group["weights"], group["lr"]) for group in groups]
    [(['0.weight'], 3.2), (['0.bias'], 25.6), (['2.weight'], 0.000390625), (['2.bias'], 0.1)]
    """
    examples = guess_examples(module) if example_inputs is None else example_inputs
    with without_multipliers(module, base):
        programs = _programs(module, base, examples)
    return parametrize_traced(
        module, *programs, scheme=scheme, lr=lr, optimizer=optimizer, gamma=gamma, depth_rule=depth_rule,
        base_depth=base_depth, weight_decay=weight_decay, eps=eps, overrides=overrides, init=init, dry_run=dry_run,
    )  # fmt: skip


def parametrize_traced(
    module: nn.Module,
    program: Program,
    base: Program | None,
    *,
    scheme: str | AbcByRole,
    lr: float,
    optimizer: str,
    gamma: float = 1.0,
    depth_rule: DepthRule = "none",
    base_depth: int | None = None,
    weight_decay: float = 0.0,
    eps: float = 1e-8,
    overrides: Mapping[str, Override] | None = None,
    init: bool = True,
    dry_run: bool = False,
) -> ParameterGroups:
    """`parametrize` for a module whose program (and that of its base) is there already."""
    _check(lr, gamma, depth_rule, weight_decay)
    planner = Planner(
        rule=rule_of(scheme),
        relative=base is not None,
        own_init=scheme == "standard",
        optimizer=optimizer.lower(),
        program=program,
        base=base or program,
        branches=residual_branches(program),
        depth=_depth_factors(depth_rule, program, base, base_depth),
        gamma=gamma,
        overrides=overrides or {},
        before=getattr(module, RECORD, {}),
    )
    rows = tuple(planner.row(weight, lr, weight_decay, eps) for weight in program.weights)
    planner.say_wide_inputs()
    scores = tuple(planner.scores()) if scheme in ("spectral", "mup", "mean-field") else ()
    name = scheme if isinstance(scheme, str) else "abc"
    plan = ScalingPlan(name, optimizer.lower(), rows, scores, tuple(planner.notes))
    if not dry_run:
        carry_out(module, program, plan, init)
    return ParameterGroups(plan)


def _check(lr: float, gamma: float, depth_rule: str, weight_decay: float) -> None:
    for name, value in (("lr", lr), ("gamma", gamma)):
        if not 0 < value < float("inf"):
            raise DataError(f"{name} is {value}; give a finite number above zero.")
    if not 0 <= weight_decay < float("inf"):
        raise DataError(f"weight_decay is {weight_decay}; give a finite number of zero or more.")
    if depth_rule not in ("none", "sqrt", "linear"):
        raise DataError(f"depth_rule {depth_rule!r} is not one of none, sqrt, linear.")


def _programs(module: nn.Module, base: nn.Module | None, examples: Any) -> tuple[Program, Program | None]:
    if base is None:
        return trace(module, examples), None
    mine, theirs = dict(module.named_parameters()), dict(base.named_parameters())
    if mine.keys() != theirs.keys():
        name = next(iter(sorted(mine.keys() ^ theirs.keys())))
        raise ModelError(f"module and base differ in parameter {name}; give the same architecture at another width.")
    if all(mine[name].shape == theirs[name].shape for name in mine):
        program = trace(module, examples)
        return program, trace(base, examples)
    try:
        return trace(module, examples, wider=base), trace(base, examples, wider=module)
    except TraceError as error:
        raise ModelError(f"base is not the same architecture at another width: {error}") from error


def _depth_factors(
    rule: DepthRule, program: Program, base: Program | None, base_depth: int | None
) -> tuple[float, float]:
    """Branch multiplier, and base depth over depth."""
    if rule == "none":
        return 1.0, 1.0
    own = max(1, residual_branches(program).count)
    reference = base_depth or (residual_branches(base).count if base is not None else 1)
    ratio = max(1, reference) / own
    return ratio ** (0.5 if rule == "sqrt" else 1.0), ratio
