"""Checkpoints: one safetensors file, its header holding JSON, written to a temporary name and renamed."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from widthwise.core import ModelError, atomic_path
from widthwise.data import DataSet
from widthwise.train._types import CheckpointError

_KEY = "widthwise"
_FORMAT = 1


@dataclass
class Checkpoint:
    """Tensors by name, and everything else as JSON types."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    plain: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write in one step.

        Raises:
            OutputError: the folder cannot be written.
        """
        tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in self.tensors.items()}
        header = json.dumps({"format": _FORMAT, "digest": _digest(tensors), "plain": self.plain})
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, metadata={_KEY: header})

    @classmethod
    def load(cls, path: Path) -> "Checkpoint":
        """Read and check against the digest.

        Raises:
            CheckpointError: damaged, or not written by `fit`.
        """
        try:
            with safe_open(path, framework="pt") as file:
                header = json.loads((file.metadata() or {})[_KEY])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise _unreadable(path) from error
        if header.get("format") != _FORMAT or header.get("digest") != _digest(tensors):
            raise _unreadable(path)
        return cls(tensors, header["plain"])


def pack_module(module: nn.Module, checkpoint: Checkpoint) -> None:
    """Put the module's parameters and buffers into the checkpoint.

    Raises:
        ModelError: it has state that is not a tensor.
    """
    for name, value in module.state_dict().items():
        if not isinstance(value, Tensor):
            raise ModelError(f"module state '{name}' is not a tensor; train without checkpoint=, or drop it.")
        checkpoint.tensors[f"module.{name}"] = value


def unpack_module(module: nn.Module, checkpoint: Checkpoint) -> None:
    """Copy the checkpoint's parameters and buffers into the module."""
    prefix = "module."
    module.load_state_dict(
        {name[len(prefix) :]: value for name, value in checkpoint.tensors.items() if name.startswith(prefix)}
    )


def pack_optimizer(module: nn.Module, optimizer: Optimizer, checkpoint: Checkpoint) -> None:
    """Put the optimiser's state, by parameter name, and its groups' options into the checkpoint."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in module.named_parameters()}
    scalars: dict[str, dict[str, Any]] = {}
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, Tensor):
                checkpoint.tensors[f"optimizer.{key}.{names[parameter]}"] = value
            else:
                scalars.setdefault(names[parameter], {})[key] = value
    checkpoint.plain["optimizer"] = scalars
    checkpoint.plain["groups"] = [
        {key: _plain_option(key, value) for key, value in group.items() if key != "params"}
        for group in optimizer.param_groups
    ]


def unpack_optimizer(module: nn.Module, optimizer: Optimizer, checkpoint: Checkpoint) -> None:
    """Give the optimiser back its state and its groups' options."""
    names = {parameter: name for name, parameter in module.named_parameters()}
    order = [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]
    states: dict[str, dict[str, Any]] = {
        name: dict(state) for name, state in checkpoint.plain["optimizer"].items() if state
    }
    for full, value in checkpoint.tensors.items():
        if full.startswith("optimizer."):
            _, key, name = full.split(".", 2)
            states.setdefault(name, {})[key] = value.clone()
    plain = optimizer.state_dict()
    plain["state"] = {index: states[name] for index, name in enumerate(order) if name in states}
    for group, saved in zip(plain["param_groups"], checkpoint.plain["groups"], strict=True):
        for key, value in saved.items():
            group[key] = tuple(value) if isinstance(value, list) else value
    optimizer.load_state_dict(plain)


def data_digest(data: DataSet) -> str:
    """A hash of the inputs and targets."""
    return _digest({"inputs": data.inputs.cpu(), "targets": data.targets.cpu()})


def check_same_run(path: Path, saved: dict[str, Any], present: dict[str, Any]) -> None:
    """Refuse to go on from the checkpoint of another run.

    Raises:
        CheckpointError: naming the first setting that differs.
    """
    for key, value in json.loads(json.dumps(present)).items():
        if saved.get(key) != value:
            detail = f"{saved.get(key)!r} there, {value!r} here" if key not in ("data", "parameters") else "it differs"
            raise CheckpointError(
                f"checkpoint {path} is of another run: {key} is not the same ({detail}); give another path or "
                "resume=False."
            )


def _plain_option(key: str, value: Any) -> Any:
    if isinstance(value, Tensor):
        value = value.tolist()
    if value is not None and not isinstance(value, (bool, int, float, str, list, tuple)):
        raise ModelError(
            f"optimizer option '{key}' is a {type(value).__name__}, which a checkpoint cannot hold; train without "
            "checkpoint=."
        )
    return value


def _digest(tensors: dict[str, Tensor]) -> str:
    state = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous()
        state.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        state.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return state.hexdigest()


def _unreadable(path: Path) -> CheckpointError:
    return CheckpointError(f"checkpoint {path} is damaged or was not written by fit; delete it or give resume=False.")
