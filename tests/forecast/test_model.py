"""Where networks come from."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.forecast.conftest import small_net
from widthwise.core import ModelError
from widthwise.data import DataSet, load
from widthwise.forecast import resolve_model
from widthwise.forecast._model import check_accepts, settle
from widthwise.nn import MODELS, build_model

DIGITS = load("digits")


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", list(MODELS))
def test_built_in_models_have_their_own_default_width(name: str) -> None:
    source = resolve_model(name, DIGITS, None)
    count = sum(p.numel() for p in build_model(name, DIGITS.input_shape, DIGITS.outputs).parameters())
    assert sum(p.numel() for p in source.build().parameters()) == count
    assert source.scales and source.fresh
    check_accepts(source.build(), DIGITS, name)


def test_equal_seed_and_draw_give_equal_weights() -> None:
    source = resolve_model(small_net, DIGITS, None)
    first = source.build(seed=1)
    assert same(first, source.build(seed=1))
    assert not same(first, source.build(seed=2))
    assert not same(first, source.build(seed=1, draw="other"))


def test_building_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    resolve_model(small_net, DIGITS, None).build(seed=1)
    assert torch.equal(state, torch.get_rng_state())


def test_a_module_is_copied() -> None:
    module = small_net()
    source = resolve_model(module, DIGITS, None)
    assert not source.fresh and not source.scales and source.width is None
    built = source.build()
    assert same(built, module) and built is not module
    with torch.no_grad():
        built[1].weight.zero_()
    assert not same(built, module) and same(source.build(), module)


def test_a_factory_of_one_module_counts_as_that_module() -> None:
    module = small_net()
    source = settle(resolve_model(lambda: module, DIGITS, None))
    assert not source.fresh and source.build() is not module
    assert settle(resolve_model(small_net, DIGITS, None)).fresh


def keyword_only(*, width: int = 12) -> nn.Module:
    return small_net(width)


def positional_only(size: int, /) -> nn.Module:
    return small_net(size)


def one_argument(channels: int) -> nn.Module:
    return small_net(channels)


def variadic(*args: Any, **kwargs: Any) -> nn.Module:
    assert not args and not kwargs
    return small_net(5)


class AsClass(nn.Sequential):
    def __init__(self, depth: int = 1, width: int = 7) -> None:
        super().__init__(*small_net(width))


@pytest.mark.parametrize(
    ("build", "width", "asked", "hidden"),
    [
        (small_net, 24, None, 24),
        (small_net, 9, 9, 9),
        (keyword_only, 12, None, 12),
        (keyword_only, 9, 9, 9),
        (positional_only, 256, None, 256),
        (one_argument, 256, None, 256),
        (AsClass, 7, None, 7),
        (variadic, None, None, 5),
        (lambda: small_net(6), None, None, 6),
    ],
)
def test_signatures(build: Any, width: int | None, asked: int | None, hidden: int) -> None:
    source = resolve_model(build, DIGITS, asked)
    assert source.width == width and source.scales == (width is not None)
    assert source.build()[1].out_features == hidden
    if source.scales:
        assert source.build(3)[1].out_features == 3


FILE = """
from torch import nn
from helper import LAYERS
def build(width=8): return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
ready = build(4)
number = 3
"""


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    (tmp_path / "helper.py").write_text("LAYERS = 2\n")
    path = tmp_path / "net.py"
    path.write_text(FILE)
    return path


def test_a_file_may_import_its_neighbours(model_file: Path) -> None:
    assert resolve_model(f"{model_file}:build", DIGITS, 6).build()[1].out_features == 6


def test_a_file_may_hold_a_module(model_file: Path) -> None:
    assert not resolve_model(f"{model_file}:ready", DIGITS, None).fresh


def raising() -> nn.Module:
    raise KeyError("first line\nsecond line")


class Uncopyable(nn.Module):
    def __deepcopy__(self, memory: dict) -> nn.Module:
        raise RuntimeError("cannot be copied")


@pytest.mark.parametrize(
    ("model", "width", "words"),
    [
        ("mpl", None, "did you mean mlp"),
        ("resnt", None, "did you mean resnet"),
        ("net.py", None, "net.py:build"),
        ("nowhere.py:build", None, "nowhere.py does not exist"),
        (3, None, "type int"),
        (raising, None, "raised KeyError"),
        (lambda: 3, None, "returned a int"),
        (lambda a, b: None, None, "needs the arguments a, b"),
        (lambda a, *, width: None, None, "needs the arguments a, width"),
        ("mlp", 0, "width 0"),
        (lambda: small_net(), 8, "takes no width"),
        (nn.Linear(64, 10), 8, "takes no width"),
        (Uncopyable(), None, "cannot be copied"),
    ],
)
def test_refused(model: Any, width: int | None, words: str) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        resolve_model(model, DIGITS, width).build()
    assert "\n" not in str(caught.value)


def test_refused_names_in_a_file(model_file: Path) -> None:
    for name, words in (("buld", "give .*:build"), ("number", "no function 'number'")):
        with pytest.raises(ModelError, match=words):
            resolve_model(f"{model_file}:{name}", DIGITS, None)
    model_file.write_text("1 / 0")
    with pytest.raises(ModelError, match="ZeroDivisionError"):
        resolve_model(f"{model_file}:build", DIGITS, None)


class TwoOutputs(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x, x


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (nn.Linear(3, 10), "does not accept torch.float32 inputs of shape \\[1, 8, 8\\]"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 7)), "outputs of shape \\[7\\].*needs \\[10\\]"),
        (TwoOutputs(), "outputs of type tuple"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Softmax(1)), "end the model in nn.Linear"),
    ],
)
def test_modules_that_do_not_fit_the_data(module: nn.Module, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        check_accepts(module, DIGITS, "net")


def test_the_check_keeps_the_training_mode() -> None:
    for mode in (True, False):
        module = small_net().train(mode)
        check_accepts(module, DIGITS, "net")
        assert module.training is mode


def test_vocabulary_covers_the_held_out_part() -> None:
    tokens = torch.tensor([[0, 1, 2], [2, 1, 0]])
    test = DataSet("t", tokens + 5, torch.tensor([0, 1]), ("a", "b"))
    data = DataSet("t", tokens, torch.tensor([0, 1]), ("a", "b"), test=test)
    assert resolve_model("transformer", data, 16).build()(test.inputs).shape == (2, 2)
