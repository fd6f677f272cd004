"""`unbalance`: the same function with other relative sizes of two adjacent layers."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Num
from torch import Tensor, nn

from widthwise.core import DataError, ModelError
from widthwise.probe import LayerBalance, layer_balance, rescale_neurons


def unbalance(
    module: nn.Module,
    inputs: Num[Tensor, "n *shape"],
    *,
    alpha: float | int | None = None,
    delta: float | int | None = None,
    pairs: Sequence[tuple[str, str]] | None = None,
) -> LayerBalance:
    """Change how two adjacent layers share the work, without changing what the network computes, in place.

    Neurons of the first layer (its rows and bias) are divided by a factor and the columns of the layer that reads them
    multiplied by it; positively homogeneous activations pass the factor on. Above 1 (upstream) the first layer learns
    faster than its reader: features move early, at the same size of the outputs (arXiv:2406.06158, section 5).

    Args:
        module: before training.
        inputs: a few examples, on which adjacent layers are found and the outputs compared.
        alpha: the factor; or
        delta: the conserved quantity ``|A_i|^2 - |W_i|^2`` that every neuron is to have: each gets its own factor
            ``alpha_i^2 = (delta + sqrt(delta^2 + 4 |A_i|^2 |W_i|^2)) / (2 |A_i|^2)``.
        pairs: names of the two layers each; None: the first pair only, the sheet's "first layer against later ones".
            With `delta`, pairs that share a layer cannot all have it.

    Returns:
        The balance after the change.

    Raises:
        DataError: not exactly one of alpha and delta is given, alpha is not above zero, no pair is homogeneous, or
            pairs share a layer.
        ModelError: a neuron has a layer of size zero on one side, so that no factor gives it this delta.

    >>> net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> x = torch.randn(4, 3)
    >>> before = net(x)
    >>> unbalance(net, x, delta=1.5).pairs[0].delta.round(4).tolist()[:2]
    [1.5, 1.5]
    >>> torch.allclose(net(x), before, atol=1e-5)
    True
    """
    if (alpha is None) == (delta is None):
        raise DataError(f"alpha={alpha} and delta={delta}: give exactly one of the two.")
    if alpha is not None and not 0 < alpha < float("inf"):
        raise DataError(f"alpha is {alpha}; give a finite number above zero.")
    found = layer_balance(module, inputs, pairs=pairs).pairs
    names = [(pair.upstream, pair.downstream) for pair in (found if pairs is not None else found[:1])]
    flat = [name for pair in names for name in pair]
    if delta is not None and len(set(flat)) < len(flat):
        raise DataError(
            "some pairs share a layer, so that not every neuron can have the same delta; give alpha instead."
        )
    for upstream, downstream in names:
        factors = 1 / float(alpha) if alpha is not None else _factors(module, upstream, downstream, float(delta or 0.0))
        rescale_neurons(module, upstream, downstream, factors)
    return layer_balance(module, inputs, pairs=names)


def _factors(module: nn.Module, upstream: str, downstream: str, delta: float) -> Tensor:
    """What each neuron's incoming weights are multiplied by."""
    first = module.get_submodule(upstream)
    up = first.weight.detach().double().flatten(1).square().sum(1)  # type: ignore[operator]
    if first.bias is not None:
        up = up + first.bias.detach().double().square()  # type: ignore[operator]
    weight = module.get_submodule(downstream).weight.detach().double()  # type: ignore[operator]
    down = weight.reshape(len(weight), len(up), -1).square().sum((0, 2))
    product = up * down
    if bool((product <= 0).any()):
        number = int(np.flatnonzero((product <= 0).cpu().numpy())[0])
        raise ModelError(
            f"neuron {number} of {upstream} has no weights on one side, so that scaling cannot set its balance; give "
            "alpha= instead, or initialise both layers."
        )
    squared = (delta + (delta**2 + 4 * product).sqrt()) / (2 * down)
    if delta < 0:  # the same without cancellation
        squared = 2 * up / ((delta**2 + 4 * product).sqrt() - delta)
    return 1 / torch.sqrt(squared)
