"""From an exported program to plain nodes: sub-graphs inlined, parameters tied, safe in-place calls made functional."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils import _pytree as pytree

from widthwise.program._types import Node, Ref

_INLINED = ("wrap_with_set_grad_enabled", "wrap_with_autocast", "wrap_set_grad_enabled")
_PREFERRED = ("logits", "last_hidden_state", "prediction_logits")


@dataclass
class Graph:
    """Nodes in execution order, the shape of each result, and the outputs."""

    nodes: list[Node] = field(default_factory=list)
    shapes: dict[str, Any] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    main_output: str = ""


def canonical_names(module: nn.Module) -> dict[str, str]:
    """The first name of the tensor behind each parameter name."""
    first: dict[Any, str] = {}
    names: dict[str, str] = {}
    for name, tensor in module.named_parameters(remove_duplicate=False):
        names[name] = first.setdefault(_identity(tensor), name)
    return names


def read_graph(exported: ExportedProgram, module: nn.Module) -> Graph:
    """The nodes of an exported program; tied parameters carry the same weight name."""
    graph = Graph()
    specs = {spec.arg.name: spec for spec in exported.graph_signature.input_specs}
    values: dict[fx.Node, Any] = {}
    placeholders = [node for node in exported.graph.nodes if node.op == "placeholder"]
    for node in placeholders:
        _add(graph, node, _placeholder(exported, specs[node.name], node, canonical_names(module)))
        values[node] = Ref(node.name)
    results = _read_body(graph, exported.graph_module, values)
    kinds = [spec.kind for spec in exported.graph_signature.output_specs]
    given = [value for value, kind in zip(results, kinds, strict=True) if kind == OutputKind.USER_OUTPUT]
    graph.outputs = tuple(value.name for value in given if isinstance(value, Ref))
    graph.main_output = _main_output(graph, exported, given)
    graph.nodes = _functional(graph.nodes, graph.outputs)
    return graph


def _identity(tensor: Tensor) -> Any:
    if tensor.device.type == "meta" or tensor.numel() == 0:
        return id(tensor)
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride()


def _placeholder(exported: ExportedProgram, spec: Any, node: fx.Node, names: Mapping[str, str]) -> Node:
    if spec.kind == InputKind.PARAMETER:
        owner = spec.target.rpartition(".")[0]
        value = exported.state_dict[spec.target]
        return Node(
            node.name, "weight", names.get(spec.target, spec.target), tuple(value.shape), None, owner, value=value
        )
    if spec.kind in (InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
        held = exported.constants.get(spec.target)
        value = exported.state_dict[spec.target] if held is None else held
        return Node(node.name, "constant", spec.target, tuple(value.shape), None, value=value)
    shape = _shape(node.meta.get("val"))
    kind = "input" if isinstance(shape, tuple) else "constant"
    return Node(node.name, kind, node.name, shape if isinstance(shape, tuple) else None, None)


def _add(graph: Graph, source: fx.Node, node: Node) -> Ref:
    graph.nodes.append(node)
    graph.shapes[node.name] = _shape(source.meta.get("val")) if node.value is None else node.shape
    return Ref(node.name)


def _shape(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(int(size) for size in value.shape)
    if isinstance(value, (list, tuple)):
        return [_shape(item) for item in value]
    return None


def _read_body(graph: Graph, body: fx.GraphModule, values: dict[fx.Node, Any], prefix: str = "") -> list[Any]:
    """Append the operations of a graph whose placeholders have `values`; give what it returns."""
    for node in body.graph.nodes:
        if node.op == "get_attr":
            values[node] = _attribute(graph, body, node, prefix)
        elif node.op == "call_function":
            values[node] = _operation(graph, body, node, values, prefix)
        elif node.op == "output":
            return list(pytree.tree_leaves(_mapped(node.args[0], values), is_leaf=lambda one: isinstance(one, Ref)))
    return []


def _attribute(graph: Graph, body: fx.GraphModule, node: fx.Node, prefix: str) -> Any:
    value: Any = body
    for part in str(node.target).split("."):
        value = getattr(value, part)
    if not isinstance(value, Tensor):
        return value
    name = prefix + node.name
    return _add(graph, node, Node(name, "constant", str(node.target), tuple(value.shape), None, value=value))


def _operation(graph: Graph, body: fx.GraphModule, node: fx.Node, values: dict[fx.Node, Any], prefix: str) -> Any:
    args, kwargs = _mapped(node.args, values), _mapped(node.kwargs, values)
    overload = isinstance(node.target, torch._ops.OpOverload)
    called = str(node.target) if overload else getattr(node.target, "__name__", str(node.target))
    if called in _INLINED:
        inner = next(one for one in args if isinstance(one, fx.GraphModule))
        operands = args[[one is inner for one in args].index(True) + 1 :]
        places = [one for one in inner.graph.nodes if one.op == "placeholder"]
        return _read_body(graph, inner, dict(zip(places, operands, strict=True)), f"{prefix}{node.name}_")
    if called == "getitem" and isinstance(args[0], list):
        return args[0][args[1]]
    if called.startswith("aten._assert") and not node.users:
        return None
    shape = _shape(node.meta.get("val"))
    plain = shape if isinstance(shape, tuple) else None
    name = prefix + node.name
    target = node.target if callable(node.target) else None
    return _add(graph, node, Node(name, "op", called, plain, None, _path(node), target, args, kwargs))


def _mapped(value: Any, values: Mapping[fx.Node, Any]) -> Any:
    if isinstance(value, fx.Node):
        return values.get(value)
    if isinstance(value, (list, tuple)):
        mapped = [_mapped(item, values) for item in value]
        return tuple(mapped) if isinstance(value, tuple) else mapped
    if isinstance(value, dict):
        return {key: _mapped(item, values) for key, item in value.items()}
    return value


def _path(node: fx.Node) -> str:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = str(stack[-1][0]) if stack else ""
    return path.removeprefix("L['self']").removeprefix(".")


def _main_output(graph: Graph, exported: ExportedProgram, given: list[Any]) -> str:
    """The logits or last hidden state of a named structure, else the first tensor."""
    spec = exported.call_spec.out_spec
    if spec is not None and spec.num_leaves == len(given) and not spec.is_leaf():
        tree = pytree.tree_unflatten(given, spec)
        for name in _PREFERRED:
            held = tree.get(name) if isinstance(tree, Mapping) else getattr(tree, name, None)
            if isinstance(held, Ref):
                return held.name
    tensors = [one.name for one in given if isinstance(one, Ref) and isinstance(graph.shapes[one.name], tuple)]
    return tensors[0] if tensors else ""


def _functional(nodes: list[Node], outputs: tuple[str, ...]) -> list[Node]:
    """Replace ``relu_`` by ``relu`` and the like where no later operation could see the difference."""
    last_use: dict[str, int] = {}
    group: dict[str, str] = {}
    for index, node in enumerate(nodes):
        for ref in node.refs:
            last_use[ref.name] = index
        first = node.refs[0].name if node.refs else ""
        group[node.name] = group[first] if first and _aliases(node) else node.name
    family: dict[str, list[str]] = {}
    for name, head in group.items():
        family.setdefault(head, []).append(name)
    last_use.update(dict.fromkeys(outputs, len(nodes)))
    order = {node.name: index for index, node in enumerate(nodes)}
    kinds = {node.name: node.kind for node in nodes}

    def unseen(index: int, node: Node) -> bool:
        head = group[node.name]
        before = [name for name in family[head] if order[name] < index]
        return kinds[head] in ("op", "input") and all(last_use.get(name, -1) <= index for name in before)

    return [_replaced(node) if _mutates(node) and unseen(index, node) else node for index, node in enumerate(nodes)]


def _mutates(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return bool(schema and schema.is_mutable and node.op.split(".")[1].endswith("_"))


def _aliases(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return node.op == "getitem"
    maybe = node.op.split(".")[1] in ("reshape", "contiguous", "to", "flatten", "dropout")
    return maybe or any(one.alias_info is not None for one in schema.returns)


def _replaced(node: Node) -> Node:
    namespace, packet, overload = node.op.split(".")
    found = getattr(getattr(torch.ops, namespace), packet.removesuffix("_"), None)
    target = getattr(found, overload, None) if found is not None else None
    return node if target is None else replace(node, op=str(target), target=target)


def inputs_of(nodes: list[Node]) -> Iterator[str]:
    """Names of the input nodes."""
    return (node.name for node in nodes if node.kind == "input")
