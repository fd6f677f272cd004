"""Which random weights a coordinate is made of: fields without a common one are independent given the layers before."""

from widthwise.kernels._fields import Field, Inputs, Product, Shared, Tokens
from widthwise.kernels._fields_attention import Attended
from widthwise.kernels._fields_filtered import Tap
from widthwise.kernels._walks import children


def origins(field: Field) -> frozenset[str]:
    """Names of the weights whose entries of one coordinate the field depends on; data count as a name too."""
    if isinstance(field, (Product, Shared, Tokens, Tap)):
        return frozenset({f"{field.weight.name} at {id(field.weight)}"})
    if isinstance(field, Inputs):
        return frozenset({"data"})
    if isinstance(field, Attended):
        own = frozenset({f"scores {id(field.scores)}"} if field.scores.random else ())
        return own | origins(field.value)
    return frozenset().union(*(origins(child) for child in children(field)))


def independent(*groups: tuple[Field, ...]) -> bool:
    """Whether no two of the groups of fields share a random weight."""
    seen: set[str] = set()
    for group in groups:
        names = set().union(*(origins(field) for field in group))
        if seen & names:
            return False
        seen |= names
    return True
