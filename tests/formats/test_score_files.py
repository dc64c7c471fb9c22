"""Files of evaluations hold scores of known types; what else stands in them is kept or refused by its place."""

from __future__ import annotations

import json
from typing import Any

import pytest

from retfound_dist.errors import RecordError
from retfound_dist.formats.score_files import ComparisonFile, EvaluationFile, ProbeFile, ScoreFile, WatchFile
from retfound_dist.records import json_reader

SCORES = {"auroc": 0.9, "mcc": None, "undefined": {"mcc": "one class only"}}
SPANS = {"macro": {"auroc": [0.8, 1.0], "mcc": None}}
METHOD = {"macro": SCORES, "ci95": SPANS}
SET = {"path": "OCTID", "fingerprint": "ab"}
WEIGHTS = {"url": "run/checkpoints/step_00000010", "kind": "checkpoint", "sha256": "0" * 64, "step": 10}
BOOTSTRAP = {"unit": "patient", "units": 40, "resamples": 1000}
CLASS = dict.fromkeys(["sensitivity", "specificity", "precision", "f1", "auroc", "aupr"]) | {"n": 4}
EVALUATION: dict[str, Any] = {
    "legacy": SCORES, "macro": SCORES, "per_class": {"CSR": CLASS}, "confusion": [[4, 0], [1, 3]], "ci95": SPANS,
    "classes": ["CSR", "NORMAL"], "seeds": [0], "bootstrap": BOOTSTRAP, "checkpoint": WEIGHTS, "data": SET,
    "config": {"seeds": 1}, "per_seed": [{"seed": 0, "epoch": 3, "legacy": SCORES, "macro": SCORES}],
    "split": {"train": 10, "val": 4, "test": 8}, "versions": {"torch": "2.15.0"},
}  # fmt: skip
PROBE: dict[str, Any] = {
    "linear": METHOD, "knn": METHOD, "bootstrap": BOOTSTRAP, "classes": ["CSR"], "checkpoint": WEIGHTS,
    "data": SET, "probe": {"seed": 0},
}  # fmt: skip
WATCH = {"rows": [{"step": 10, "linear": METHOD}], "start": {"linear": METHOD}}
COMPARISON = {"config": {"weights": {"none": "none"}}}
FILES = [
    (ScoreFile, {"macro": SCORES}), (EvaluationFile, EVALUATION), (ProbeFile, PROBE), (WatchFile, WATCH),
    (ComparisonFile, COMPARISON),
]  # fmt: skip
KINDS = pytest.mark.parametrize(("kind", "tree"), FILES, ids=[kind.__name__ for kind, _ in FILES])


def parse(tree: Any, kind: type) -> Any:
    return json_reader.parse(json.dumps(tree).encode(), kind, "metrics.json", "")


@KINDS
def test_a_file_comes_back_whole_with_keys_of_a_later_version(kind: type, tree: dict[str, Any]) -> None:
    later = tree | {"of_the_future": {"a": [None, 1]}}
    assert parse(later, kind) == later


@KINDS
def test_every_key_that_is_relied_on_is_named_where_it_is_missing(kind: type, tree: dict[str, Any]) -> None:
    for key in tree:
        short = {name: value for name, value in tree.items() if name != key}
        if (kind, key) in ((WatchFile, "start"), (ProbeFile, "linear"), (ProbeFile, "knn")):
            assert parse(short, kind) == short
            continue
        with pytest.raises(RecordError, match=f"metrics.json is damaged: line 1: {key} is missing"):
            parse(short, kind)


@pytest.mark.parametrize(
    ("macro", "said"),
    [
        ({"auroc": {"mean": 0.9}}, "auroc is not a score"),
        ({"auroc": "0.9"}, "macro.auroc"),
        ({"auroc": [0.9]}, "macro.auroc"),
        ([0.9], "macro is a list"),
    ],
)
def test_what_is_no_score_is_refused_by_its_name(macro: Any, said: str) -> None:
    """Tables and pages print scores as numbers: a tree in the place of one would end them."""
    for kind, tree in ((ScoreFile, {"macro": macro}), (EvaluationFile, EVALUATION | {"macro": macro})):
        with pytest.raises(RecordError, match=said):
            parse(tree, kind)


@pytest.mark.parametrize("span", [[0.8], [0.7, 0.8, 0.9], 0.8, {"low": 0.8}])
def test_an_interval_has_two_ends(span: Any) -> None:
    with pytest.raises(RecordError, match=r"ci95\.macro\.auroc"):
        parse({"macro": SCORES, "ci95": {"macro": {"auroc": span}}}, ScoreFile)


def test_an_evaluation_has_a_seed_and_counts_are_no_negative_numbers() -> None:
    for change in ({"seeds": []}, {"split": {"train": -1, "val": 4, "test": 8}}):
        with pytest.raises(RecordError, match=r"is damaged: line 1: (seeds|split\.train) is"):
            parse(EVALUATION | change, EvaluationFile)
