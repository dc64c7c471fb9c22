"""The reading test's choice: reproducible, without repetition, and only functions that exist."""

from pathlib import Path

from benchmarks.random_functions import PACKAGES, ROOT, all_functions, choose, functions_of_file

MODULE = '''
class Outer:
    @property
    def area(self):
        """Docstrings do not count
        as lines
        of the body."""
        # comments stay
        a = 1
        b = 2
        return a * b

    def __len__(self):
        a = 1
        a += 1
        a += 1
        return a


def short():
    """One.

    Two.
    """
    return 1


async def long(x):
    def inner():
        return x

    y = inner()
    return y
'''


def test_the_same_seed_chooses_the_same_functions_and_another_seed_others() -> None:
    functions = all_functions()
    assert choose(functions, 10, 1) == choose(functions, 10, 1)
    assert choose(functions, 10, 1) != choose(functions, 10, 2)


def test_a_removed_function_leaves_the_rest_of_the_choice_as_it_is() -> None:
    functions = all_functions()
    chosen = choose(functions, 10, 1)
    functions.remove(chosen[4])
    assert choose(functions, 9, 1) == chosen[:4] + chosen[5:]


def test_no_function_is_chosen_twice_even_when_more_are_asked_for_than_exist() -> None:
    functions = all_functions()
    chosen = choose(functions, len(functions) + 10, 3)
    assert len(functions) > 100
    assert len({(function.path, function.line) for function in chosen}) == len(chosen) == len(functions)


def test_every_function_stands_in_its_file_at_its_line() -> None:
    for function in all_functions():
        assert function.path.startswith(PACKAGES)
        lines = (ROOT / function.path).read_text().splitlines()[function.line - 1 :]
        source = function.source.splitlines()
        assert lines[: len(source)] == source
        assert f"def {function.name.rpartition('.')[2]}(" in function.source


def test_methods_have_their_class_and_short_dunder_and_inner_functions_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(MODULE)
    area, long = functions_of_file(path, tmp_path)
    assert (area.path, area.line, area.name) == ("module.py", 3, "Outer.area")
    assert area.source.startswith("    @property")
    assert "# comments stay" in area.source
    assert long.name == "long"
    assert "def inner" in long.source
