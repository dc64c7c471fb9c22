"""Print functions chosen at random: someone new should understand each from its text alone.

python -m benchmarks.random_functions [--count 10] [--seed N]
"""

from __future__ import annotations

import argparse
import ast
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("retfound_dist", "shards")
SHORTEST_BODY = 4
"""Lines without the signature and the docstring: shorter functions say too little to test a reader."""


@dataclass(frozen=True)
class SourceFunction:
    """A function or method as its file shows it."""

    path: str
    """From the repository's root."""
    line: int
    """The first line, that of its first decorator if it has one."""
    name: str
    """A method's name follows its class and a dot."""
    source: str
    """With decorators, docstring and comments."""


def all_functions(root: Path = ROOT) -> list[SourceFunction]:
    """List the functions and methods of both packages that are long enough, in order of file and line."""
    paths = [path for package in PACKAGES for path in sorted((root / package).rglob("*.py"))]
    return [function for path in paths for function in functions_of_file(path, root)]


def functions_of_file(path: Path, root: Path) -> Iterator[SourceFunction]:
    """Yield one file's functions and methods; dunder methods and functions inside functions are left out."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    for prefix, node in _definitions(ast.parse(text).body, ""):
        if _is_dunder(node.name) or _body_lines(node) < SHORTEST_BODY or node.end_lineno is None:
            continue
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        source = "\n".join(lines[first - 1 : node.end_lineno])
        yield SourceFunction(str(path.relative_to(root)), first, prefix + node.name, source)


def choose(functions: list[SourceFunction], count: int, seed: int) -> list[SourceFunction]:
    """Choose different functions at random: the same ones for the same seed."""

    # One number for each name, so that a change of one function does not change the choice of the others.
    def random_number(function: SourceFunction) -> float:
        return random.Random(f"{seed} {function.path} {function.name}").random()

    return sorted(functions, key=random_number)[:count]


def _definitions(
    body: list[ast.stmt], prefix: str
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from _definitions(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix, node


def _is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first, last = node.body[0], node.body[-1]
    has_docstring = ast.get_docstring(node) is not None
    return (last.end_lineno or 0) - ((first.end_lineno or 0) if has_docstring else first.lineno - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description="print functions chosen at random")
    parser.add_argument("--count", type=int, default=10, help="number of functions")
    parser.add_argument("--seed", type=int, default=0, help="another seed chooses other functions")
    options = parser.parse_args()
    for function in choose(all_functions(), options.count, options.seed):
        print(f"{function.path}:{function.line} {function.name}\n\n{function.source}\n\n")


if __name__ == "__main__":
    main()
