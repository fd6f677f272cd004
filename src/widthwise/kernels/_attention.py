"""Moments and tangents of attention: exact where the weights are deterministic, means over sampled heads otherwise.

For one head, ``y_p = sum_q A_pq v_q`` with A the softmax of S, so that ``E[y_p y'_r] = E[A_p K_v A'_r]`` over the joint
law of S and S' at two inputs. With d entries in a head and independent queries and keys, ``S = scale * sum_i q_i k_i``
is Gaussian as d grows, with ``Cov(S_pq, S'_rs) = scale^2 d K_q(p, r) K_k(q, s)`` (arXiv:2006.10540, section 3).
"""

from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from widthwise.kernels._attention_draws import Draws
from widthwise.kernels._attention_scores import attention_weights, phases, shift
from widthwise.kernels._contractions import position_diagonal
from widthwise.kernels._fields import Field
from widthwise.kernels._fields_attention import Attended, Gated, Rotated, Scores
from widthwise.kernels._origins import independent
from widthwise.kernels._structure import Ask, total

if TYPE_CHECKING:
    from widthwise.kernels._evaluator import Evaluator, Pair

Kernels = list[tuple[Tensor, Tensor]]
"""Factors ``a(p, r)`` and ``b(q, s)`` of the tangents of scores, ``[N, P, R]`` and ``[N, S, T]``."""


def attended(
    run: "Evaluator", ask: Ask, u: Field, v: Field, pair: "Pair", diagonal: bool, *, tangent: bool
) -> Tensor | None:
    """The moment (or chain, by `ask`) of two fields of which one at least is attention.

    Args:
        tangent: whether the derivatives of the scores are to be added.
    """
    key = ("attended", tangent, id(u), id(v), pair)
    if key not in run.memory:
        run.memory[key] = _attended(run, ask, u, v, pair, tangent)
    full = run.memory[key]
    return position_diagonal(full, u.positions) if diagonal and full is not None else full


def _attended(run: "Evaluator", ask: Ask, u: Field, v: Field, pair: "Pair", tangent: bool) -> Tensor | None:
    if not (isinstance(u, Attended) and isinstance(v, Attended)):
        return _one_sided(run, ask, u, v, pair)
    inner = _flat(ask(u.value, v.value, pair, diagonal=False), u.scores, v.scores)
    of_value = _flat(run.moment(u.value, v.value, pair, diagonal=False), u.scores, v.scores) if tangent else None
    slopes = [] if of_value is None else _score_tangents(run, u.scores, v.scores, pair)
    if inner is None and not slopes:
        return None
    if not u.scores.softmax and not v.scores.softmax and u.scores.random and v.scores.random:
        result = _linear(run, u.scores, v.scores, pair, inner, of_value, slopes)
    elif u.scores.random or v.scores.random:
        result = _sampled(run, u, v, pair, inner, of_value, slopes)
    else:
        assert inner is not None
        result = _certain(run, u.scores, v.scores, pair, inner)
    return None if result is None else result.reshape(-1, *u.positions, *v.positions)


def _one_sided(run: "Evaluator", ask: Ask, u: Field, v: Field, pair: "Pair") -> Tensor | None:
    """The mean of the weights times the moment of the value with the other field."""
    left, right = run.sides(pair)
    if isinstance(u, Attended):
        inner = ask(u.value, v, pair, diagonal=False)
        if inner is None:
            return None
        weights = mean_weights(run, u, left)  # [n, P, S]
        rows = run.lead(inner.reshape(inner.shape[0], weights.shape[2], -1), pair)
        found = (weights.unsqueeze(1) if pair == "12" else weights) @ rows
    else:
        assert isinstance(v, Attended)
        inner = ask(u, v.value, pair, diagonal=False)
        if inner is None:
            return None
        weights = mean_weights(run, v, right)
        rows = run.lead(inner.reshape(inner.shape[0], -1, weights.shape[2]), pair)
        found = rows @ weights.transpose(-1, -2)
    return run.flat(found, pair).reshape(-1, *u.positions, *v.positions)


def mean_weights(run: "Evaluator", u: Attended, side: int) -> Tensor:
    """``E[A]``, ``[n, P, S]``: the mean over heads of the attention weights."""
    key = ("weights", id(u.scores), side)
    if key not in run.memory:
        if u.scores.random:
            run.memory[key] = Draws(run, u.scores, u.scores, "11" if side == 0 else "22").mean_weights()
        else:
            run.memory[key] = attention_weights(u.scores, shift(run, u.scores, side)).mean(1)
    return run.memory[key]


