"""Places in a program through which every signal passes: layers of a chain, the stream of a residual network."""

from dataclasses import dataclass

from widthwise.kernels._fields import Concat, Field, Inputs, Product, Sum, Tokens
from widthwise.kernels._fields_stacked import Stacked
from widthwise.kernels._limit import Limit
from widthwise.kernels._registry import Concrete
from widthwise.kernels._walks import below
from widthwise.program import Node, Weight


@dataclass(frozen=True)
class Station:
    """A node of the program and the field that it is.

    Attributes:
        name: path of its module (with the node's own name where it is not the first there), or the node.
        joins: whether it adds random branches (a skip connection).
    """

    name: str
    field: Field
    joins: bool


def stations(limit: Limit) -> list[Station]:
    """Sums and matrix products that no path from the inputs to the output avoids, one after each matrix at most."""
    values = {name: value for name, value in limit.lowering.values.items() if not isinstance(value, (Concrete, Weight))}
    nodes = [node for node in limit.program.nodes if node.name in values]
    places = {node.name: i for i, node in enumerate(nodes)}
    last = list(range(len(nodes)))
    for i, node in enumerate(nodes):
        for ref in node.refs:
            if ref.name in places:
                last[places[ref.name]] = i
    found: list[Station] = []
    reach, matrices = 0, 0
    for i, node in enumerate(nodes):
        field = values[node.name]
        if reach <= i and isinstance(field, (Product, Sum, Tokens, Concat, Stacked)):
            count = len({one.weight.name for one in below(field) if isinstance(one, (Product, Tokens))})
            if count > matrices:
                found.append(Station(_name(node, found), field, _joins(field)))
                matrices = count
        reach = max(reach, last[i])
    return found


def _name(node: Node, before: list[Station]) -> str:
    path = node.module_path
    taken = any(one.name.split(" ")[0] == path for one in before)
    return f"{path} ({node.name})" if path and taken else path or node.name


def _joins(field: Field) -> bool:
    """Whether a sum has several terms that depend on the inputs."""
    terms = [term for _, term in field.terms] if isinstance(field, Sum) else []
    return sum(any(isinstance(one, (Product, Tokens)) for one in below(term)) for term in terms) > 1


def entries(field: Field) -> list[Product | Tokens]:
    """The products and tables that read the data itself; tables of positions do not."""
    return [
        one
        for one in below(field)
        if (isinstance(one, Tokens) and one.batched) or (isinstance(one, Product) and isinstance(one.source, Inputs))
    ]
