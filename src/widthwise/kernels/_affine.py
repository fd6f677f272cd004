"""Fields that are one field up to a scale and a constant."""

from widthwise.kernels._fields import Centred, Field, Gained, Offset, Sum


def constant_part(field: Field) -> float | None:
    """The constant of a field that is Gaussian but for a constant, None for any other."""
    if field.gaussian:
        return 0.0
    if isinstance(field, Offset):
        return field.value
    if isinstance(field, Gained):
        inner = constant_part(field.source)
        return None if inner is None else field.value * inner
    if isinstance(field, Sum):
        parts = [(scale, constant_part(term)) for scale, term in field.terms]
        return None if any(part is None for _, part in parts) else sum(scale * (part or 0.0) for scale, part in parts)
    return None


def affine(field: Field) -> tuple[float, float, Field]:
    """Scale, constant and core: the field is ``scale * core + constant``, the core as simple as can be."""
    if isinstance(field, Gained):
        scale, offset, core = affine(field.source)
        return field.value * scale, field.value * offset, core
    if isinstance(field, Centred) and field.gaussian:
        scale, offset, core = affine(field.source)
        return scale, offset - (constant_part(field.source) or 0.0), core
    if isinstance(field, Sum):
        constant = sum(scale * term.value for scale, term in field.terms if isinstance(term, Offset))
        rest = [(scale, term) for scale, term in field.terms if not isinstance(term, Offset)]
        if len(rest) == 1:
            scale, offset, core = affine(rest[0][1])
            return rest[0][0] * scale, constant + rest[0][0] * offset, core
    return 1.0, 0.0, field
