"""`widthwise scale`: from small widths to the settings of a large one."""

import json
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from torch import nn

from widthwise.core import DataError, ModelError, check_writable
from widthwise.data import DataSet, load
from widthwise.forecast import resolve_model
from widthwise.probe import Regime
from widthwise.report import Richness, save_scale
from widthwise.scaling import RichnessSweep, diagnose_regime, richness_advice, richness_sweep
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
    richness = None
    if strengths is not None:
        build = partial(source.make, sizes[0])
        shared: dict[str, Any] = {"steps": steps, "batch_size": batch_size, "scheme": scheme, "seed": seed}
        shared["show_progress"] = not quiet
        plane = richness_sweep(
            build, loaded.inputs, loaded.targets, gammas=strengths, seeds=seeds, keep=out / "richness.json", **shared
        )
        typer.echo(str(plane))
        richness = Richness(plane, _regime(plane, build, loaded, shared))
    page = save_scale(result, out, source.name, richness)
    typer.echo(f"The settings are in {out / 'scale.json'}, the page is {page}")


def _regime(
    plane: RichnessSweep, build: Callable[[], nn.Module], data: DataSet, shared: dict[str, Any]
) -> Regime | None:
    """What a run at the best strength and rate is; None where nothing trained or it is too short to say."""
    try:
        best = richness_advice(plane)
        return diagnose_regime(build, data.inputs, data.targets, gamma=best.gamma, rate=best.rate.value, **shared)
    except DataError as error:
        typer.echo(f"the regime at the best strength is not known: {error}")
        return None


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
