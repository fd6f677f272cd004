"""Attention against brute force over heads, closed forms, and what has to hold for any attention."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.kernels.networks import Function
from widthwise.core import DataError, UnsupportedOperation
from widthwise.kernels import infinite
from widthwise.program import trace

SIZE, HEADS, POSITIONS = 8, 4, 3
WIDTH = SIZE * HEADS
X = torch.randn(3, POSITIONS, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def split(x: Tensor) -> Tensor:
    return x.unflatten(-1, (HEADS, SIZE)).transpose(1, 2)


def merged(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def heads(mix, first: nn.Module | None = None, **parts: nn.Module) -> nn.Module:
    """``last(mix(q, k, v))`` with untied q, k, v of a first layer (the inputs themselves by default)."""

    def forward(m: Function, x: Tensor) -> Tensor:
        h = x if first is None else m.first(x)
        return m.last(merged(mix(*(split(layer(h)) for layer in (m.q, m.k, m.v)))))

    size = 4 if first is None else WIDTH
    layers = {name: nn.Linear(size, WIDTH, bias=False) for name in "qkv"} | parts
    extra = {} if first is None else {"first": first}
    return Function(forward, last=nn.Linear(WIDTH, 2, bias=False), **extra, **layers)


def limit_of(net: nn.Module, x: Tensor = X, **options):
    return infinite(trace(net, x[:2].float()), method="exact", **{"weight_std": 1.0, "bias_std": 0.0} | options)


def softmax(q: Tensor, k: Tensor, v: Tensor, scale: float = SIZE**-0.5) -> Tensor:
    return functional.scaled_dot_product_attention(q, k, v, scale=scale)


def brute_force(scale: float = 1.0, causal: bool = False, draws: int = 60_000) -> tuple[Tensor, Tensor, float]:
    """Both kernels of `heads` on inputs 0 and 1 from plain draws of the scores, with the whole Jacobian of the softmax.

    Queries, keys and values have the covariance ``K = x x' / 4``; each of their matrices adds K to its tangent.
    """
    generator = torch.Generator().manual_seed(1)
    both = torch.cat([X[0], X[1]])
    k = both @ both.T / 4
    owner = torch.arange(2).repeat_interleave(POSITIONS)
    # scores of input a: rows (a, p), columns (a, q)
    index = [(p, q) for p in range(2 * POSITIONS) for q in range(2 * POSITIONS) if owner[p] == owner[q]]
    covariance = torch.tensor([[k[p, r] * k[q, s] for r, s in index] for p, q in index]) * scale**2
    values, vectors = torch.linalg.eigh(covariance)
    root = vectors * values.clamp_min(0).sqrt()
    s = torch.randn(draws, len(index), generator=generator, dtype=torch.float64) @ root.T
    s = s.reshape(draws, 2, POSITIONS, POSITIONS)
    if causal:
        s = s.masked_fill(~torch.ones(POSITIONS, POSITIONS, dtype=torch.bool).tril(), -math.inf)
    a, b = s.softmax(-1).unbind(1)
    c = k[:POSITIONS, POSITIONS:]
    per_draw = torch.einsum("mpq,qs,mrs->mpr", a, c, b)
    moment = per_draw.mean(0)
    jacobians = [torch.diag_embed(w) - w.unsqueeze(-1) * w.unsqueeze(-2) for w in (a, b)]
    paths = torch.einsum("mpqt,tu,mrsu,qs->mpr", jacobians[0], c, jacobians[1], c).mean(0)
    tangent = moment + 2 * scale**2 * c * paths  # values; queries and keys give the same each
    error = float(per_draw.diagonal(dim1=1, dim2=2).mean(1).std() / draws**0.5)
    nngp = moment.diagonal().mean()
    return nngp, nngp + tangent.diagonal().mean(), error


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_brute_force_over_heads(scale, causal):
    """The scale is ``scale / sqrt(d)``; outputs are read at each position, so that equal positions count."""

    def mix(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale * SIZE**-0.5)

    limit = limit_of(heads(mix))
    kernels = limit(X)
    nngp, ntk, error = brute_force(scale, causal)
    stated = max(row.error for row in limit.certificate) * float(kernels.nngp.abs().max())
    assert abs(float(kernels.nngp[0, 1] - nngp)) < 4 * (error + stated)
    assert abs(float(kernels.ntk[0, 1] - ntk)) < 0.02 * float(kernels.ntk.diagonal().max())
    assert stated < 0.05 * float(kernels.nngp.diagonal().max())


def test_identity_in_place_of_the_softmax():
    """``K' = K_pp sum K_rs^2`` and ``T' = 2 K_pp sum K T + sum K^2 (T_pp + 4 K_pp)``, by arXiv:2006.10540."""
    first = nn.Sequential(nn.Linear(4, WIDTH, bias=False), nn.ReLU())
    net = heads(lambda q, k, v: (q @ k.transpose(-1, -2) * SIZE**-0.5) @ v, first)
    limit = limit_of(net)
    below = limit_of(nn.Sequential(*first, nn.Linear(WIDTH, 1, bias=False)))
    source = below.features
    run = below.evaluator(X, None, torch.float64)
    k, t = (ask(source, source, "12", diagonal=False) for ask in (run.moment, run.tangent))
    square, mixed = (k**2).sum((1, 2)), (k * t).sum((1, 2))
    equal = [one.diagonal(dim1=1, dim2=2).mean(1) for one in (k, t)]
    kernels = limit(X)
    torch.testing.assert_close(kernels.nngp.flatten(), equal[0] * square)
    torch.testing.assert_close(kernels.ntk.flatten(), 2 * equal[0] * mixed + square * (equal[1] + 4 * equal[0]))
    assert {row.rule for row in limit.certificate} == {"exact"}


def tied(m: Function, x: Tensor) -> Tensor:
    """The block of the transformer notebook of arXiv:2006.14548: ``softmax(k k^T / n) k + k``."""
    k = m.first(x)
    return m.last((functional.softmax(k @ k.transpose(1, 2) / WIDTH, -1) @ k + k).mean(1))


def test_tied_queries_and_keys_are_deterministic():
    """Scores over the head size are their mean, the kernel itself: attention is a map of positions."""
    net = Function(tied, first=nn.Linear(4, WIDTH, bias=False), last=nn.Linear(WIDTH, 1, bias=False))
    limit = limit_of(net)
    k = torch.einsum("apd,bqd->abpq", X, X) / 4
    own = torch.stack([k[i, i] for i in range(3)]).softmax(-1) + torch.eye(POSITIONS)
    expected = torch.einsum("apq,abqs,brs->abpr", own, k, own).mean((2, 3))
    torch.testing.assert_close(limit(X).nngp, expected)
    torch.testing.assert_close(limit(X).ntk, 2 * expected)  # the values' matrix and the readout; scores add nothing
    assert {row.rule for row in limit.certificate} == {"exact"}


def test_vanishing_scores_average():
    mean = limit_of(heads(lambda q, k, v: v.mean(2, keepdim=True).expand(-1, -1, POSITIONS, -1)))(X)
    for scale in (0.0, 1 / SIZE):
        found = limit_of(heads(lambda q, k, v, scale=scale: softmax(q, k, v, scale)))(X)
        torch.testing.assert_close(found.nngp, mean.nngp)
        torch.testing.assert_close(found.ntk, mean.ntk)


def by_hand(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = q @ k.transpose(-1, -2) / math.sqrt(SIZE)
    keep = torch.ones(POSITIONS, POSITIONS, dtype=torch.bool).tril()
    return scores.masked_fill(~keep, -math.inf).softmax(-1) @ v


def added_bias(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    bias = torch.zeros(POSITIONS, POSITIONS).masked_fill(~torch.ones(POSITIONS, POSITIONS).tril().bool(), -math.inf)
    return functional.dropout(torch.softmax((SIZE**-0.25 * q) @ (SIZE**-0.25 * k).mT + bias, -1), 0.1, False) @ v


def flat(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    a, b, c = (one.flatten(0, 1) for one in (q, k, v))
    mask = torch.full((POSITIONS, POSITIONS), -math.inf).triu(1)
    weights = torch.baddbmm(mask.expand(len(a), -1, -1), a, b.transpose(1, 2), alpha=SIZE**-0.5).softmax(-1)
    return torch.bmm(weights, c).unflatten(0, (-1, HEADS))


@pytest.mark.parametrize("mix", [by_hand, added_bias, flat])
def test_ways_of_writing_agree(mix):
    """All are causal attention: the same field, so the same numbers."""
    expected = limit_of(heads(lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, is_causal=True)))(X)
    found = limit_of(heads(mix))(X)
    torch.testing.assert_close(found.nngp, expected.nngp, rtol=1e-6, atol=0)
    torch.testing.assert_close(found.ntk, expected.ntk, rtol=1e-6, atol=0)


def test_causal_first_position_sees_itself_alone():
    net = heads(lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, is_causal=True)[:, :, :1])
    alone = heads(lambda q, k, v: v[:, :, :1])
    for found, expected in zip(limit_of(net)(X), limit_of(alone)(X), strict=True):
        torch.testing.assert_close(found, expected)


def test_order_of_positions():
    """Attention without a mask, averaged, does not know the order: within its standard error."""
    limit = limit_of(Function(lambda m, x: m.inner(x).mean(1), inner=heads(softmax)))
    found, turned = limit(X), limit(X[:, [2, 0, 1]])
    error = max(row.error for row in limit.certificate)
    for one, other in zip(found, turned, strict=True):
        assert float((one - other).abs().max()) < 6 * error * float(one.diagonal().max())


class Masked(nn.Module):
    """Attention with a mask of which positions count."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.first, self.last = nn.Linear(4, WIDTH), nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor, absent: Tensor) -> Tensor:
        h = self.first(x)
        return self.last(self.inner(h, h, h, key_padding_mask=absent, need_weights=False)[0][:, 0])


