"""In which settings runs differ from most of the others."""

from retfound_dist.runs.config_differences import config_differences, json_texts


def test_differences_are_those_from_what_most_runs_have() -> None:
    trees = {
        name: {"optim": {"base_lr": rate}, "run": {"url": name}, "data": {"workers": workers}}
        for name, rate, workers in (("a", 1, 1), ("b", 1, 2), ("c", 2, 3))
    }
    assert config_differences(trees) == {"a": {}, "b": {}, "c": {"optim.base_lr": 2}}
    two = {name: trees[name] for name in "bc"}
    assert config_differences(two) == {"b": {"optim.base_lr": 1}, "c": {"optim.base_lr": 2}}


def test_settings_of_equal_value_and_other_type_stay_apart() -> None:
    cache: dict[object, str] = {}
    assert json_texts([1, 1.0, True, "1", None, [1], [1.0]], cache) == [
        "1",
        "1.0",
        "true",
        '"1"',
        "null",
        "[1]",
        "[1.0]",
    ]
    assert json_texts([True, 1.0, 1], cache) == ["true", "1.0", "1"]
