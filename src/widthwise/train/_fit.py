"""The one training loop."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from widthwise.core import ModelError, check_writable, seeded
from widthwise.core import progress as progress_bar
from widthwise.data import DataSet
from widthwise.train._checkpoint import Checkpoint, check_same_run, data_digest
from widthwise.train._evaluate import Loss, check_outputs
from widthwise.train._optimizers import (
    OptimizerFactory,
    describe,
    describe_groups,
    list_groups,
    resolve_factory,
    resolve_lr,
    stable_learning_rate,
)
from widthwise.train._run import Run, Store
from widthwise.train._schedule import Batches
from widthwise.train._types import Callback, TrainingRun, TrainingState


def fit(
    module: nn.Module,
    data: DataSet,
    *,
    test: DataSet | None = None,
    steps: int | None = None,
    epochs: int | None = None,
    optimizer: OptimizerFactory = "sgd",
    parameter_groups: Sequence[dict[str, Any]] | None = None,
    lr: float | str = "auto",
    batch_size: int | None = None,
    loss: Loss = "mse",
    seed: int = 0,
    device: str | torch.device | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 30.0,
    resume: bool = True,
    evaluations_per_decade: int = 8,
    until_train_loss: float | None = None,
    progress: bool = True,
) -> TrainingRun:
    """Train the module in place.

    Args:
        module: gives ``[n, outputs]``; trained in training mode, left in the modes it had.
        data: training set.
        test: held-out set; None: ``data.test``, if there is one.
        steps, epochs: how long, one of the two; counted from the start of the run, also after a resume.
        optimizer: ``"sgd"`` (no momentum), ``"adam"``, ``"adamw"``, or what is called as ``factory(groups, lr=lr)``,
            for example ``functools.partial(torch.optim.SGD, momentum=0.9)``.
        parameter_groups: as PyTorch's optimisers take them; a group's own ``"lr"`` goes before `lr`.
        lr: learning rate, or ``"auto"``: `stable_learning_rate` for SGD, 1e-3 for Adam and AdamW.
        batch_size: examples per step, in a new random order each epoch; None: all of them (full batch).
        loss: ``"mse"``: mean over examples of the squared error summed over outputs, against ``data.encoded()``;
            ``"cross-entropy"``; or a function ``(outputs, targets) -> mean over examples`` of class indices or
            regression rows.
        seed: of the order of examples and of dropout; equal seeds give equal results on one machine.
        device: where to train; the module is moved there and stays. None: where it is.
        callbacks: see `Callback`; called in this order.
        checkpoint: file to write to (safetensors); None: none. A run that is killed and started again with the same
            arguments goes on from it, and ends with the same weights bit for bit (on CPU).
        checkpoint_seconds: least time between two writes; 0: after every step.
        resume: go on from `checkpoint` if it exists; False: overwrite it.
        evaluations_per_decade: of steps, at which both sets are evaluated.
        until_train_loss: stop once the training loss is at most this: with full batches as soon as a step's loss is
            (that step is not taken), else at the end of the epoch after which the evaluated loss is.
        progress: whether to show a bar.

    Returns:
        The history and why it ended. A loss that is not finite ends the run with ``diverged``; it is not raised.

    Raises:
        ModelError: the module, optimiser, learning rate or loss cannot be used.
        CheckpointError: the checkpoint is damaged or of another run.
        OutputError: the checkpoint cannot be written.

    >>> x = torch.linspace(-1, 1, 20)[:, None]
    >>> run = fit(nn.Linear(1, 1), DataSet("line", x, 3 * x + 1), steps=200, progress=False)
    >>> run.stopped, run.train.mse < 1e-6
    ('steps', True)
    """
    if (steps is None) == (epochs is None):
        raise ModelError(f"steps={steps} and epochs={epochs}: give exactly one of them.")
    batches = Batches(len(data), batch_size, seed)
    total = steps if steps is not None else (epochs or 0) * batches.per_epoch
    if total < 0:
        raise ModelError(f"a training length of {total} steps is negative; give at least 0.")
    if device is not None:
        module.to(device)
    check_outputs(module, data)
    groups = list_groups(module, parameter_groups)
    factory = resolve_factory(optimizer)
    path = None if checkpoint is None else Path(checkpoint)
    saved = None
    settings: dict[str, Any] = {}
    if path is not None:
        check_writable(path.parent)
        # What must be the same for a resumed run; its length may differ.
        settings = {
            "parameters": {name: list(value.shape) for name, value in module.state_dict().items()},
            "data": data_digest(data),
            "optimizer": describe(optimizer),
            "parameter_groups": describe_groups(module, groups),
            "lr": lr,
            "batch_size": batches.size,
            "loss": describe(loss),
            "seed": seed,
            "until_train_loss": until_train_loss,
        }
        if resume and path.exists():
            saved = Checkpoint.load(path)
            check_same_run(path, saved.plain["settings"], settings)
    modes = {part: part.training for part in module.modules()}
    with seeded(seed, "fit"), progress_bar("training", float(total), show=progress) as advance:
        try:
            module.train()
            if saved is not None:
                rate = saved.plain["lr"]
            else:
                rate = resolve_lr(
                    lr, optimizer, groups, lambda: stable_learning_rate(module, data, loss=loss, seed=seed)
                )
            live = factory(groups) if rate is None else factory(groups, lr=rate)
            state = TrainingState(module, live)
            run = Run(state, data, test or data.test, batches, loss, callbacks, until_train_loss, rate)
            run.store = Store(path, checkpoint_seconds, settings)
            if saved is not None:
                run.restore(saved)
            return run.go(total, evaluations_per_decade, advance)
        finally:
            for part, mode in modes.items():
                part.training = mode
