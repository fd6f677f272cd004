"""Which axes a product with a parameter sums over, one letter for each axis."""

from dataclasses import dataclass
from string import ascii_lowercase

from widthwise.program import Node, Program, Ref

TRANSPOSES = ("aten.t.default", "aten.numpy_T.default", "aten.transpose.int", "aten.permute.default", "aten.mT.default")


@dataclass(frozen=True)
class Pattern:
    """What a product with a parameter sums over, one letter for each axis.

    Attributes:
        operand: where the data or field stands.
        matrix: where the parameter stands.
        letters: of the operand, of the parameter and of the result.
    """

    operand: Ref
    matrix: Ref
    letters: tuple[str, str, str]

    @property
    def contracted(self) -> tuple[int, ...]:
        """The axes of the operand that are summed over."""
        operand, matrix, result = self.letters
        return tuple(i for i, letter in enumerate(operand) if letter in matrix and letter not in result)

    @property
    def shared(self) -> tuple[int, ...]:
        """The axes of the operand along which the parameter has entries of its own."""
        operand, matrix, result = self.letters
        return tuple(i for i, letter in enumerate(operand) if letter in matrix and letter in result)

    @property
    def made(self) -> str:
        """The letters that the parameter brings in."""
        operand, matrix, result = self.letters
        return "".join(letter for letter in matrix if letter in result and letter not in operand)


def matmul_letters(left: int, right: int) -> tuple[str, str, str]:
    """Letters of ``torch.matmul`` of tensors with so many axes; leading axes line up from the last one."""
    lead = ascii_lowercase[3 : 3 + max(left, right) - 2] if max(left, right) > 2 else ""
    a = (lead[len(lead) - (left - 2) :] if left > 2 else "") + ("ab" if left > 1 else "b")
    b = (lead[len(lead) - (right - 2) :] if right > 2 else "") + ("bc" if right > 1 else "b")
    return a, b, lead + ("a" if left > 1 else "") + ("c" if right > 1 else "")


def einsum_letters(equation: str) -> tuple[str, str, str] | None:
    """The letters of two operands and the result, None for other equations."""
    left, arrow, result = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    plain = arrow and len(terms) == 2 and "." not in equation
    if not plain or any(len(set(one)) < len(one) for one in (*terms, result)):
        return None
    return terms[0], terms[1], result


def pattern_of(program: Program, node: Node) -> Pattern | None:
    """The pattern of a product of which exactly one operand is a parameter; None for other nodes."""
    if node.op == "aten.linear.default":
        left, right = node.args[:2]
        operand = ascii_lowercase[: _rank(program, left)]
        return (
            Pattern(left, right, (operand, "z" + operand[-1], operand[:-1] + "z"))
            if is_matrix(program, right)
            else None
        )
    if node.op == "aten.einsum.default":
        letters = einsum_letters(node.args[0])
        if letters is None:
            return None
        left, right = node.args[1]
    elif node.op in ("aten.matmul.default", "aten.mm.default", "aten.mv.default", "aten.bmm.default"):
        left, right = node.args[:2]
        letters = matmul_letters(_rank(program, left), _rank(program, right))
    else:
        return None
    if is_matrix(program, left) == is_matrix(program, right):
        return None
    a, b, result = letters
    return Pattern(right, left, (b, a, result)) if is_matrix(program, left) else Pattern(left, right, (a, b, result))


def is_matrix(program: Program, ref: Ref) -> bool:
    """Whether an operand is a parameter, or the transpose of one."""
    node = program.node(ref.name)
    while node.op in TRANSPOSES and isinstance(node.args[0], Ref):
        node = program.node(node.args[0].name)
    return node.kind == "weight"


def _rank(program: Program, ref: Ref) -> int:
    return len(program.node(ref.name).shape or ())
