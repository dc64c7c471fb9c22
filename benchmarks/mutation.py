"""Mutants of a module: its source with one small fault each, as a tired colleague might write it.

cosmic-ray makes the usual ones (another operator, a number one off, a condition negated, a loop that never
runs); three more are made here, because this code goes wrong in these ways: a statement left out, a keyword
left to its default, a fixed number in an argument's place. Faults in annotations do nothing and are left out.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterator
from dataclasses import dataclass

from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator

BINARY = {
    "Add": "Sub", "Sub": "Add", "Mul": "Div", "Div": "Mul", "FloorDiv": "Mul", "Mod": "FloorDiv",
    "Pow": "Mul", "BitOr": "BitAnd", "BitAnd": "BitOr",
}  # fmt: skip
"""One other operator for each: cosmic-ray's other ten mostly raise a TypeError, which any test notices."""
COMPARISON = {
    "Eq": "NotEq", "NotEq": "Eq", "Lt": "LtE", "LtE": "Lt", "Gt": "GtE", "GtE": "Gt", "Is": "IsNot",
    "IsNot": "Is",
}  # fmt: skip
OPERATORS = (
    *(f"ReplaceBinaryOperator_{one}_{other}" for one, other in BINARY.items()),
    *(f"ReplaceComparisonOperator_{one}_{other}" for one, other in COMPARISON.items()),
    *(f"ReplaceUnaryOperator_Delete_{one}" for one in ("USub", "Not", "Invert")),
    "AddNot",
    "ReplaceTrueWithFalse",
    "ReplaceFalseWithTrue",
    "ReplaceAndWithOr",
    "ReplaceOrWithAnd",
    "ReplaceBreakWithContinue",
    "ReplaceContinueWithBreak",
    "NumberReplacer",
    "RemoveDecorator",
    "ZeroIterationForLoop",
)


@dataclass(frozen=True)
class Mutant:
    """One fault."""

    module: str
    """Its path from the repository's root."""
    operator: str
    line: int
    before: str
    """What the source says there; with `after` it names the mutant, wherever its lines move."""
    after: str
    source: str
    """All of the faulty module."""


def mutants_of(module: str, source: str) -> list[Mutant]:
    """Every mutant that is valid Python, does something and is not there yet."""
    seen = {_meaning(source)}
    found = []
    for operator, mutated in (*_usual(source), *_own(source)):
        meaning = _meaning(mutated)
        if meaning is None or meaning in seen:
            continue
        seen.add(meaning)
        found.append(Mutant(module, operator, *_difference(source, mutated), mutated))
    return sorted(found, key=lambda mutant: mutant.line)


def _usual(source: str) -> Iterator[tuple[str, str]]:
    for name in OPERATORS:
        place = 0
        while (mutated := mutate_code(source, get_operator(f"core/{name}")(), place)) is not None:
            yield name, mutated
            place += 1


def _own(source: str) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.stmt) and _can_be_left_out(node):
            yield "LeaveOutStatement", _put(source, node, "pass")
        if isinstance(node, ast.Call):
            for place, keyword in enumerate(node.keywords):
                rest = [*node.keywords[:place], *node.keywords[place + 1 :]]
                if keyword.arg:
                    without = ast.unparse(ast.Call(node.func, node.args, rest))
                    yield "LeaveOutKeyword", _put(source, node, without)
            for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
                if isinstance(argument, ast.Name) and argument.id != "self":
                    yield "ZeroForArgument", _put(source, argument, "0")


def _can_be_left_out(node: ast.stmt) -> bool:
    """A call, a change in place, a name that gets another value: without it the code still runs."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Call)
    if isinstance(node, ast.Assign):
        names = {one.id for one in ast.walk(node.value) if isinstance(one, ast.Name)}
        targets = [one for target in node.targets for one in ast.walk(target)]
        inside = any(isinstance(one, (ast.Attribute, ast.Subscript)) for one in targets)
        return inside or any(getattr(one, "id", None) in names for one in targets)
    return isinstance(node, ast.AugAssign)


def _put(source: str, node: ast.stmt | ast.expr, text: str) -> str:
    """The source with other text in a node's place."""
    lines = source.encode().split(b"\n")
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    head, tail = lines[node.lineno - 1][: node.col_offset], lines[node.end_lineno - 1][node.end_col_offset :]
    lines[node.lineno - 1 : node.end_lineno] = [head + text.encode() + tail]
    return b"\n".join(lines).decode()


def _meaning(source: str) -> str | None:
    """The syntax tree without annotations, which are never evaluated here; None where there is none."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return None
    for node in ast.walk(tree):
        for name in ("returns", "annotation"):
            if getattr(node, name, None) is not None:
                setattr(node, name, ast.Constant(None))
    return ast.dump(tree)


def _difference(source: str, mutated: str) -> tuple[int, str, str]:
    """The first line that differs, and what the differing lines say in each."""
    one, other = source.split("\n"), mutated.split("\n")
    for kind, a, b, c, d in difflib.SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        if kind != "equal":
            return a + 1, " ".join(" ".join(one[a:b]).split()), " ".join(" ".join(other[c:d]).split())
    raise ValueError("the sources are equal")
