"""Finished stages are kept on disk, so that an interrupted forecast goes on where it stopped."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from widthwise.core import atomic_path, to_plain, write_text
from widthwise.data import DataSet

Tensors = dict[str, Tensor]


class Stages:
    """Runs named stages, remembers their results under a fingerprint of what they depend on, and times them.

    Args:
        folder: where results are kept; None keeps nothing.
        fingerprint: of model, data and settings: results of another forecast are never reused.
    """

    def __init__(self, folder: Path | None, fingerprint: str) -> None:
        self.folder = None if folder is None else folder / fingerprint
        self.seconds: dict[str, float] = {}
        self.reused: list[str] = []

    def tensors(self, name: str, compute: Callable[[], Tensors]) -> Tensors:
        """A stage whose result is named tensors."""
        return self._stage(name, ".safetensors", compute, _load_tensors, _save_tensors)

    def plain(self, name: str, compute: Callable[[], Any]) -> Any:
        """A stage whose result is of JSON types."""
        return self._stage(name, ".json", compute, _load_plain, _save_plain)

    def _stage(self, name: str, suffix: str, compute: Callable, load: Callable, save: Callable) -> Any:
        start = time.perf_counter()
        path = None if self.folder is None else self.folder / f"{name}{suffix}"
        value = None if path is None or not path.is_file() else load(path)
        if value is not None:
            self.reused.append(name)
        else:
            value = compute()
            if path is not None:
                save(path, value)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
        return value


def discard_stages(folder: str | Path) -> None:
    """Remove what `Stages` kept in a folder, once the forecast itself is saved."""
    shutil.rmtree(folder, ignore_errors=True)


def _load_tensors(path: Path) -> Tensors | None:
    try:
        return load_file(path)
    except (SafetensorError, OSError):
        return None


def _save_tensors(path: Path, value: Tensors) -> None:
    with atomic_path(path) as temporary:
        try:
            save_file({key: tensor.contiguous() for key, tensor in value.items()}, temporary)
        except SafetensorError as error:
            raise OSError(str(error)) from error


def _load_plain(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError):
        return None


def _save_plain(path: Path, value: Any) -> None:
    write_text(path, json.dumps(to_plain(value)))


def fingerprint(module: nn.Module, parts: list[DataSet], settings: dict[str, Any]) -> str:
    """A short hash of the network's weights, the data and the settings."""
    digest = hashlib.blake2b(json.dumps(to_plain(settings), sort_keys=True).encode(), digest_size=12)
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(_bytes(tensor))
    for part in parts:
        digest.update(_bytes(part.inputs))
        digest.update(_bytes(part.targets))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
