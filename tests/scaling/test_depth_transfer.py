"""`transfer_check` along the depth: residual networks with blocks over the root of their number."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from widthwise.core import DataError, ModelError
from widthwise.data import load
from widthwise.scaling import transfer_check

X = torch.randn(96, 8, generator=torch.Generator().manual_seed(0))
DATA = (X, (X[:, 0] * X[:, 1] > 0).long())
LRS = [2.0**k for k in (-9, -7, -5)]


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.relu(self.up(x)))


def residual(depth: int, features: int = 8, width: int = 16, classes: int = 2) -> nn.Module:
    blocks = [Block(width) for _ in range(depth)]
    return nn.Sequential(nn.Flatten(), nn.Linear(features, width), *blocks, nn.Linear(width, classes))


def plain(depth: int) -> nn.Module:
    layers = [part for _ in range(depth) for part in (nn.Linear(16, 16), nn.ReLU())]
    return nn.Sequential(nn.Linear(8, 16), *layers, nn.Linear(16, 2))


def by_hand(base: int):
    """The square-root rule for Adam written out: branches over the root of the ratio of depths, and so their rates."""

    def groups(module: nn.Module, lr: float) -> list[dict]:
        blocks = [part for part in module if isinstance(part, Block)]
        m = (base / len(blocks)) ** 0.5
        inside = [part.up.weight for part in blocks], [part.down.weight for part in blocks]
        with torch.no_grad():
            for weight in inside[1]:
                weight.mul_(m)
        rest = [value for name, value in module.named_parameters() if ".up." not in name and ".down." not in name]
        q = m**2  # the rule's rate of a branch is q / m; a multiplier folded into the last matrix carries an m more
        return [
            {"params": rest, "lr": lr, "weight_decay": 0.0},
            {"params": inside[0], "lr": lr * q / m, "weight_decay": 0.0},
            {"params": inside[1], "lr": lr * q / m * m, "weight_decay": 0.0},
        ]

    return groups


def test_the_rule_is_the_square_root_rule():
    found = transfer_check(residual, (2, 4, 8), DATA, LRS, along="depth", steps=5, seeds=1)
    expected = transfer_check(residual, (2, 4, 8), DATA, LRS, along="depth", steps=5, seeds=1, groups=by_hand(2))
    assert np.allclose(found.losses, expected.losses, rtol=1e-5)
    without = transfer_check(residual, (2, 4, 8), DATA, LRS, along="depth", steps=5, seeds=1, depth_rule="none")
    assert np.array_equal(found.losses[0], without.losses[0])
    assert not np.allclose(found.losses[1:], without.losses[1:], rtol=1e-3)


def test_it_speaks_of_depths():
    found = transfer_check(residual, (1, 2, 4), DATA, LRS, along="depth", steps=3, seeds=1)
    assert found.along == "depth" and str(found).split()[0] == "depth" and "deeper is" in str(found)
    assert found.figure().title == "Learning-rate sweeps at several depths"


@pytest.mark.parametrize(
    ("build", "settings", "error", "phrase"),
    [
        (residual, {"along": "depth", "base_width": 16}, DataError, "give base_depth"),
        (plain, {"along": "depth"}, ModelError, "depths 2 and 4 give 0 and 0 residual branches"),
        (lambda depth: residual(3), {"along": "depth"}, ModelError, "give 3 and 3 residual branches"),
        (lambda depth: residual(depth, width=8 * depth), {"along": "depth"}, ModelError, "may not change the width"),
        (residual, {"along": "width"}, ModelError, "the width may not change the depth"),
    ],
)
def test_refusals(build, settings, error, phrase):
    with pytest.raises(error, match=phrase):
        transfer_check(build, (2, 4, 8), DATA, LRS, steps=2, seeds=1, **settings)


@pytest.mark.slow
def test_the_best_rate_stays_under_the_rule_and_falls_without():
    """arXiv:2310.02244: without a rule of depth the best rate of a residual network falls."""
    digits = load("digits")
    lrs = [2.0**k for k in range(-12, -2)]

    def build(depth: int) -> nn.Module:
        return residual(depth, 64, 64, 10)

    settings = {"along": "depth", "steps": 60, "seeds": 3, "around": 1}
    steady, drifting = (
        transfer_check(build, (2, 4, 8, 16), digits, lrs, depth_rule=rule, **settings) for rule in ("sqrt", "none")
    )
    assert abs(steady.drift.total) < abs(drifting.drift.total) / 2
    assert drifting.drift.high < 0