def test_masked_positions_are_as_if_absent():
    """Two inputs, as a tuple and as a dict; the last position is hidden from all, or only from one."""
    absent = torch.zeros(3, POSITIONS, dtype=torch.bool)
    absent[:, 2] = True
    net = Masked()
    limit = infinite(trace(net, (X[:2].float(), absent[:2])), method="exact")
    found = limit((X, absent))
    changed = X.clone()
    changed[:, 2] = 7.0
    other = limit({"x": changed, "absent": absent}).ntk  # the same law, other draws of its scores
    error = max(row.error for row in limit.certificate)
    assert float((other - found.ntk).abs().max()) < 6 * error * float(found.ntk.max())
    assert not torch.allclose(limit((X, ~absent[:, [2, 0, 1]])).ntk, found.ntk, rtol=1e-2)
    with pytest.raises(DataError, match="lacks input absent"):
        limit(X)
    with pytest.raises(DataError, match="differ in number"):
        limit((X, absent[:2]))


def test_shared_keys_and_values_have_the_kernel_of_many():
    """Grouped queries: the mean over heads is the same, however many share their keys."""

    def grouped(m: Function, x: Tensor) -> Tensor:
        k, v = (layer(x).unflatten(-1, (2, SIZE)).transpose(1, 2) for layer in (m.k, m.v))
        return m.last(merged(functional.scaled_dot_product_attention(split(m.q(x)), k, v, enable_gqa=True)))

    parts = {name: nn.Linear(4, WIDTH if name == "q" else 2 * SIZE, bias=False) for name in "qkv"}
    found = limit_of(Function(grouped, last=nn.Linear(WIDTH, 2, bias=False), **parts))(X)
    expected = limit_of(heads(softmax))(X)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_packed_matrix_is_three():
    """Rows of one matrix are independent, like three matrices."""

    def packed(m: Function, x: Tensor) -> Tensor:
        return m.last(merged(softmax(*map(split, m.all(x).chunk(3, -1)))))

    parts = {"all": nn.Linear(4, 3 * WIDTH, bias=False), "last": nn.Linear(WIDTH, 2, bias=False)}
    for one, other in zip(limit_of(Function(packed, **parts))(X), limit_of(heads(softmax))(X), strict=True):
        torch.testing.assert_close(one, other)