def _flat(array: Tensor | None, first: Scores, second: Scores) -> Tensor | None:
    """``[N, *S, *T]`` to ``[N, S, T]``."""
    return None if array is None else array.reshape(-1, first.shape[1], second.shape[1])


def _score_tangents(run: "Evaluator", first: Scores, second: Scores, pair: "Pair") -> Kernels:
    """``<dS_pq, dS'_rs>`` as a sum of products ``a(p, r) b(q, s)``; it vanishes where scores are deterministic."""
    if not (first.random and second.random):
        return []
    assert first.query is not None and first.key is not None and second.query is not None and second.key is not None
    unit = first.scale * second.scale * (first.size * second.size) ** 0.5
    sizes = (first.shape[0], second.shape[0]), (first.shape[1], second.shape[1])
    found: Kernels = []
    for of_query, of_key in ((run.tangent, run.moment), (run.moment, run.tangent)):
        a = of_query(first.query, second.query, pair, diagonal=False)
        b = of_key(first.key, second.key, pair, diagonal=False)
        if a is not None and b is not None:
            found.append((unit * a.reshape(-1, *sizes[0]), b.reshape(-1, *sizes[1])))
    return found


def _certain(run: "Evaluator", first: Scores, second: Scores, pair: "Pair", inner: Tensor) -> Tensor:
    """``A K A'``, mean over heads (which differ in their masks alone)."""
    left, right = run.sides(pair)
    a = attention_weights(first, shift(run, first, left))  # [n, heads, P, S]
    b = attention_weights(second, shift(run, second, right))
    heads = max(a.shape[1], b.shape[1])
    rows = run.lead(inner, pair)
    parts = []
    for head in range(heads):
        one, two = a[:, head % a.shape[1]], b[:, head % b.shape[1]]
        one = one.unsqueeze(1) if pair == "12" else one
        parts.append(one @ rows @ two.transpose(-1, -2))
    return run.flat(torch.stack(parts).mean(0), pair)


def _linear(
    run: "Evaluator",
    first: Scores,
    second: Scores,
    pair: "Pair",
    inner: Tensor | None,
    of_value: Tensor | None,
    slopes: Kernels,
) -> Tensor | None:
    """Weights that are the scores themselves: ``K_q(p, r) sum_qs K_k(q, s) K_v(q, s)`` and its product rule."""
    assert first.query is not None and first.key is not None and second.query is not None and second.key is not None
    unit = first.scale * second.scale * (first.size * second.size) ** 0.5
    of_query = run.moment(first.query, second.query, pair, diagonal=False)
    of_key = _flat(run.moment(first.key, second.key, pair, diagonal=False), first, second)
    terms: list[tuple[float, Tensor | None]] = []
    factors = [(a, b, of_value) for a, b in slopes]
    if of_query is not None and of_key is not None:
        factors.append((unit * of_query.reshape(-1, first.shape[0], second.shape[0]), of_key, inner))
    for a, b, c in factors:
        if c is not None:
            for phi, psi in phases(first, second, run):
                terms.append((1.0, a * (phi @ (b * c) @ psi.transpose(-1, -2))))
    return total(terms)


