"""Mutants of a module: its source with one small fault each, as a colleague might make it.

cosmic-ray makes the common ones: another operator, a number that differs by one, a negated condition, a loop
that never runs. Three more are made here, because they are likely in this code: a missing statement, a
missing keyword argument, a 0 in place of an argument. Faults in annotations have no effect and are left out.
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
    *(f"ReplaceBinaryOperator_{name}_{replacement}" for name, replacement in BINARY.items()),
    *(f"ReplaceComparisonOperator_{name}_{replacement}" for name, replacement in COMPARISON.items()),
    *(f"ReplaceUnaryOperator_Delete_{name}" for name in ("USub", "Not", "Invert")),
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
    """The original line; with `after` it identifies the mutant even when lines move."""
    after: str
    source: str
    """The whole source of the faulty module."""


def mutants_of(module: str, source: str) -> list[Mutant]:
    """Every mutant that is valid Python, changes something and is not a duplicate."""
    seen = {_meaning(source)}
    mutants = []
    for operator, mutated in (*_from_cosmic_ray(source), *_extra_mutants(source)):
        meaning = _meaning(mutated)
        if meaning is None or meaning in seen:
            continue
        seen.add(meaning)
        mutants.append(Mutant(module, operator, *_difference(source, mutated), mutated))
    return sorted(mutants, key=lambda mutant: mutant.line)


def _from_cosmic_ray(source: str) -> Iterator[tuple[str, str]]:
    for name in OPERATORS:
        place = 0
        while (mutated := mutate_code(source, get_operator(f"core/{name}")(), place)) is not None:
            yield name, mutated
            place += 1


def _extra_mutants(source: str) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.stmt) and _can_be_removed(node):
            yield "LeaveOutStatement", _replace_node(source, node, "pass")
        if isinstance(node, ast.Call):
            for place, keyword in enumerate(node.keywords):
                rest = [*node.keywords[:place], *node.keywords[place + 1 :]]
                if keyword.arg:
                    without = ast.unparse(ast.Call(node.func, node.args, rest))
                    yield "LeaveOutKeyword", _replace_node(source, node, without)
            for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
                if isinstance(argument, ast.Name) and argument.id != "self":
                    yield "ZeroForArgument", _replace_node(source, argument, "0")


def _can_be_removed(node: ast.stmt) -> bool:
    """Whether the code still runs without a statement: a call, a change in place, another value of a name."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Call)
    if isinstance(node, ast.Assign):
        names = {child.id for child in ast.walk(node.value) if isinstance(child, ast.Name)}
        targets = [child for target in node.targets for child in ast.walk(target)]
        inside = any(isinstance(child, (ast.Attribute, ast.Subscript)) for child in targets)
        return inside or any(getattr(child, "id", None) in names for child in targets)
    return isinstance(node, ast.AugAssign)


def _replace_node(source: str, node: ast.stmt | ast.expr, text: str) -> str:
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
    """The number of the first line that differs, and the differing lines of both sources."""
    source_lines, mutated_lines = source.split("\n"), mutated.split("\n")
    for kind, a, b, c, d in difflib.SequenceMatcher(
        None, source_lines, mutated_lines, autojunk=False
    ).get_opcodes():
        if kind != "equal":
            return (
                a + 1,
                " ".join(" ".join(source_lines[a:b]).split()),
                " ".join(" ".join(mutated_lines[c:d]).split()),
            )
    raise ValueError("the sources are equal")