def test_attention_weights_that_are_data():
    """A map of positions of each input's own."""

    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, WIDTH, bias=False), nn.Linear(WIDTH, 2, bias=False)

        def forward(self, x: Tensor, edges: Tensor) -> Tensor:
            return self.last((edges @ self.first(x)).relu())

    edges = torch.rand(3, POSITIONS, POSITIONS, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    given = infinite(trace(Graph(), (X[:2].float(), edges[:2].float())), weight_std=1.0, method="exact")((X, edges))
    plain = nn.Sequential(nn.Linear(4, WIDTH, bias=False), nn.ReLU(), nn.Linear(WIDTH, 2, bias=False))
    expected = limit_of(plain)(edges @ X)
    for one, other in zip(given, expected, strict=True):
        torch.testing.assert_close(one, other)


def qkv(mix) -> nn.Module:
    return heads(mix)


REFUSED = {
    "tied at one over the root": (lambda q, k, v: softmax(q, q, v), "grow without bound"),
    "softmax over queries": (lambda q, k, v: (q @ k.mT * SIZE**-0.5).softmax(-2) @ v, "over keys"),
    "weights changed": (lambda q, k, v: ((q @ k.mT * SIZE**-0.5).softmax(-1) * 2.0) @ v, "after the softmax"),
    "squared scores": (lambda q, k, v: ((q @ k.mT) ** 2 * SIZE**-0.5) @ v, "attention scores may be"),
    "activation of heads": (lambda q, k, v: softmax(q, k, v).tanh(), "Attended"),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_refused_with_the_true_reason(name):
    mix, reason = REFUSED[name]
    with pytest.raises(UnsupportedOperation, match=reason):
        limit_of(qkv(mix))(X)


def test_gates_of_independent_fields_are_exact():
    """``E ab a'b' = E aa' E bb'`` and the product rule, for halves of one matrix too."""
    parts = {"a": nn.Linear(4, 2 * WIDTH, bias=False), "last": nn.Linear(WIDTH, 1, bias=False)}
    x = X[:, 0]
    k = x @ x.T / 4

    def halves(m: Function, x: Tensor) -> Tensor:
        a, b = m.a(x).chunk(2, -1)
        return m.last(a * b)

    found = limit_of(Function(halves, **parts), x)(x)
    torch.testing.assert_close(found.nngp, k**2)
    torch.testing.assert_close(found.ntk, 3 * k**2)
    unit = limit_of(Function(lambda m, x: m.last(functional.glu(m.a(x))), **parts), x)(x)
    alone = nn.Sequential(nn.Linear(4, WIDTH, bias=False), nn.Sigmoid(), nn.Linear(WIDTH, 1, bias=False))
    gate = limit_of(alone, x)(x)
    torch.testing.assert_close(unit.nngp, k * gate.nngp)
    torch.testing.assert_close(unit.ntk, k * gate.nngp + k * gate.ntk)


def test_norm_written_out():
    def by_hand_norm(m: Function, x: Tensor) -> Tensor:
        h = m.first(x).relu()
        return m.last((h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-5)).relu())

    def norm(m: Function, x: Tensor) -> Tensor:
        return m.last(functional.rms_norm(m.first(x).relu(), (WIDTH,), eps=1e-5).relu())

    parts = {"first": nn.Linear(4, WIDTH), "last": nn.Linear(WIDTH, 1)}
    found, expected = (limit_of(Function(one, **parts), X[:, 0])(X[:, 0]) for one in (by_hand_norm, norm))
    torch.testing.assert_close(found.nngp, expected.nngp)
    torch.testing.assert_close(found.ntk, expected.ntk)


def test_written_out_activation_is_one_activation():
    """GELU by its tanh formula, in seven operations."""

    def written(m: Function, x: Tensor) -> Tensor:
        h = m.first(x)
        return m.last(0.5 * h * (1.0 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3))))

    parts = {"first": nn.Linear(4, WIDTH), "last": nn.Linear(WIDTH, 1)}
    plain = nn.Sequential(parts["first"], nn.GELU("tanh"), parts["last"])
    x = X[:, 0]
    limit = limit_of(Function(written, **parts), x)
    for one, other in zip(limit(x), limit_of(plain, x)(x), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)
    assert "sampled" not in {row.rule for row in limit.certificate}


def test_tied_readout_has_the_kernel_of_an_untied_one():
    """For tokens that the inputs do not hold; the shared table trains as a whole."""
    tokens = torch.randint(0, 9, (3, 5), generator=torch.Generator().manual_seed(4))
    body = {"hidden": nn.Linear(WIDTH, WIDTH, bias=False), "table": nn.Embedding(9, WIDTH)}
    tied_net = Function(lambda m, x: functional.linear(m.hidden(m.table(x)).relu(), m.table.weight), **body)
    free = Function(lambda m, x: m.last(m.hidden(m.table(x)).relu()), last=nn.Linear(WIDTH, 9, bias=False), **body)
    nn.init.normal_(free.last.weight)
    found, expected = (
        infinite(trace(net, tokens[:2]), weight_std={"*hidden*": 1.0, "*table*": 1.0, "*last*": 1.0})(tokens)
        for net in (tied_net, free)
    )
    torch.testing.assert_close(found.nngp, expected.nngp)
    torch.testing.assert_close(found.ntk, expected.ntk)
