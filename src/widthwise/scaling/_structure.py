"""What a parametrisation has to know of a program beyond its weights: residual branches and attention scores."""

from dataclasses import dataclass

from widthwise.core import Value
from widthwise.program import Node, Program, Ref, Weight

SCORES = ("aten.scaled_dot_product_attention", "aten._scaled_dot_product")
MATRIX_OPS = ("linear", "addmm", "matmul", "mm", "bmm", "conv")
NORM_OPS = ("rms_norm", "layer_norm", "group_norm")
BRANCH_NORMS = (*NORM_OPS, "batch_norm", "instance_norm")
VIEWS = (
    "view", "reshape", "unflatten", "flatten", "transpose", "permute", "t", "squeeze", "unsqueeze", "contiguous",
    "select", "slice", "split", "split_with_sizes", "chunk", "unbind", "getitem", "alias", "clone", "expand", "to",
    "_to_copy", "dropout", "movedim",
)  # fmt: skip
HOMOGENEOUS = (*VIEWS, "relu", "leaky_relu", "neg", "mean", "sum", "avg_pool1d", "avg_pool2d", "adaptive_avg_pool2d")


@dataclass(frozen=True)
class Branches(Value):
    """Residual branches: additions of a stream to something computed from it.

    Attributes:
        count: number of them.
        inside: names of the weights inside a branch.
        last: names of the weights that a branch's result is proportional to: its last matrix with its bias, or the
            gain and bias of the norm that ends it.
        open: nodes of branches that end in something whose scale no weight carries.
    """

    count: int
    inside: frozenset[str]
    last: frozenset[str]
    open: tuple[str, ...] = ()


@dataclass(frozen=True)
class Query(Value):
    """Where the queries and keys of one attention come from.

    Attributes:
        node: the attention node.
        head_size: coordinates of a head.
        scale: what the scores are multiplied by.
        module_path, key_path: the modules whose outputs hold queries and keys (keys: None where not found).
        block, key_block: which part of the last axis they are (start, stop, in units of the whole), (0, 1) for all.
        source: ``"matrix"`` or ``"norm"``, what computes them there.
        outside: whether that module puts the queries out, so that a hook on its output reaches them (the projection
            inside `nn.MultiheadAttention` does not).
    """

    node: str
    head_size: int
    scale: float
    module_path: str
    block: tuple[float, float]
    source: str
    key_path: str | None
    key_block: tuple[float, float]
    outside: bool


def op_name(node: Node) -> str:
    """``"linear"`` of ``"aten.linear.default"``."""
    parts = node.op.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "aten" else parts[-1]


def is_view(node: Node) -> bool:
    """Whether a node only passes on, picks or arranges entries."""
    return op_name(node).rstrip("_") in VIEWS or "getitem" in node.op


def leaves_as_is(program: Program, node: Node) -> bool:
    """Whether a node's value, views aside, leaves its module without being computed with."""
    path, waiting = node.module_path, [node]
    if not path:
        return False
    while waiting:
        for user in program.users(waiting.pop().name):
            if user.module_path == path or user.module_path.startswith(f"{path}."):
                if not is_view(user):
                    return False
                waiting.append(user)
    return True


def residual_branches(program: Program) -> Branches:
    """Find the additions ``stream + branch(stream)`` of a program."""
    above = _ancestors(program)
    count, inside, last, ends = 0, set[str](), set[str](), list[str]()
    for node in program.nodes:
        if not node.op.startswith("aten.add"):
            continue
        operands = [ref.name for ref in node.refs]
        if len(operands) != 2 or operands[0] == operands[1]:
            continue
        for branch, stream in (operands, operands[::-1]):
            own = (above[branch] | {branch}) - above[stream] - {stream}
            weights = {program.node(name).op for name in own if program.node(name).kind == "weight"}
            if stream in above[branch] and any(len(program.weight(name).shape) > 1 for name in weights):
                found = _ending(program, program.node(branch)) & weights
                count += 1
                inside |= weights
                last |= found
                ends += [] if found else [branch]
    canonical = lambda names: frozenset(program.weight(name).name for name in names)  # noqa: E731
    return Branches(count, canonical(inside), canonical(last), tuple(ends))


def _ending(program: Program, node: Node) -> set[str]:
    """The weights that a branch's result is proportional to; none where it is not proportional to any."""
    weights = {program.node(ref.name).op for ref in node.refs if program.node(ref.name).kind == "weight"}
    computed = [program.node(ref.name) for ref in node.refs if program.node(ref.name).kind == "op"]
    name = op_name(node).rstrip("_")
    matrices = any(len(program.weight(weight).shape) > 1 for weight in weights)
    if name in BRANCH_NORMS or "norm" in name:
        return weights
    if (matrices and any(op in name for op in (*MATRIX_OPS, "einsum"))) or (weights and name == "mul"):
        return weights
    if name == "add":
        parts = [_ending(program, part) for part in computed]
        return weights.union(*parts) if parts and all(parts) else set()
    if not computed or weights:
        return set()
    if name in ("mul", "div"):
        return next((found for part in computed if (found := _ending(program, part))), set())
    if node.op.startswith(SCORES):
        return _ending(program, computed[2]) if len(computed) > 2 else set()
    if name in ("matmul", "bmm", "einsum"):
        return _ending(program, computed[-1])
    return _ending(program, computed[0]) if name in HOMOGENEOUS or is_view(node) else set()


