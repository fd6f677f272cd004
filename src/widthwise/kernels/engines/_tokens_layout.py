"""Where each thing lies that an input brings along: data first, then what the first run works out."""

from widthwise.kernels.engines._tokens_nodes import Nodes
from widthwise.kernels.engines._tokens_scores import Weights


class Layout:
    """Places of features, constants and lists of positions.

    Args:
        widths: features of each of the nodes' data.

    Attributes:
        starts: where each piece of data begins, by kind and number.
        kept: where each worked out feature begins, by what it is.
    """

    def __init__(self, nodes: Nodes, widths: list[int]) -> None:
        self.nodes = nodes
        self.widths = widths
        self.starts: dict[tuple[str, int], int] = {}
        self.kept: dict[tuple, int] = {}
        self.table: list[int] = []
        self.places = 0
        for number, (field, width) in enumerate(zip(nodes.data, widths, strict=True)):
            self._data("data", number, _count(field.positions) * width)
        for number, tokens in enumerate(nodes.tokens):
            self._data("tokens", number, _count(tokens.positions))
        for number, shape in self._masks().items():
            self._data("mask", number, shape[0] * shape[1])
        for node in nodes.all:
            if node.kind == "centre":
                self._data("mean", node.argument, node.size)
        self.known = self.places

    def _data(self, kind: str, number: int, count: int) -> None:
        self.starts[kind, number] = self.places
        self.places += count

    def _masks(self) -> dict[int, tuple[int, int]]:
        """The shape of every mask that is data, those of one attention after each other."""
        found: dict[int, tuple[int, int]] = {}
        for node in self.nodes.all:
            if node.kind in ("map", "mixed") and isinstance(node.argument[1], Weights):
                found.update(dict.fromkeys(node.argument[1].given, node.argument[1].shape))
        return found

    def array(self, number: int) -> int:
        """Where an array of constants begins."""
        return 1 + sum(array.size for array in self.nodes.arrays[:number])

    def listed(self, places: tuple[int, ...]) -> int:
        """Where a list of positions begins; the first entry of the table is not used."""
        self.table += places
        return 1 + len(self.table) - len(places)

    def keep(self, key: tuple, count: int) -> int:
        """Where a worked out feature begins."""
        if key not in self.kept:
            self.kept[key] = self.places
            self.places += count
        return self.kept[key]


def _count(positions: tuple[int, ...]) -> int:
    count = 1
    for size in positions:
        count *= size
    return count
