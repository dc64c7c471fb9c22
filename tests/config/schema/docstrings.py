"""Which settings of a module bear no docstring."""

from __future__ import annotations

import ast
import inspect
from types import ModuleType

from retfound_dist.config import schema


def without_docstring(module: ModuleType) -> list[str]:
    """`Section.key` of each setting without one; settings that are sections of their own need none."""
    classes = [node for node in ast.parse(inspect.getsource(module)).body if isinstance(node, ast.ClassDef)]
    assert classes
    sections = {*schema.__all__, *(node.name for node in classes)}
    bare = []
    for section in classes:
        if not ast.get_docstring(section):
            bare.append(section.name)
        for setting, after in zip(section.body, [*section.body[1:], None], strict=True):
            is_setting = (
                isinstance(setting, ast.AnnAssign) and ast.unparse(setting.annotation) not in sections
            )
            is_described = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            if is_setting and not is_described:
                bare.append(f"{section.name}.{ast.unparse(setting).partition(':')[0]}")
    return bare
