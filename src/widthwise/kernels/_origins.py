"""Which random weights a coordinate is made of: fields without a common one are independent given the layers before."""

from widthwise.kernels._fields import Field, Inputs, Product, Shared, Tokens
from widthwise.kernels._fields_attention import Attended
from widthwise.kernels._fields_filtered import Tap
from widthwise.kernels._pieces import share_rows
from widthwise.kernels._walks import children
from widthwise.program import Weight

Origins = dict[int | str, Weight | None]
"""Weights by their id; data and random scores by a name."""


def origins(field: Field) -> Origins:
    """The weights whose entries of one coordinate the field depends on."""
    if isinstance(field, (Product, Shared, Tokens, Tap)):
        return {id(field.weight): field.weight}
    if isinstance(field, Inputs):
        return {"data": None}
    found: Origins = {}
    if isinstance(field, Attended):
        if field.scores.random:
            found[f"scores {id(field.scores)}"] = None
        return found | origins(field.value)
    for child in children(field):
        found |= origins(child)
    return found


def independent(*groups: tuple[Field, ...]) -> bool:
    """Whether no two of the groups of fields share a random weight, or rows of one."""
    seen: Origins = {}
    for group in groups:
        found: Origins = {}
        for field in group:
            found |= origins(field)
        if found.keys() & seen.keys() or any(_share(one, other) for one in found.values() for other in seen.values()):
            return False
        seen |= found
    return True


def _share(one: Weight | None, other: Weight | None) -> bool:
    return one is not None and other is not None and share_rows(one, other)
