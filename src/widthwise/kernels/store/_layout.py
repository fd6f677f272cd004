"""How a Gram matrix is cut into tiles."""

from collections.abc import Iterator
from dataclasses import dataclass

from widthwise.core import DataError, Value

Tile = tuple[int, int]
"""Row and column number of a tile."""


@dataclass(frozen=True)
class Layout(Value):
    """A matrix cut into square tiles; of a symmetric one only the tiles on and above the diagonal are kept.

    >>> layout = Layout(5, 5, 2, symmetric=True)
    >>> list(layout.tiles()), layout.span(1, 2)
    ([(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)], (slice(2, 4, None), slice(4, 5, None)))
    """

    rows: int
    columns: int
    tile: int
    symmetric: bool

    def __post_init__(self) -> None:
        if self.tile < 1:
            raise DataError(f"a tile of side {self.tile} was asked for; give at least 1.")
        if self.symmetric and self.rows != self.columns:
            raise DataError(f"a matrix of shape [{self.rows}, {self.columns}] is not symmetric; give a square one.")

    @property
    def down(self) -> int:
        """Rows of tiles."""
        return -(-self.rows // self.tile)

    @property
    def across(self) -> int:
        """Columns of tiles."""
        return -(-self.columns // self.tile)

    def tiles(self) -> Iterator[Tile]:
        """The tiles that are kept, row by row."""
        for i in range(self.down):
            for j in range(i if self.symmetric else 0, self.across):
                yield i, j

    @property
    def count(self) -> int:
        """Number of tiles that are kept."""
        return self.down * (self.down + 1) // 2 if self.symmetric else self.down * self.across

    def span(self, i: int, j: int) -> tuple[slice, slice]:
        """Rows and columns that a tile covers."""
        side = self.tile
        return slice(i * side, min((i + 1) * side, self.rows)), slice(j * side, min((j + 1) * side, self.columns))
