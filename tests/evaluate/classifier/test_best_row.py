"""A comparison keeps the classifier of the row that is best on val, or all, or none."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from retfound_dist.config.schema import CompareConfig, CompareOut, EvalData, Finetune
from retfound_dist.evaluate.classifier.best_row import best_row, classifier_lines, keep_best_classifier
from retfound_dist.evaluate.commands.compare import compare_command
from retfound_dist.evaluate.results import evaluation_files
from retfound_dist.evaluate.results.evaluation import Evaluation
from tests.evaluate.inputs import TINY, checkpoint, class_folders
from tests.evaluate.made import predictions


def compare(root: Path, *overrides: str) -> set[str]:
    """Run the command; gives the rows with a classifier."""
    (root / "compare.toml").write_text(
        f'[weights]\nnone = "none"\nours = "{root}/run"\n[data]\npath = "{root / "set"}"\n'
        f'[out]\nurl = "{root / "out"}"\n'
    )
    fast = ["finetune.epochs=1", "probe.enabled=false", *overrides]
    assert compare_command(str(root / "compare.toml"), [*TINY, *fast], quiet=True) == 0
    return {str(file.parent.parent.relative_to(root / "out")) for file in root.rglob("classifier.json")}


def test_only_the_best_row_keeps_its_classifier(tmp_path: Path) -> None:
    class_folders(tmp_path / "set")
    checkpoint(tmp_path / "run", 3)
    kept = compare(tmp_path, "label_shares=[0.5]", "jobs=2")
    rows = {name: evaluation_files.read(str(tmp_path / "out" / name)) for name in ("none", "ours")}
    assert kept == {best_row(["none", "ours"], {name: row for name, row in rows.items() if row})}
    assert compare(
        tmp_path,
        "finetune.keep='all'",
        "label_shares=[0.5]",
        "data.split_seed=1",
        f"out.url={tmp_path}/out/all",
    ) >= {
        "all/none",
        "all/ours",
    }


def test_val_decides_and_not_test() -> None:
    good_on_test, good_on_val = predictions(0), predictions(1)
    good_on_val.history[1]["val_auroc"] = 0.99
    good_on_test.metrics["macro"]["auroc"] = 1.0
    assert best_row(["test", "val"], {"test": good_on_test, "val": good_on_val}) == "val"
    good_on_val.history[1]["val_auroc"] = None
    assert best_row(["test", "val"], {"test": good_on_test, "val": good_on_val}) == "test"


def test_an_attention_head_counts_and_not_the_network_below_it() -> None:
    network, head = of_val(0.95), of_val(0.5)
    network.metrics["per_seed"][0]["attention"] = {"epoch": 1, "val_auroc": 0.8}
    head.metrics["per_seed"][0]["attention"] = {"epoch": 1, "val_auroc": 0.9}
    assert best_row(["network", "head"], {"network": network, "head": head}) == "head"


def of_val(auroc: float | None) -> Evaluation:
    """A row with this score on val."""
    row = predictions(0)
    row.history[1]["val_auroc"] = auroc
    return row


@pytest.mark.parametrize(
    ("scores", "with_classifier", "kept", "said"),
    [
        # Rows that are reused come first, and the order of the settings decides between equals.
        ({"b": 0.9, "a": 0.9, "c": 0.8}, "abc", "a", "classifier of the row that is best on val: {}/a/"),
        (
            {"b": 0.9, "a": 0.8, "c": 0.7},
            "ac",
            "ac",
            "note: b, which is best on val, has no classifier/; delete the row's folder, and the next "
            "comparison makes it with one. Classifiers are kept of: a, c",
        ),
        (
            {"b": 0.9, "a": None, "c": None},
            "abc",
            "abc",
            "note: the score on val is not known for a, c. Classifiers are kept of: a, b, c",
        ),
        ({"b": 0.9, "a": 0.8}, "", "", "note: b, which is best on val, has no classifier/"),
        ({"b": None}, "b", "b", "classifier of the row that is best on val: {}/b/"),
    ],
)
def test_no_classifier_is_deleted_unless_the_best_row_is_known_and_has_one(
    tmp_path: Path, scores: dict[str, float | None], with_classifier: str, kept: str, said: str
) -> None:
    config = CompareConfig(
        weights=dict.fromkeys(sorted(scores), "none"),
        data=EvalData(path="set"),
        out=CompareOut(url=str(tmp_path)),
    )
    for name in with_classifier:
        (tmp_path / name / "classifier").mkdir(parents=True)
        (tmp_path / name / "classifier/classifier.json").write_text("{}")
    rows = {name: of_val(score) for name, score in scores.items()}
    keep_best_classifier(config, rows)
    assert "".join(sorted(file.parent.parent.name for file in tmp_path.rglob("*.json"))) == kept
    (line,) = classifier_lines(config, rows)
    assert line.startswith(said.format(tmp_path))


def test_rows_without_a_classifier_are_named_where_all_are_asked_for(tmp_path: Path) -> None:
    config = CompareConfig(
        weights={"a": "none"},
        data=EvalData(path="set"),
        out=CompareOut(url=str(tmp_path)),
        finetune=Finetune(keep="all"),
    )
    assert classifier_lines(config, {"a": of_val(0.9)}) == [
        "note: a: no classifier/; delete the row's folder, and the next comparison makes it with one"
    ]
    none = dataclasses.replace(config, finetune=Finetune(keep=False))
    assert classifier_lines(none, {"a": of_val(0.9)}) == []
