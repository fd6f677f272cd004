"""`widthwise kernel`: a Gram matrix on disk."""

from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from widthwise.core import DataError
from widthwise.data import DataSet, load
from widthwise.forecast import resolve_model
from widthwise.kernels import GramStore, Parametrization, infinite
from widthwise.program import trace

_KERNELS = {"ntk": ("ntk",), "nngp": ("nngp",), "both": ("ntk", "nngp")}


def kernel(
    model: Annotated[str, typer.Option(help="mlp, cnn, resnet, transformer, or file.py:function")] = "cnn",
    data: Annotated[
        str, typer.Option(help="a named set, .npz, .csv, .parquet, an image folder, or hf:name")
    ] = "digits",
    out: Annotated[Path, typer.Option(help="folder of the Gram store (Zarr)")] = Path("gram.zarr"),
    kernel: Annotated[str, typer.Option(help="ntk, nngp or both")] = "ntk",
    samples: Annotated[int | None, typer.Option(help="training examples to draw; by default all")] = None,
    test: Annotated[int | None, typer.Option(help="held-out examples; their kernels go to OUT/test")] = None,
    dtype: Annotated[str, typer.Option(help="float32 or float64")] = "float32",
    tile: Annotated[int | None, typer.Option(help="side of a tile; by default one that takes some seconds")] = None,
    engine: Annotated[str, typer.Option(help="local, or ray (a Ray cluster)")] = "local",
    parametrization: Annotated[str, typer.Option(help="of the tangent kernel: ntk, plain or standard")] = "ntk",
    width: Annotated[int | None, typer.Option(help="width of a model that takes one")] = None,
    target: Annotated[str | None, typer.Option(help="target column of a table")] = None,
    task: Annotated[str | None, typer.Option(help="classification or regression")] = None,
    seed: Annotated[int, typer.Option(help="of everything random")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress bars")] = False,
) -> None:
    """Compute a network's infinite-width kernel on a data set, in tiles on disk; run it again to go on."""
    if kernel not in _KERNELS:
        raise DataError(f"kernel {kernel!r} is not known; give one of {', '.join(_KERNELS)}.")
    if parametrization not in get_args(Parametrization):
        known = ", ".join(get_args(Parametrization))
        raise DataError(f"parametrization {parametrization!r} is not known; give one of {known}.")
    train, held_out = _parts(load(data, target=target, task=task, seed=seed), samples, test, seed)
    module = resolve_model(model, train, width).build(seed=seed)
    limit = infinite(trace(module, train.inputs[:2]), parametrization)  # type: ignore[arg-type]
    options: dict[str, Any] = {"kernels": _KERNELS[kernel], "dtype": dtype, "tile": tile}
    stores = [GramStore.create(out, limit, train.inputs, **options)]
    if held_out is not None:
        stores.append(GramStore.create(out / "test", limit, held_out.inputs, train.inputs, **options))
    for store in stores:
        done = store.fill(engine, show_progress=not quiet)
        repaired = f" ({done.repaired} of them damaged before)" if done.repaired else ""
        typer.echo(
            f"{store.path}: {' and '.join(store.header['names'])} of shape {list(store.shape)}, {store.dtype}; "
            f"{done.computed} tiles computed{repaired}, {done.kept} kept, {done.seconds:.1f} s"
        )


def _parts(data: DataSet, samples: int | None, test: int | None, seed: int) -> tuple[DataSet, DataSet | None]:
    """The training examples and those held out."""
    if test is not None:
        room = len(data) if data.test is not None else len(data) - test
        return data.split(room if samples is None else samples, test, seed=seed)
    return (data if samples is None else load(data, samples=samples, seed=seed)), None
