"""The page of `widthwise scale`, and what is written beside it."""

import json
from pathlib import Path

from widthwise.core import Figure, write_text
from widthwise.report._html import render
from widthwise.report._numbers import interval, number
from widthwise.report._png import to_png
from widthwise.report._richness_section import Richness
from widthwise.report._sections import Section, Tile
from widthwise.report._tables import Table, table
from widthwise.scaling import ScaleResult


def save_scale(result: ScaleResult, folder: str | Path, name: str, richness: Richness | None = None) -> Path:
    """Write ``scale.json``, ``figures/*.png`` and ``index.html``, the page last; gives the page's path.

    Args:
        name: of the model, for the title.
        richness: the plane of feature-learning strength and learning rate, where it was swept.

    Raises:
        OutputError: the folder cannot be written.
    """
    folder = Path(folder)
    drawn = {key: figure for key, figure in result.figures().items() if figure.series}
    held = result.recommendation()
    if richness is not None:
        drawn |= richness.figures()
        held["richness"] = richness.recommendation()
    write_text(folder / "scale.json", json.dumps(held, indent=2, allow_nan=False) + "\n")
    for key, figure in drawn.items():
        to_png(figure, folder / "figures" / f"{key}.png")
    page = folder / "index.html"
    write_text(page, scale_page(result, drawn, name, richness))
    return page


def scale_page(result: ScaleResult, drawn: dict[str, Figure], name: str, richness: Richness | None = None) -> str:
    """One self-contained page; every name is escaped."""
    verdict = "settings transfer" if result.passed else "settings do not transfer as they are"
    made = [_transfer(result, drawn), _coordinates(result, drawn), _what_to_set(result)]
    tiles = _tiles(result)
    if richness is not None:
        made.insert(2, richness.section())
        tiles += filter(None, (richness.tile(),))
    return render(
        kind="Widthwise scaling",
        generator="widthwise, scale schema 1",
        title=f"{name}: {verdict}",
        tab=f"{name}: scaling",
        size=f"{result.scheme} parametrisation, {result.optimizer}, widths {', '.join(map(str, result.widths))}.",
        tiles=tiles,
        sections=made,
        figures=drawn,
        beside="scale.json",
    )


def _tiles(result: ScaleResult) -> list[Tile]:
    drift = result.transfer.drift
    return [
        Tile(
            "Base learning rate", number(result.base_lr),
            f"at width {result.base_width}, \N{PLUS-MINUS SIGN} {result.lr_stderr_octaves:.2f} octaves",
        ),
        Tile("Drift per doubling", f"{drift.per_doubling:+.2f} octaves", interval(drift.low, drift.high)),
        Tile("Target width", str(result.target_width), f"{len(result.plan.rows)} weights to set"),
    ]  # fmt: skip


def _transfer(result: ScaleResult, drawn: dict[str, Figure]) -> Section:
    drift = result.transfer.drift
    words = (
        f"The best learning rate drifts by {drift.per_doubling:+.2f} octaves per doubling of the width (95 % interval "
        f"{drift.low:+.2f} to {drift.high:+.2f}), {drift.total:+.2f} in all.",
        f"Use a base learning rate of {result.base_lr:.3g} (\N{PLUS-MINUS SIGN} {result.lr_stderr_octaves:.2f} "
        f"octaves) at width {result.base_width}; the last table holds what follows from it at width "
        f"{result.target_width}.",
    )
    return Section("transfer", "Learning rate over widths", words, _there(drawn, "transfer"), (), result.warnings)


def _coordinates(result: ScaleResult, drawn: dict[str, Figure]) -> Section:
    broken = tuple(f"Broken rule: {item.rule}: {item.sentence}" for item in result.coordinates.verdicts)
    words = broken or ("No layer's values, changes or updates grow or vanish with the width: no rule is broken.",)
    return Section("coordinates", "Coordinate check", words, _there(drawn, "coordinates", "updates"))


def _there(drawn: dict[str, Figure], *names: str) -> tuple[str, ...]:
    return tuple(name for name in names if name in drawn)


def _what_to_set(result: ScaleResult) -> Section:
    title = f"What to set at width {result.target_width}"
    words = (f"Initial scale, multiplier and learning rate of every weight at width {result.target_width}.",)
    return Section("set", title, words, (), (_weights(result),), result.plan.notes)


def _weights(result: ScaleResult) -> Table:
    columns = ("weight", "role", "shape", "initial std", "multiplier", "lr", "weight decay", "eps", "why")
    rows = [
        (
            row.name,
            row.role.value,
            " \N{MULTIPLICATION SIGN} ".join(map(str, row.shape)),
            number(row.init_std),
            number(row.multiplier),
            number(row.lr) if row.trained else "frozen",
            number(row.weight_decay),
            number(row.eps),
            row.reason,
        )
        for row in result.plan.rows
    ]
    return table(f"Weights at width {result.target_width}", columns, "tttnnnnnt", rows)
