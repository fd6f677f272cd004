"""`widthwise scale`: from small widths to the settings of a large one."""

import html
import json
import re
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from widthwise.core import DataError, Figure, ModelError, check_writable, write_text
from widthwise.data import load
from widthwise.forecast import resolve_model
from widthwise.report import to_plotly, to_png
from widthwise.scaling import ScaleResult, richness_sweep
from widthwise.scaling import scale as run_scale

LEDGER = "sweeps.json"
MOST_WIDTHS = 16


def scale(
    model: Annotated[str, typer.Option(help="mlp, cnn, resnet, transformer, or file.py:function that takes a width")],
    data: Annotated[
        str, typer.Option(help="a named set, .npz, .csv, .parquet, an image folder, or hf:name")
    ] = "digits",
    widths: Annotated[str, typer.Option(help="64:1024 (doublings) or 64,96,128; at least three")] = "64:512",
    target_width: Annotated[int | None, typer.Option(help="the width that is wanted; by default the largest")] = None,
    optimizer: Annotated[str, typer.Option(help="sgd, momentum, adam, adamw, adafactor, muon, ...")] = "adamw",
    scheme: Annotated[str, typer.Option(help="spectral, mup, standard, ntk or mean-field")] = "spectral",
    lr: Annotated[float | None, typer.Option(help="middle of the sweep, at the smallest width")] = None,
    steps: Annotated[int, typer.Option(help="training steps of each run of the sweep")] = 60,
    seeds: Annotated[int, typer.Option(help="runs per learning rate")] = 2,
    batch_size: Annotated[int, typer.Option(help="examples per step")] = 64,
    weight_decay: Annotated[float, typer.Option(help="at the smallest width, decoupled")] = 0.0,
    depth_rule: Annotated[str, typer.Option(help="none, sqrt or linear (residual branches)")] = "none",
    target: Annotated[str | None, typer.Option(help="target column of a table")] = None,
    task: Annotated[str | None, typer.Option(help="classification or regression")] = None,
    gammas: Annotated[
        str | None, typer.Option(help="0.01,0.1,1,10,100: also sweep feature-learning strength and rate (SGD)")
    ] = None,
    seed: Annotated[int, typer.Option(help="of everything random")] = 0,
    out: Annotated[Path, typer.Option(help="folder of scale.json, figures and page")] = Path("scale"),
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress bars")] = False,
) -> None:
    """Check at small widths that settings transfer, and write what to set at the target width; run again to go on."""
    check_writable(out)
    sizes = parse_widths(widths)
    strengths = None if gammas is None else parse_gammas(gammas)
    for name, value in (("steps", steps), ("seeds", seeds), ("batch-size", batch_size)):
        if value < 1:
            raise DataError(f"--{name} is {value}; give at least 1.")
    loaded = load(data, target=target, task=task, seed=seed)
    source = resolve_model(model, loaded, None)
    if not source.scales:
        raise ModelError(f"model {source.name} takes no width; give a factory build(width).")
    try:
        result = run_scale(
            source.make,
            sizes,
            loaded,
            target_width=target_width,
            optimizer=optimizer,
            scheme=scheme,
            lr=lr,
            steps=steps,
            seeds=seeds,
            batch_size=batch_size,
            weight_decay=weight_decay,
            depth_rule=depth_rule,
            seed=seed,
            keep=out,
            name=model,
            show_progress=not quiet,
        )
    except KeyboardInterrupt:
        kept = out / LEDGER
        runs = len(json.loads(kept.read_text(encoding="utf-8"))["losses"]) if kept.exists() else 0
        words = f"the {runs} finished runs are kept in {kept}" if runs else "no run had finished"
        sys.stderr.write(f"interrupted: {words}, and the same command goes on from there.\n")
        raise typer.Exit(130) from None
    typer.echo(str(result))
    page = save_scale(result, out, source.name)
    typer.echo(f"The settings are in {out / 'scale.json'}, the page is {page}")
    if strengths is not None:
        plane = richness_sweep(
            partial(source.make, sizes[0]),
            loaded.inputs,
            loaded.targets,
            gammas=strengths,
            steps=steps,
            seeds=seeds,
            batch_size=batch_size,
            seed=seed,
            keep=out / "richness.json",
            show_progress=not quiet,
        )
        typer.echo(str(plane))
        to_png(plane.plot(), out / "figures" / "richness.png")


