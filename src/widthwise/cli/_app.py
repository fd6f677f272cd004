"""The commands. Argument parsing only: each calls the function that Python users call."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from widthwise import studies
from widthwise._api import forecast as run_forecast
from widthwise.cli._kernel import kernel as kernel_command
from widthwise.cli._scale import scale as scale_command
from widthwise.cli._study import print_study, save_study
from widthwise.core import WidthwiseError, check_writable
from widthwise.data import load
from widthwise.forecast import discard_stages, resolve_model
from widthwise.program import trace as trace_program
from widthwise.report import summary

app = typer.Typer(
    name="widthwise",
    help="Know how a neural network will learn before you spend the compute.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
study_app = typer.Typer(help="Papers' claims, predicted and measured.", no_args_is_help=True)
app.add_typer(study_app, name="study")


@app.command()
def forecast(
    model: Annotated[str, typer.Option(help="mlp, cnn, resnet, transformer, or file.py:function")] = "cnn",
    data: Annotated[
        str, typer.Option(help="a named set, .npz, .csv, .parquet, an image folder, or hf:name")
    ] = "digits",
    out: Annotated[Path, typer.Option(help="folder of the report")] = Path("report"),
    samples: Annotated[int | None, typer.Option(help="examples to forecast from")] = None,
    held_out: Annotated[int | None, typer.Option(help="examples to measure on")] = None,
    width: Annotated[int | None, typer.Option(help="width of a model that takes one")] = None,
    draws: Annotated[int, typer.Option(help="random training sets per size")] = 10,
    kernel: Annotated[str, typer.Option(help="auto, infinite, monte-carlo or empirical")] = "auto",
    parametrization: Annotated[str, typer.Option(help="of the tangent kernel: ntk, plain or standard")] = "ntk",
    training_seconds: Annotated[float, typer.Option(help="budget of the training check; 0: none")] = 30.0,
    target: Annotated[str | None, typer.Option(help="target column of a table")] = None,
    task: Annotated[
        str | None, typer.Option(help="classification or regression; by default seen from the data")
    ] = None,
    seed: Annotated[int, typer.Option(help="of everything random")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress bars")] = False,
) -> None:
    """Forecast how a network will learn a task, and write the report."""
    check_writable(out)
    kept = out / ".stages"
    with _interruptible():
        result = run_forecast(
            model,
            load(data, target=target, task=task, seed=seed),
            samples=samples,
            held_out=held_out,
            width=width,
            draws=draws,
            kernel=kernel,
            parametrization=parametrization,
            training_seconds=training_seconds,
            seed=seed,
            keep=kept,
            progress=not quiet,
        )
        page = result.save(out)
    discard_stages(kept)
    Console().print(summary(result))
    typer.echo(f"The report is at {page}")


@contextmanager
def _interruptible() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: what is finished is kept, and the same command goes on from there.\n")
        raise typer.Exit(130) from None


@app.command("kernel")
@wraps(kernel_command)
def _kernel(*arguments: Any, **options: Any) -> None:
    with _interruptible():
        kernel_command(*arguments, **options)


app.command("scale")(scale_command)


@study_app.command("list")
def study_list(as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False) -> None:
    """Every paper with its state: works, partly, not yet."""
    rows = studies.available()
    if as_json:
        typer.echo(json.dumps([row.to_dict() for row in rows], indent=2))
        return
    table = Table("slug", "state", "title", box=None, pad_edge=False)
    for row in rows:
        table.add_row(row.slug, row.state, row.title)
    Console().print(table)


@study_app.command("run")
def study_run(
    slug: Annotated[str, typer.Argument(help="see: widthwise study list")],
    scale: Annotated[str, typer.Option(help="quick or full")] = "quick",
    out: Annotated[Path | None, typer.Option(help="folder for result.json and figures")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Run a study; exit code 0 only if every claim holds, but for those whose shortfall the study states."""
    if scale not in ("quick", "full"):
        raise WidthwiseError(f"scale '{scale}' is not known; give quick or full.")
    if out is not None:
        check_writable(out)
    result = studies.run(slug, scale=scale)  # type: ignore[arg-type]
    if out is not None:
        save_study(result, out)
    if as_json:
        typer.echo(json.dumps(result.to_dict(), indent=2))
    else:
        print_study(result, Console())
    if result.unexplained:
        raise typer.Exit(1)


@app.command()
def trace(
    model: Annotated[str, typer.Option(help="mlp, cnn, resnet, transformer, or file.py:function")],
    data: Annotated[str, typer.Option(help="data set whose inputs the model takes")] = "digits",
    width: Annotated[int | None, typer.Option(help="width of a model that takes one")] = None,
) -> None:
    """Print a network's tensor program: weights with roles, operations with labelled axes."""
    loaded = load(data)
    module = resolve_model(model, loaded, width).build()
    typer.echo(str(trace_program(module, loaded.inputs[:2])))


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(metadata.version("widthwise"))


def main(arguments: list[str] | None = None) -> None:
    """Entry point: known errors are one sentence on standard error and exit code 2."""
    try:
        app(arguments)
    except WidthwiseError as error:
        _fail(str(error))
    except MemoryError:
        _fail("out of memory; ask for fewer samples with --samples.")
    except RuntimeError as error:
        if "allocate memory" not in str(error):
            raise
        _fail("out of memory; ask for fewer samples with --samples.")


def _fail(sentence: str) -> NoReturn:
    sys.stderr.write(f"error: {' '.join(sentence.split())}\n")
    sys.exit(2)


__all__ = ["app", "main"]
