"""The section `task`: what does not fit is refused with the setting to change."""

from __future__ import annotations

import pytest

from retfound_dist.config.loading import build, with_defaults
from retfound_dist.config.schema import CompareConfig, EvaluateConfig, SuiteConfig, WatchConfig
from retfound_dist.errors import ConfigError

EVALUATE = {"checkpoint": "none", "data": {"path": "set"}, "out": {"url": "out"}}
AGE = {"kind": "regression", "targets": ["age"]}


@pytest.mark.parametrize(
    "task",
    [
        {},
        AGE,
        {"kind": "multilabel", "targets": ["cyst", "fluid"]},
        {"kind": "ordinal", "targets": ["stage"]},
        {"kind": "ordinal", "targets": ["stage"], "grades": ["none", "mild", "severe"]},
        {"kind": "ordinal", "targets": ["stage"], "grades": [0, 1, 2]},
    ],
)
def test_tasks_of_each_kind_are_accepted(task: dict[str, object]) -> None:
    built = build(EvaluateConfig, {**EVALUATE, "task": task}, "file")
    assert built.task.kind == task.get("kind", "multiclass")


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"kind": "regression"}, r'needs the column with the answers: set task.targets=\["COLUMN"\]'),
        ({"targets": ["age"]}, "set task.kind to"),
        ({"kind": "regression", "targets": ["age", "iop"]}, "has one target, but task.targets names 2"),
        ({"kind": "multilabel", "targets": ["a", "a"]}, "names a column twice"),
        (
            {"kind": "multilabel", "targets": ["a", "b;c"]},
            "names 'b;c', but in predictions ';' separates labels",
        ),
        ({"kind": "multilabel", "targets": ["none"]}, "'none' means that an image has no label"),
        ({**AGE, "grades": [0, 1]}, "task.grades is for task.kind=ordinal"),
        ({"kind": "ordinal", "targets": ["stage"], "grades": ["a", "a"]}, "each of them once"),
        ({"kind": "ordinal", "targets": ["stage"], "grades": ["a"]}, "at least two grades"),
        ({"kind": "survival", "targets": ["age"]}, "task.kind='survival'"),
    ],
)
def test_what_does_not_fit_is_refused(task: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(EvaluateConfig, {**EVALUATE, "task": task}, "file")


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ({"finetune": {"mixup": 0.8}}, "finetune.mixup"),
        ({"finetune": {"cutmix": 1.0}}, "finetune.cutmix"),
        ({"finetune": {"class_weights": "balanced"}}, "finetune.class_weights"),
        ({"finetune": {"try_recipes": [{"base_lr": 1e-3}]}}, "finetune.try_recipes"),
        ({"external": {"path": "other"}}, "external.path"),
        ({"data": {"path": "set", "label_shots": 4}}, "data.label_shots"),
        ({"data": {"path": "set", "subgroups": ["sex"]}}, "data.subgroups"),
    ],
)
def test_settings_that_need_classes_are_refused_by_name(section: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=f"{named} needs classes, but task.kind=regression: leave it out"):
        build(EvaluateConfig, {**EVALUATE, "task": AGE, **section}, "file")
    build(EvaluateConfig, {**EVALUATE, **section}, "file")


@pytest.mark.parametrize("setting", ["label_shots", "label_shares"])
def test_a_comparison_refuses_more_choices_of_labels(setting: str) -> None:
    tree = {
        "weights": {"a": "none"}, "data": {"path": "set"}, "out": {"url": "out"}, "task": AGE, setting: [1]
    }  # fmt: skip
    with pytest.raises(ConfigError, match=f"{setting} needs classes"):
        build(CompareConfig, tree, "file")


@pytest.mark.parametrize("kind", [SuiteConfig, WatchConfig])
def test_suite_and_watch_say_which_commands_know_tasks(kind: type) -> None:
    with pytest.raises(ConfigError, match="unknown key task: only evaluate and compare have it"):
        build(kind, {"task": AGE}, "file")


def test_a_misspelt_key_of_a_task_is_told_the_right_one() -> None:
    with pytest.raises(ConfigError, match=r"unknown key task\.target: did you mean task\.targets\?"):
        build(EvaluateConfig, {**EVALUATE, "task": {"kind": "ordinal", "target": ["x"]}}, "file")


def test_an_evaluation_of_an_earlier_version_is_one_of_classes() -> None:
    assert with_defaults(EvaluateConfig, EVALUATE)["task.kind"] == "multiclass"
