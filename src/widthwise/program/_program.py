"""The traced program as a value."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from widthwise.core import ModelError, Value
from widthwise.program._tables import program_text
from widthwise.program._types import Node, Ref, Weight


@dataclass(frozen=True)
class Program(Value):
    """A module as a straight-line program over labelled tensors.

    Attributes:
        nodes: inputs, weights, constants and operations in execution order.
        weights: the trained tensors, each once however many names it has.
        inputs: names of the input nodes, in the order of the example inputs.
        outputs: names of the output nodes; nested structures are flattened.
        output: name of the main output: logits or last hidden state where the module names them, else the first.
        module_name: class name of the module.

    >>> import torch, widthwise.program as wp
    >>> program = wp.trace(torch.nn.Linear(3, 2), torch.ones(4, 3))
    >>> [weight.role.value for weight in program.weights], program.parameters
    (['finite', 'finite'], 8)
    """

    nodes: tuple[Node, ...]
    weights: tuple[Weight, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    output: str
    module_name: str
    _by_name: dict[str, Node] = field(init=False, repr=False, compare=False, metadata={"plain": False})
    _users: dict[str, tuple[Node, ...]] = field(init=False, repr=False, compare=False, metadata={"plain": False})

    def __post_init__(self) -> None:
        users: dict[str, dict[str, Node]] = {node.name: {} for node in self.nodes}
        for node in self.nodes:
            for ref in node.refs:
                users[ref.name][node.name] = node
        object.__setattr__(self, "_by_name", {node.name: node for node in self.nodes})
        object.__setattr__(self, "_users", {name: tuple(found.values()) for name, found in users.items()})

    def node(self, name: str) -> Node:
        """The node of this name.

        Raises:
            ModelError: there is none.
        """
        if name not in self._by_name:
            raise ModelError(f"the program of {self.module_name} has no node '{name}'; print it to see the names.")
        return self._by_name[name]

    def weight(self, name: str) -> Weight:
        """The weight with this parameter name, tied names included, or behind this weight node.

        Raises:
            ModelError: there is none.
        """
        node = self._by_name.get(name)
        wanted = node.op if node is not None and node.kind == "weight" else name
        for weight in self.weights:
            if wanted == weight.name or wanted in weight.aliases:
                return weight
        raise ModelError(f"the program of {self.module_name} has no weight '{name}'; print it to see the names.")

    def users(self, name: str) -> tuple[Node, ...]:
        """The operations that read a node, in order; for a parameter name, under any of its tied names."""
        if name in self._users:
            return self._users[name]
        canonical = self.weight(name).name
        places = [node.name for node in self.nodes if node.kind == "weight" and node.op == canonical]
        found = {user.name for place in places for user in self._users[place]}
        return tuple(node for node in self.nodes if node.name in found)

    @property
    def parameters(self) -> int:
        """Number of trained numbers, tied tensors counted once."""
        return sum(weight.value.numel() for weight in self.weights)

    @property
    def fingerprint(self) -> str:
        """Hash of operations, shapes, constants and initial scales: equal for programs with equal kernels.

        Where an initial scale follows a known rule the rule's value counts, so that two draws of one module agree.
        """
        digest = hashlib.blake2b(digest_size=16)
        index = {node.name: number for number, node in enumerate(self.nodes)}
        for node in self.nodes:
            digest.update(repr(_signature(node, index)).encode())
            if node.kind == "constant" and node.value is not None:
                digest.update(_bytes(node.value))
        for weight in self.weights:
            plain = (weight.name, weight.aliases, weight.shape, weight.role.value, weight.init_mean, weight.init_std)
            digest.update(repr(plain).encode())
        digest.update(repr([index[name] for name in (self.output, *self.outputs) if name]).encode())
        return digest.hexdigest()

    def __str__(self) -> str:
        return program_text(self)


def _signature(node: Node, index: dict[str, int]) -> tuple[Any, ...]:
    return node.kind, node.op, node.shape, _plain(node.args, index), _plain(node.kwargs, index)


def _plain(value: Any, index: dict[str, int]) -> Any:
    if isinstance(value, Ref):
        return "node", index[value.name]
    if isinstance(value, (list, tuple)):
        return tuple(_plain(item, index) for item in value)
    if isinstance(value, dict):
        return tuple((key, _plain(item, index)) for key, item in sorted(value.items()))
    return str(value)


def _bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
