"""Walks over the expression that a field is."""

from widthwise.kernels._fields import Field, Normalised, Product, Sum


def children(field: Field) -> tuple[Field, ...]:
    """The fields that a field is made from."""
    if isinstance(field, Sum):
        return tuple(term for _, term in field.terms)
    parts = getattr(field, "parts", None)
    if parts is not None:
        return parts
    sources = getattr(field, "sources", None)
    if sources is not None:
        return sources
    source = getattr(field, "source", None)
    return () if source is None else (source,)


def operands(field: Field) -> tuple[Field, ...]:
    """The fields that its value depends on, statistics too."""
    return (*children(field), field.statistic) if isinstance(field, Normalised) else children(field)


def in_order(field: Field) -> list[Field]:
    """The field and all that its value depends on (statistics too), each once, after what it is made from."""
    done: dict[int, Field] = {}
    stack = [(field, False)]
    while stack:
        one, ready = stack.pop()
        if id(one) in done:
            continue
        if ready:
            done[id(one)] = one
            continue
        stack.append((one, True))
        stack.extend((child, False) for child in reversed(operands(one)))
    return list(done.values())


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


def since_matrix(field: Field) -> list[Field]:
    """The field and what it is made from since the last random matrices, each once."""
    seen: dict[int, Field] = {}
    stack = [field]
    while stack:
        one = stack.pop()
        if id(one) not in seen:
            seen[id(one)] = one
            stack.extend(() if isinstance(one, Product) else children(one))
    return list(seen.values())
