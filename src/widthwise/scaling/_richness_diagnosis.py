"""`diagnose_regime`: train a network at one strength and say whether that was lazy, rich or ultra-rich."""

from math import isfinite

import torch
from jaxtyping import Num
from torch import Tensor, nn

from widthwise.core import DataError, derived_seed, evaluating, generator
from widthwise.core import progress as progress_bar
from widthwise.probe import Regime, RegimeRecorder, regime
from widthwise.scaling._richness import Build, check_counts, prepare
from widthwise.scaling._richness_batch import BLOWN, SampleLoss
from widthwise.scaling._schemes import AbcByRole


def diagnose_regime(
    module: nn.Module | Build,
    inputs: Num[Tensor, "n *shape"],
    targets: Num[Tensor, "targets *outputs"],
    *,
    rate: float | int,
    gamma: float | int = 1.0,
    steps: int = 500,
    batch_size: int | None = 64,
    loss: SampleLoss | None = None,
    scheme: str | AbcByRole | None = "spectral",
    examples: int = 32,
    seed: int = 0,
    show_progress: bool = False,
) -> Regime:
    """Train a copy on ``(h - h_0) / gamma`` by SGD, watch its kernel, weights and loss, and name the regime.

    For a training loop of your own use `widthwise.probe.RegimeRecorder`.

    Args:
        module, inputs, targets, batch_size, loss, scheme: as for `richness_sweep`, which finds the rate.
        rate: learning rate; for another gamma multiply it by the ratio of `richness_law`.
        examples: how many examples the tangent kernel is watched on.

    Raises:
        DataError: a setting is out of range, data do not fit, or training diverged.

    >>> x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    >>> net = nn.Sequential(nn.Linear(4, 64, bias=False), nn.ReLU(), nn.Linear(64, 1, bias=False))
    >>> diagnose_regime(net, x, x[:, :1].relu(), gamma=1e-3, rate=1e-6, steps=100).verdict
    'lazy'
    """
    check_counts(steps=steps, examples=examples)
    for name, value in (("rate", rate), ("gamma", gamma)):
        if not 0 < value < float("inf"):
            raise DataError(f"{name} is {value}; give a finite number above zero.")
    starts, _ = prepare(module, inputs, targets, 1, scheme, loss, seed, float(gamma))
    net = starts.module
    chosen = torch.randperm(len(starts.inputs), generator=generator(seed, "watched"))[:examples]
    recorder = RegimeRecorder(net, starts.inputs[chosen], starts.targets[chosen])
    groups = [{"params": [p], "lr": rate * starts.factors.get(n, 1.0)} for n, p in net.named_parameters()]
    sgd = torch.optim.SGD(groups, lr=float(rate))
    batches = torch.Generator().manual_seed(derived_seed(seed, "richness batches"))
    count = len(starts.inputs)
    with progress_bar("regime", float(steps), show=show_progress) as advance:
        for _ in range(steps):
            at = slice(None) if batch_size is None else torch.randint(count, (batch_size,), generator=batches)
            with evaluating(net):
                outputs = (net(starts.inputs[at]).flatten(1) - starts.outputs[0, at]) / gamma
                value = starts.loss(outputs, starts.targets[at])
            recorder(float(value.detach()))
            if not isfinite(recorder.losses[-1]) or recorder.losses[-1] > BLOWN * starts.initial:
                raise DataError(
                    f"training diverged after {len(recorder.losses)} steps at rate {rate:g}; give a lower one."
                )
            sgd.zero_grad()
            value.backward()
            sgd.step()
            advance(1)
    return regime(recorder)
