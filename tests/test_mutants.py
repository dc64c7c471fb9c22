"""The tool behind `make mutants`: which faults it makes, and that its list of survivors is not stale."""

from __future__ import annotations

import tomllib

from benchmarks.mutants import reasons
from benchmarks.mutation import mutants_of
from tests import ROOT

SOURCE = """
def scaled(values: list[float], share: float | None = None) -> float:
    total = sum(values, start=0)
    if total > 5:
        total = total / share
    values.append(total)
    return total
"""


def test_faults_are_the_usual_ones_and_what_this_code_goes_wrong_by_and_none_in_annotations() -> None:
    found = {(mutant.line, mutant.before, mutant.after) for mutant in mutants_of("a.py", SOURCE)}
    assert found == {
        (3, "total = sum(values, start=0)", "total = sum(values)"),
        (3, "total = sum(values, start=0)", "total = sum(0, start=0)"),
        (3, "total = sum(values, start=0)", "total = sum(values, start= 1)"),
        (3, "total = sum(values, start=0)", "total = sum(values, start= -1)"),
        (4, "if total > 5:", "if total >= 5:"),
        (4, "if total > 5:", "if not total > 5:"),
        (4, "if total > 5:", "if total > 6:"),
        (4, "if total > 5:", "if total > 4:"),
        (5, "total = total / share", "total = total * share"),
        (5, "total = total / share", "pass"),
        (6, "values.append(total)", "pass"),
        (6, "values.append(total)", "values.append(0)"),
    }


def test_every_mutant_is_a_module_of_its_own_with_one_fault() -> None:
    sources = [mutant.source for mutant in mutants_of("a.py", SOURCE)]
    assert len(set(sources)) == len(sources)
    for source in sources:
        compile(source, "a.py", "exec")
        assert source != SOURCE


def test_every_module_and_test_that_is_named_is_there() -> None:
    modules = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutants"]["modules"]
    assert len(modules) >= 7
    for module, tests in modules.items():
        for path in (module, *tests):
            assert (ROOT / path).is_file(), path


def test_every_survivor_that_has_a_reason_is_a_line_of_its_module() -> None:
    known = reasons()
    assert len(known) > 10
    lines = {
        module: {" ".join(line.split()) for line in (ROOT / module).read_text().split("\n")}
        for module, _, _ in known
    }
    for (module, before, after), reason in known.items():
        assert before in lines[module], (module, before)
        assert before != after
        assert len(reason) > 20
