"""Networks whose limit the recursion does not give are refused, with the operation's name: never a wrong kernel."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.kernels.networks import Function
from widthwise.core import DataError, UnsupportedOperation
from widthwise.kernels import infinite
from widthwise.program import trace

VECTORS = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
SEQUENCES = torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(1))
IMAGES = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(2))
N = 16


def last(width: int = N) -> nn.Linear:
    return nn.Linear(width, 2)


def shares_memory() -> nn.Module:
    first, second = nn.Linear(3, N), nn.Linear(N, 3)
    second.weight = nn.Parameter(first.weight.detach().t())
    return nn.Sequential(first, nn.ReLU(), second)


def constant_matrix() -> nn.Module:
    net = nn.Sequential(nn.Linear(3, N), nn.ReLU(), last())
    nn.init.constant_(net[2].weight, 0.1)
    return net


def used_statistics() -> nn.Module:
    norm = nn.BatchNorm1d(N)
    norm.running_mean.copy_(torch.linspace(0, 1, N))
    return nn.Sequential(nn.Linear(3, N), norm, nn.ReLU(), last())


def wide(function, shape=3, **parts) -> nn.Module:
    return Function(function, first=nn.Linear(shape, N), last=last(), **parts)


def square(**options) -> nn.Parameter:
    return nn.Parameter(torch.randn(N, N) / 4, **options)


relu = functional.relu

# name: (module, inputs, operation in the message, words of the reason)
CASES = {
    "attention": (
        lambda: wide(
            lambda m, x: m.last(functional.scaled_dot_product_attention(*[m.first(x)] * 3).mean(1)), 5
        ),
        SEQUENCES, "scaled_dot_product_attention", "grow without bound",
    ),
    "attention by hand": (
        lambda: wide(lambda m, x: m.last((m.first(x) @ m.first(x).transpose(1, 2) @ m.first(x)).mean(1)), 5),
        SEQUENCES, "aten.matmul", "grow without bound",
    ),
    "softmax over width": (
        lambda: wide(lambda m, x: m.last(m.first(x).softmax(-1))), VECTORS, "softmax", "no infinite-width rule",
    ),
    "tied auto-encoder": (
        lambda: Function(lambda m, x: relu(functional.linear(x, m.w)) @ m.w, w=nn.Parameter(torch.randn(N, 3))),
        VECTORS, "aten.matmul", "used a second time in another way",
    ),
    "tied auto-encoder by transposition": (
        lambda: Function(
            lambda m, x: functional.linear(relu(functional.linear(x, m.w)), m.w.t()), w=nn.Parameter(torch.randn(N, 3))
        ),
        VECTORS, "aten.linear", "used a second time in another way",
    ),
    "tied auto-encoder by shared memory": (shares_memory, VECTORS, "parameter", "shares its memory"),
    "layer norm over positions": (
        lambda: wide(lambda m, x: m.last(m.norm(m.first(x).transpose(1, 2)).mean(2)), 5, norm=nn.LayerNorm(6)),
        SEQUENCES, "layer_norm", "over positions only",
    ),
    "constant matrix": (constant_matrix, VECTORS, "linear", "constant"),
    "shuffled channels": (
        lambda: wide(lambda m, x: m.last(m.first(x) + m.first(x).view(-1, 4, 4).transpose(1, 2).reshape(-1, N))),
        VECTORS, "aten.", "axes",
    ),
    "shuffled unequal groups": (
        lambda: wide(lambda m, x: m.last(relu(m.first(x).view(-1, 2, 8).transpose(1, 2).reshape(-1, N)))),
        VECTORS, "transpose", "reorders coordinates",
    ),
    "some heads only": (
        lambda: wide(
            lambda m, x: m.last(relu(m.mix(relu(m.first(x)).view(-1, 4, 4))).flatten(1)), mix=nn.Linear(4, 4)
        ),
        VECTORS, "linear", "coordinates",
    ),
    "width and time scrambled": (
        lambda: wide(lambda m, x: m.last(m.first(x).reshape(-1, N, 6).transpose(1, 2).mean(1)), 5),
        SEQUENCES, "aten.", "",
    ),
    "image plus its transpose": (
        lambda: Function(
            lambda m, x: m.last((lambda h: relu(h + h.transpose(2, 3)).mean((2, 3)))(m.first(x))),
            first=nn.Conv2d(3, N, 3), last=last(),
        ),
        IMAGES, "conv2d", "two of its axes",
    ),
    "times data": (
        lambda: wide(lambda m, x: m.last(relu(m.first(x)) * x[:, :1])), VECTORS, "mul", "by data",
    ),
    "gate of one number": (
        lambda: wide(lambda m, x: m.last(relu(m.first(x)) * torch.sigmoid(m.gate(x))), gate=nn.Linear(3, 1)),
        VECTORS, "mul", "one random number",
    ),
    "bias of one number per position": (
        lambda: wide(lambda m, x: m.last(relu(m.first(x) + m.b).mean(1)), 5, b=nn.Parameter(torch.randn(6, 1))),
        SEQUENCES, "add", "one random number",
    ),
    "examples joined": (
        lambda: wide(lambda m, x: m.last(relu(torch.cat([m.first(x), m.first(x)])))), VECTORS, "cat", "examples",
    ),
    "examples dropped": (lambda: wide(lambda m, x: m.last(relu(m.first(x)[1:]))), VECTORS, "slice", "examples"),
    "running statistics of a trained network": (used_statistics, VECTORS, "batch_norm", "differ between channels"),
    "one filter bank at two sizes": (
        lambda: Function(
            lambda m, x: m.last(m.f(relu(m.a(x))).mean(2) + m.f(functional.avg_pool1d(relu(m.a(x)), 2)).mean(2)),
            a=nn.Conv1d(6, N, 1), f=nn.Conv1d(N, N, 3), last=last(),
        ),
        torch.randn(4, 6, 10), "conv1d", "another way",
    ),
    "division of coordinates": (
        lambda: wide(lambda m, x: m.last(m.first(x) / (1 + m.first(x) ** 2))), VECTORS, "div", "division",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("parametrization", ["ntk", "standard"])
def test_refused(name, parametrization):
    build, x, operation, reason = CASES[name]
    with pytest.raises(UnsupportedOperation) as caught:
        infinite(trace(build(), x), parametrization)(x.double() if x.is_floating_point() else x)
    assert operation in str(caught.value)
    assert reason in str(caught.value)
    assert "kernel='empirical'" in str(caught.value)


def halves(h: torch.Tensor, *order: int) -> torch.Tensor:
    return torch.cat([h.chunk(2, -1)[i] for i in order], -1)


MEETING = {
    "slices joined as they were": lambda m, h: relu(m.a(h)) + relu(m.a(halves(h, 0, 1))),
    "slices swapped": lambda m, h: relu(m.a(h)) + relu(m.a(halves(h, 1, 0))),
    "whole times its slices": lambda m, h: h * halves(h, 0, 1),
    "whole gated by its slices": lambda m, h: h * torch.sigmoid(halves(h, 0, 1)),
    "split at two places": lambda m, h: (
        relu(m.a(torch.cat([relu(h[:, :4]), h[:, 4:]], 1))) + relu(m.a(torch.cat([relu(h[:, :8]), h[:, 8:]], 1)))
    ),
}


@pytest.mark.parametrize("method", ["exact", "sampled"])
@pytest.mark.parametrize("name", list(MEETING))
def test_slices_that_meet_the_whole_are_not_independent(name, method):
    """They would have to be lined up coordinate by coordinate, which only sums are."""
    function = MEETING[name]
    net = wide(lambda m, x: m.last(function(m, m.first(x))), a=nn.Linear(N, N))
    with pytest.raises(UnsupportedOperation):
        infinite(trace(net, VECTORS), method=method)(VECTORS.double())


def test_slices_that_are_apart_are_independent():
    """``h0 * h1`` of two halves has the second moment of a product of independent vectors."""
    net = wide(lambda m, x: m.last(m.first(x).chunk(2, 1)[0] * m.first(x).chunk(2, 1)[1]))
    net.last = nn.Linear(N // 2, 2)
    x = VECTORS.double()
    limit = infinite(trace(net, VECTORS), weight_std=1.0, bias_std=0.0)
    torch.testing.assert_close(limit(x).nngp, (x @ x.T / 3) ** 2)


EXACT = {
    "max pooling": (
        lambda: nn.Sequential(nn.Conv1d(6, N, 3, padding=1), nn.MaxPool1d(5), nn.Flatten(), last()),
        SEQUENCES, "max_pool1d", "module '1'",
    ),
    "square matrix and its transpose": (
        lambda: wide(lambda m, x: m.last(relu(functional.linear(relu(m.first(x) @ m.w), m.w))), w=square()),
        VECTORS, "aten.linear", "used a second time in another way",
    ),
    "mean over the width": (
        lambda: wide(lambda m, x: relu(m.first(x)).mean(1)), VECTORS, "mean", "gradient independence fails",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(EXACT))
def test_refused_where_samples_are_not_wanted(name):
    build, x, operation, reason = EXACT[name]
    with pytest.raises(UnsupportedOperation) as caught:
        infinite(trace(build(), x), method="exact")
    assert operation in str(caught.value)
    assert reason in str(caught.value)


def test_examples_mixed_in_the_data():
    """``x - x.mean(0)`` would make the kernel depend on how the inputs are cut into tiles."""
    limit = infinite(trace(wide(lambda m, x: m.last(relu(m.first(x - x.mean(0))))), VECTORS))
    with pytest.raises(UnsupportedOperation, match="mixes the examples"):
        limit(VECTORS)


def test_two_inputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.last = nn.Linear(3, N), nn.Linear(3, N), last()

        def forward(self, x, y):
            return self.last(relu(self.a(x) + self.b(y)))

    x, y = VECTORS.double(), VECTORS.double() + 1
    limit = infinite(trace(Two(), (VECTORS, VECTORS + 1)), weight_std={"a.*": 1.0, "b.*": 1.0, "*": 1.0}, bias_std=0.0)
    one = nn.Sequential(nn.Linear(6, N), nn.ReLU(), last())
    joint = infinite(trace(one, torch.ones(2, 6)), weight_std={"0.*": 2**0.5, "*": 1.0}, bias_std=0.0)
    torch.testing.assert_close(limit((x, y)).nngp, joint(torch.cat([x, y], 1)).nngp)
    with pytest.raises(DataError, match="lacks input y"):
        limit(x)


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.Sequential(nn.Linear(3, N), nn.PReLU(), last()),
        lambda: wide(lambda m, x: m.last(relu(m.alpha * m.first(x))), alpha=nn.Parameter(torch.ones(1))),
        lambda: wide(lambda m, x: m.last(relu(m.first(x) + m.shift)), shift=nn.Parameter(torch.zeros(1))),
    ],
    ids=["prelu", "scale", "shift"],
)
def test_one_trained_number_for_all_coordinates(build):
    """Its part of the tangent kernel stays random at any width, unless it is frozen or not counted."""
    net = build()
    program = trace(net, VECTORS)
    assert infinite(program, "ntk")(VECTORS).ntk.shape == (4, 4)
    with pytest.raises(UnsupportedOperation, match="one number of the trained parameter"):
        infinite(program, "standard")
    for parameter in net.parameters():
        parameter.requires_grad_(parameter.numel() > 1)
    assert infinite(program, "standard")(VECTORS).ntk.shape == (4, 4)


def test_padding_row_that_is_not_zero():
    table = nn.Embedding(9, N, padding_idx=0)
    nn.init.normal_(table.weight)
    net = Function(lambda m, x: m.last(relu(m.table(x)).mean(1)), table=table, last=last())
    with pytest.raises(UnsupportedOperation, match="padding row but not zero"):
        infinite(trace(net, torch.randint(0, 9, (4, 6))))
