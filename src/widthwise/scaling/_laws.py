"""Laws for learning rate and batch by name, side by side."""

import difflib
from types import MappingProxyType

from widthwise.core import WidthwiseError
from widthwise.scaling._laws_published import RIVALS, STEP_LAW
from widthwise.scaling._laws_types import Advice, Law

LAWS = MappingProxyType({entry.name: entry for entry in (STEP_LAW, *RIVALS)})
"""Published laws by name."""


def law(name: str) -> Law:
    """The published law of that name.

    Raises:
        WidthwiseError: no law has that name.

    >>> advice = law("step-law").predict(1e9, 1e11)
    >>> f"{advice.lr:.2e}, {advice.batch_sequences:.0f} sequences"
    '1.66e-03, 541 sequences'
    """
    if name not in LAWS:
        near = difflib.get_close_matches(name, LAWS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"give {', '.join(LAWS)}."
        raise WidthwiseError(f"no law is called {name!r}; {hint}")
    return LAWS[name]


def compare_laws(
    params: float,
    tokens: float,
    sequence_length: int = 2048,
    *,
    loss: float | None = None,
    compute: float | None = None,
) -> tuple[Advice, ...]:
    """What every published law says of one run.

    Args:
        params, tokens: raw counts.
        sequence_length: tokens per sequence.
        loss: target loss in nats per token; without it, laws whose batch depends on it give no batch.
        compute: FLOPs without embeddings; 6 params tokens where it is not given.

    Raises:
        DataError: an argument is no raw count.

    >>> [advice.law for advice in compare_laws(7e9, 2e12)][:2]
    ['step-law', 'deepseek']
    """
    return tuple(one.predict(params, tokens, sequence_length, loss=loss, compute=compute) for one in LAWS.values())