def _ancestors(program: Program) -> dict[str, frozenset[str]]:
    above: dict[str, frozenset[str]] = {}
    for node in program.nodes:
        refs = {ref.name for ref in node.refs}
        above[node.name] = frozenset(refs).union(*(above[name] for name in refs)) if refs else frozenset()
    return above


def queries(program: Program) -> list[Query]:
    """The attentions of a program whose scores are products of queries and keys."""
    found = []
    for node in program.nodes:
        if node.op.startswith(SCORES):
            query, key = node.args[:2]
            scale = node.kwargs.get("scale", node.args[6] if len(node.args) > 6 else None)
        elif "softmax" in node.op:
            product = _scores_of(program, node)
            if product is None:
                continue
            query, key, scale = product.args[0], product.args[1], None
        else:
            continue
        source = _producer(program, query)
        shape = program.node(query.name).shape
        if source is not None and shape is not None:
            owner, block = source
            kind = "norm" if any(op in owner.op for op in NORM_OPS) else "matrix"
            scale = float(scale) if isinstance(scale, (int, float)) else shape[-1] ** -0.5
            other = _producer(program, key) if isinstance(key, Ref) else None
            key_path, key_block = (other[0].module_path, other[1]) if other else (None, (0.0, 1.0))
            outside = leaves_as_is(program, owner)
            found.append(
                Query(node.name, shape[-1], scale, owner.module_path, block, kind, key_path, key_block, outside)
            )
    return found


def _scores_of(program: Program, node: Node) -> Node | None:
    """The product of two computed tensors that a softmax normalises, through scalings and masks."""
    for _ in range(12):
        if not node.refs:
            return None
        node = program.node(node.refs[0].name)
        if any(word in node.op for word in (".matmul.", ".bmm.", ".einsum.")):
            operands = [ref for ref in node.refs if program.node(ref.name).kind == "op"]
            return node if len(operands) == 2 and isinstance(node.args[0], Ref) else None
    return None


def _producer(program: Program, query: Ref) -> tuple[Node, tuple[float, float]] | None:
    """The matrix product or norm that makes the queries, and which block of its output they are."""
    node, block = program.node(query.name), (0.0, 1.0)
    for _ in range(40):
        weights = [ref for ref in node.refs if program.node(ref.name).kind == "weight"]
        product = any(f".{op}" in node.op for op in (*MATRIX_OPS, *NORM_OPS))
        if weights and product:
            return node, block
        operands = [ref for ref in node.refs if program.node(ref.name).kind == "op"]
        if not operands:
            return None
        block = _inside(program, node, block)
        node = program.node(operands[0].name)
    return None


def _inside(program: Program, node: Node, block: tuple[float, float]) -> tuple[float, float]:
    """The block of the operand's last axis that a selecting node passes on."""
    if "getitem" in node.op and len(node.args) > 1 and isinstance(node.args[1], int):
        parts = program.node(node.args[0].name)
        whole = program.node(parts.args[0].name).shape if parts.args and isinstance(parts.args[0], Ref) else None
        sizes = parts.args[1] if len(parts.args) > 1 else None
        if whole is None or not isinstance(sizes, (int, list, tuple)):
            return block
        return _part(parts.op, sizes, node.args[1], whole[-1])
    if ".slice." in node.op and len(node.args) > 3 and node.shape is not None:
        whole = program.node(node.args[0].name).shape
        if whole is not None and node.args[1] in (len(whole) - 1, -1) and whole[-1] != node.shape[-1]:
            return node.args[2] / whole[-1], min(node.args[3], whole[-1]) / whole[-1]
    if ".select." in node.op and isinstance(node.args[0], Ref):
        whole, index = program.node(node.args[0].name).shape, node.args[2]
        if whole is not None and whole[node.args[1]] == 3 and isinstance(index, int):
            return index / 3, (index + 1) / 3
    return block


def _part(op: str, sizes: int | list[int] | tuple[int, ...], index: int, whole: int) -> tuple[float, float]:
    if isinstance(sizes, int):
        size = -(-whole // sizes) if "chunk" in op else sizes
        return index * size / whole, min((index + 1) * size, whole) / whole
    start = sum(sizes[:index])
    return start / whole, (start + sizes[index]) / whole


def matrix_depth(program: Program) -> int:
    """The largest number of matrices on a path from input to output; one that is only added (positions) is none."""
    depth: dict[str, int] = {}
    for node in program.nodes:
        below = max((depth[ref.name] for ref in node.refs), default=0)
        factors = () if op_name(node).rstrip("_") in ("add", "sub") else node.refs
        own = any(program.node(ref.name).kind == "weight" and _is_matrix(program, ref) for ref in factors)
        depth[node.name] = below + int(own)
    return depth[program.output]


def _is_matrix(program: Program, ref: Ref) -> bool:
    weight: Weight = program.weight(ref.name)
    return len(weight.shape) > 1