def _sampled(
    run: "Evaluator",
    u: Attended,
    v: Attended,
    pair: "Pair",
    inner: Tensor | None,
    of_value: Tensor | None,
    slopes: Kernels,
) -> Tensor:
    """Means over quasi-random heads; the relative standard error is noted for both fields."""
    planes = phases(u.scores, v.scores, run)

    def products(rows: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """``[e, m, P, R]`` for attention weights ``[e, m, P, S]`` and ``[e, m, R, T]``."""
        turned = b.transpose(-1, -2)
        result = a.new_zeros(*a.shape[:3], b.shape[2])
        if inner is not None:
            result = result + a @ inner[rows].unsqueeze(1) @ turned
        if slopes:
            assert of_value is not None
            for outer, between in slopes:
                both = _jacobians(a, b, between[rows].unsqueeze(1), of_value[rows].unsqueeze(1), planes)
                result = result + outer[rows].unsqueeze(1) * both
        return result

    value, error = Draws(run, u.scores, v.scores, pair, u is v).mean(products)
    run.note_error((u, v), error)
    return value


def _jacobians(a: Tensor, b: Tensor, between: Tensor, value: Tensor, planes: list[tuple[Tensor, Tensor]]) -> Tensor:
    """``sum_qs [J_p B J'_r]_qs V_qs`` with J the Jacobian of the softmax at a row of weights (and phases, if any)."""
    left, right = a @ value, value @ b.transpose(-1, -2)  # [.., P, T], [.., S, R]
    middle = a @ right
    result = torch.zeros_like(middle)
    for phi, psi in planes:
        one, two = a * phi, (b * psi).transpose(-1, -2)
        before, after = one @ between, between @ two
        result = result + one @ (between * value) @ two - one @ (after * right) - (before * left) @ two
        result = result + (one @ after) * middle
    return result


# -- rotations and gates ---------------------------------------------------------------------------------------------


def rotated(run: "Evaluator", ask: Ask, u: Field, v: Field, pair: "Pair", diagonal: bool) -> Tensor | None:
    """Turned coordinates: the mean over planes of the cosine of the angle between, times the moment."""
    a, b = (f.source if isinstance(f, Rotated) else f for f in (u, v))
    inner = ask(a, b, pair, diagonal=diagonal)
    if inner is None:
        return None
    turns = [f.angles if isinstance(f, Rotated) else torch.zeros(prod(f.positions), 1) for f in (u, v)]
    one, two = (turn.to(inner) for turn in turns)
    if diagonal:
        return inner * torch.cos(one - two).mean(1).reshape(u.positions)
    return inner * torch.cos(one.unsqueeze(1) - two).mean(2).reshape(u.positions + v.positions)


def separable(u: Field, v: Field) -> bool:
    """Whether both are products of two factors of which the first ones are independent of the second ones."""
    if not (isinstance(u, Gated) and isinstance(v, Gated)):
        return False
    (a, b), (c, d) = u.sources, v.sources
    return independent((a, c), (b, d))


def gated_moment(run: "Evaluator", u: Gated, v: Gated, pair: "Pair", diagonal: bool) -> Tensor | None:
    """``E[ab a'b'] = E[aa'] E[bb']``."""
    first = run.moment(u.sources[0], v.sources[0], pair, diagonal=diagonal)
    second = run.moment(u.sources[1], v.sources[1], pair, diagonal=diagonal)
    return None if first is None or second is None else first * second


def gated_chain(run: "Evaluator", u: Gated, v: Gated, pair: "Pair", diagonal: bool) -> Tensor | None:
    """``T_a E[bb'] + E[aa'] T_b``."""
    result: Tensor | None = None
    (a, b), (c, d) = u.sources, v.sources
    for moving, other in (((a, c), (b, d)), ((b, d), (a, c))):
        slope = run.chain(*moving, pair, diagonal=diagonal)
        moment = run.moment(*other, pair, diagonal=diagonal)
        if slope is not None and moment is not None:
            result = slope * moment if result is None else result + slope * moment
    return result


# -- entry points of the recursion -----------------------------------------------------------------------------------


def special(
    run: "Evaluator", ask: Ask, u: Field, v: Field, pair: "Pair", diagonal: bool, *, tangent: bool
) -> tuple[bool, Tensor | None]:
    """The moment (or chain) where a field is attention, rotated or gated; whether it was."""
    if isinstance(u, Rotated) or isinstance(v, Rotated):
        return True, rotated(run, ask, u, v, pair, diagonal)
    if isinstance(u, Attended) or isinstance(v, Attended):
        return True, attended(run, ask, u, v, pair, diagonal, tangent=tangent)
    if isinstance(u, Gated) and isinstance(v, Gated) and separable(u, v):
        return True, (gated_chain if tangent else gated_moment)(run, u, v, pair, diagonal)
    return False, None


def special_mean(run: "Evaluator", u: Attended | Gated, side: int) -> Tensor | None:
    """``E[u]`` of attention and gates."""
    if isinstance(u, Gated):
        first, second = (run.mean(source, side) for source in u.sources)
        return None if first is None or second is None else first * second
    inner = run.mean(u.value, side)
    if inner is None:
        return None
    weights = mean_weights(run, u, side)
    return (weights @ inner.reshape(inner.shape[0], -1, 1)).reshape(-1, *u.positions)
