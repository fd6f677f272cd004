"""`widthwise kernel`: the store holds the limit's kernels; repeated, it computes nothing; bad input is one sentence."""

from pathlib import Path

import numpy as np
import pytest

import widthwise as ww
from tests.cli.conftest import Command
from widthwise.data import load
from widthwise.forecast import resolve_model
from widthwise.kernels import GramStore

BASE = ("kernel", "--model", "net.py:build", "--samples", 40, "--tile", 16)


def test_the_store_is_the_limit_on_the_samples(command: Command, folder: Path) -> None:
    ended = command(*BASE, "--test", 9, "--kernel", "both", "--dtype", "float64")
    assert ended.code == 0
    assert "gram.zarr: ntk and nngp of shape [40, 40], float64; 6 tiles computed, 0 kept" in ended.out
    assert "gram.zarr/test: ntk and nngp of shape [9, 40], float64; 3 tiles computed" in ended.out
    train, test = load("digits").split(40, 9, seed=0)
    limit = ww.infinite(ww.trace(resolve_model("net.py:build", train, None).build(), train.inputs[:2]))
    for path, kernels in (("gram.zarr", limit(train.inputs)), ("gram.zarr/test", limit(test.inputs, train.inputs))):
        for name in ("ntk", "nngp"):
            assert np.allclose(np.asarray(GramStore.open(path, name)), getattr(kernels, name).numpy(), rtol=1e-12)
    again = command(*BASE, "--test", 9, "--kernel", "both", "--dtype", "float64")
    assert "0 tiles computed, 6 kept" in again.out and "0 tiles computed, 3 kept" in again.out


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--kernel", "nkt"), "kernel 'nkt' is not known; give one of ntk, nngp, both"),
        (("--dtype", "float16"), "dtype float16"),
        (("--engine", "spark"), "engine 'spark' is not known"),
        (("--parametrization", "mup"), "parametrization 'mup'"),
        (("--samples", 5000), "5000 samples"),
        (("--test", 0), "held out"),
        (("--tile", 0), "tile of side 0"),
    ],
)
def test_bad_input_is_one_sentence(command: Command, arguments: tuple, what: str) -> None:
    ended = command(*BASE, *arguments)
    assert ended.code == 2 and what in ended.err and ended.err.count("\n") == 1


def test_a_store_of_another_model_or_data_is_refused(command: Command) -> None:
    assert command(*BASE).code == 0
    for arguments, what in ((("--seed", 1), "another data set"), (("--model", "mlp"), "another model")):
        ended = command(*BASE, *arguments)
        assert ended.code == 2 and f"was written for {what}" in ended.err
