"""Names that functions take from their module are there (shape strings keep the linters from seeing it)."""

import builtins
import dis
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

import pytest

import widthwise

MODULES = sorted(found.name for found in pkgutil.walk_packages(widthwise.__path__, "widthwise."))


def global_names(code: CodeType) -> Iterator[str]:
    """Names looked up in the module by a piece of code and by all that is defined in it."""
    yield from (step.argval for step in dis.get_instructions(code) if step.opname == "LOAD_GLOBAL")
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from global_names(constant)


def test_every_global_name_is_defined():
    missing = []
    for name in MODULES:
        if name.endswith("__main__"):
            continue
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            assert not str(error.name).startswith("widthwise")
            continue  # an extra that is not installed
        path = Path(str(module.__file__))
        names = set(global_names(compile(path.read_text(), str(path), "exec")))
        missing += [
            f"{name}: {one}" for one in sorted(names) if not hasattr(module, one) and not hasattr(builtins, one)
        ]
    assert not missing


def test_a_missing_name_is_seen():
    code = compile("def outer():\n    return [missing + len(x) for x in ()]", "<text>", "exec")
    assert set(global_names(code)) == {"missing", "len"}


@pytest.mark.parametrize("name", ["widthwise.core", "widthwise.kernels.engines", "widthwise.studies"])
def test_rooms_are_walked(name):
    assert name in MODULES
