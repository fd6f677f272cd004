"""Walks over the expression that a field is."""

from widthwise.kernels._fields import Concat, Field, Local, Sum


def children(field: Field) -> tuple[Field, ...]:
    """The fields that a field is made from."""
    if isinstance(field, Sum):
        return tuple(term for _, term in field.terms)
    if isinstance(field, Concat):
        return field.parts
    if isinstance(field, Local):
        return field.sources
    source = getattr(field, "source", None)
    return () if source is None else (source,)


def below(field: Field) -> list[Field]:
    """The field and everything that it is made from, each once."""
    seen: dict[int, Field] = {}
    stack = [field]
    while stack:
        one = stack.pop()
        if id(one) not in seen:
            seen[id(one)] = one
            stack.extend(children(one))
    return list(seen.values())
