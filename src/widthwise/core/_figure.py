"""A figure as a value: what is drawn, not how. `to_plotly` and `to_png` draw it, in the same colours."""

from dataclasses import dataclass
from typing import Literal

from widthwise.core._values import Value

Scale = Literal["linear", "log", "category"]
Direction = Literal["vertical", "horizontal"]


@dataclass(frozen=True)
class Axis(Value):
    """One axis.

    Attributes:
        label: what is drawn, with its unit.
        scale: ``"linear"``, ``"log"`` or ``"category"``.
        categories: names of the positions 0, 1, 2, ... of a ``"category"`` axis.
        limits: lowest and highest value shown; None: as the data have it.
    """

    label: str
    scale: Scale = "linear"
    categories: tuple[str, ...] = ()
    limits: tuple[float, float] | None = None


@dataclass(frozen=True)
class Line(Value):
    """A line through points; dashed where it is extrapolated. A `name` of ``""`` keeps it out of the legend."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    slot: int = 0
    dashed: bool = False
    markers: bool = False


@dataclass(frozen=True)
class Points(Value):
    """Measured points with error bars (one standard error, the half length of the bar)."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    error: tuple[float, ...] = ()
    slot: int = 0


@dataclass(frozen=True)
class Band(Value):
    """The area between `low` and `high`; lighter where it is extrapolated. Bands stay out of the legend."""

    x: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    slot: int = 0
    light: bool = False


@dataclass(frozen=True)
class Bars(Value):
    """One horizontal bar per category of the y axis, from zero; several `Bars` stand side by side."""

    name: str
    values: tuple[float, ...]
    slot: int = 0


@dataclass(frozen=True)
class Heatmap(Value):
    """Cells over two category axes: ``z[i][j]`` at y category i and x category j; `log` colours by the logarithm."""

    z: tuple[tuple[float, ...], ...]
    label: str
    log: bool = True


@dataclass(frozen=True)
class Guide(Value):
    """A reference line across the plot at one value of an axis, with its label beside it."""

    at: float
    label: str
    direction: Direction = "vertical"


Series = Line | Points | Band | Bars | Heatmap | Guide


@dataclass(frozen=True)
class Figure(Value):
    """One chart.

    Attributes:
        title: what it shows.
        x, y: the axes.
        series: what is drawn, back to front.
        caption: how to read it, in one or two sentences; also the text for those who cannot see it.

    Example:
        >>> Figure("Error", Axis("examples", "log"), Axis("MSE"), (Line("predicted", (1, 10), (1, 0.1)),)).title
        'Error'
    """

    title: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    caption: str = ""