def parse_widths(text: str) -> tuple[int, ...]:
    """``"64:1024"``: doublings, both ends included; ``"64,96"``: as listed.

    Raises:
        DataError: the text is neither.

    >>> parse_widths("64:512")
    (64, 128, 256, 512)
    """
    found = re.fullmatch(r"(\d+):(\d+)", text.strip())
    if found is None:
        if not re.fullmatch(r"\d+(,\s*\d+)*", text.strip()):
            raise DataError(f"widths {text!r} cannot be read; give 64:1024 for doublings, or 64,96,128.")
        sizes = tuple(sorted({int(part) for part in text.split(",")}))
    else:
        first, last = int(found[1]), int(found[2])
        if not 0 < first < last:
            raise DataError(
                f"widths {text!r} run from {first} to {last}; give a rising range above zero, like 64:1024."
            )
        doublings = [first << k for k in range((last // first).bit_length())]
        sizes = tuple(doublings) if doublings[-1] == last else (*doublings, last)
    if len(sizes) > MOST_WIDTHS:
        raise DataError(f"widths {text!r} are {len(sizes)} networks to train; give at most {MOST_WIDTHS}.")
    return sizes


def parse_gammas(text: str) -> tuple[float, ...]:
    """Numbers above zero, at least two, separated by commas.

    Raises:
        DataError: the text is something else.

    >>> parse_gammas("0.1, 1,10")
    (0.1, 1.0, 10.0)
    """
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if len(set(found)) < 2 or not all(0 < value < float("inf") for value in found):
        raise DataError(f"--gammas {text!r} cannot be read; give at least two numbers above zero, like 0.01,0.1,1,10.")
    return found


def save_scale(result: ScaleResult, folder: Path, name: str) -> Path:
    """Write ``scale.json``, ``figures/*.png`` and ``index.html``, the page last."""
    figures = {key: figure for key, figure in result.figures().items() if figure.series}
    result.save(folder)
    for key, figure in figures.items():
        to_png(figure, folder / "figures" / f"{key}.png")
    page = folder / "index.html"
    write_text(page, _page(result, figures, name))
    return page


def _page(result: ScaleResult, figures: dict[str, Figure], name: str) -> str:
    """One self-contained page; every name is escaped."""
    verdict = "Settings transfer" if result.passed else "Settings do not transfer as they are"
    drift = result.transfer.drift
    facts = [
        f"{result.scheme} parametrisation, {result.optimizer}, widths {', '.join(map(str, result.widths))}.",
        f"Base learning rate {result.base_lr:.3g} (± {result.lr_stderr_octaves:.2f} octaves) at width "
        f"{result.base_width}; the table holds what follows from it at width {result.target_width}.",
        f"The best learning rate drifts by {drift.per_doubling:+.2f} octaves per doubling of the width "
        f"(95 % interval {drift.low:+.2f} to {drift.high:+.2f}), {drift.total:+.2f} in all.",
        *(f"Broken rule: {item.rule}: {item.sentence}" for item in result.coordinates.verdicts),
        *result.plan.notes,
        *result.warnings,
    ]
    charts = []
    for place, figure in enumerate(figures.values()):
        drawn = to_plotly(figure).to_html(full_html=False, include_plotlyjs=place == 0)
        charts.append(f"<h2>{html.escape(figure.title)}</h2>{drawn}<p>{html.escape(figure.caption)}</p>")
    heads = ("weight", "role", "shape", "initial std", "multiplier", "lr", "weight decay", "eps", "why")
    rows = [
        (
            row.name, row.role.value, " x ".join(map(str, row.shape)), f"{row.init_std:.4g}", f"{row.multiplier:.4g}",
            f"{row.lr:.4g}" if row.trained else "frozen", f"{row.weight_decay:.4g}", f"{row.eps:.4g}", row.reason,
        )
        for row in result.plan.rows
    ]  # fmt: skip
    table = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    words = "".join(f"<p>{html.escape(fact)}</p>" for fact in facts)
    head = "".join(f"<th>{title}</th>" for title in heads)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(name)}: scaling</title><style>{_STYLE}</style></head><body><main>"
        f"<h1>{html.escape(name)}: {verdict}</h1>{words}{''.join(charts)}"
        f"<h2>What to set at width {result.target_width}</h2>"
        f'<div class="wide"><table><tr>{head}</tr>{table}</table></div>'
        "</main></body></html>\n"
    )


_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:0}main{max-width:70rem;margin:auto;padding:1rem}"
    ".wide{overflow-x:auto}table{border-collapse:collapse;font-size:.85rem}td,th{padding:.25rem .6rem;"
    "border-bottom:1px solid #ccc;text-align:left}"
)
