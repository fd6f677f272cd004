"""Rules of tables that are looked up by index: embeddings, and bags of them."""

from torch import Tensor

from widthwise.kernels._fields import Tokens, combine
from widthwise.kernels._lowering import Lowering, position_sizes
from widthwise.kernels._positions import moved
from widthwise.kernels._registry import Concrete, Lowered, Several, rule
from widthwise.kernels._scales import Scales
from widthwise.program import AxisKind, Node, Weight

SUM, MEAN = 0, 1


def _table(run: Lowering, node: Node, padding: int) -> tuple[Weight, float | Tensor, Concrete]:
    """The table, the variance of its entries, and the indices."""
    weight, indices = run.value(node.args[0]), run.value(node.args[1])
    if not isinstance(weight, Weight) or not isinstance(indices, Concrete):
        raise run.refuse(node, "only a parameter table looked up by data has a rule")
    if padding >= 0 and bool(weight.value[padding].any()):
        raise run.refuse(node, f"row {padding} of table {weight.name} is a padding row but not zero")
    std = Scales.pick(run.scales.weight_std, weight.name)
    if std is None:
        run.matrix(weight, 1, node)
        std = weight.init_std
    run.used(weight, ("table",), node)
    run.rules[node.name] = "exact"
    return weight, std**2, indices


@rule("aten.embedding.default")
def embedding(run: Lowering, node: Node) -> Lowered:
    padding = run.arg(node, 2, "padding_idx", -1)
    weight, variance, indices = _table(run, node, padding)
    assert node.axes is not None
    return Tokens(node.args[1].name, weight, variance, position_sizes(node.axes), indices.batched, padding)


@rule("aten.embedding_bag.default", "aten.embedding_bag.padding_idx")
def embedding_bag(run: Lowering, node: Node) -> Lowered:
    """The sum or mean of the rows of a bag; bags of one size, the indices of each example one after the other."""
    mode, padding = run.arg(node, 4, "mode", SUM), run.arg(node, 8, "padding_idx")
    padding = -1 if padding is None else padding
    axes = run.axes(node.args[1])
    sizes = tuple(factor.size for factor in axes[0][1:])
    if len(axes) != 1 or not sizes or [factor.kind for factor in axes[0]] != [AxisKind.BATCH, AxisKind.POSITION]:
        raise run.refuse(node, "its bags are given by offsets; give indices [batch, entries], with equal bags")
    if mode not in (SUM, MEAN) or run.arg(node, 6, "per_sample_weights") is not None:
        raise run.refuse(node, "only plain sums and means over a bag have a rule")
    if mode == MEAN and padding >= 0:
        raise run.refuse(node, "a mean that leaves out padding counts the entries of each bag; take mode 'sum'")
    weight, variance, indices = _table(run, node, padding)
    rows = Tokens(node.args[1].name, weight, variance, sizes, indices.batched, padding)
    total = moved(rows, (), lambda moment: moment.reshape(-1, *sizes).sum(1), gathers=False)
    return Several((combine([(1.0 if mode == SUM else 1.0 / sizes[0], total)]), None, None, None))
