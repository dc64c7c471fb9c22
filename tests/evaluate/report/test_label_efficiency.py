from __future__ import annotations

import json
from pathlib import Path

import pytest

from retfound_dist.evaluate.commands.compare import compare_command
from tests.evaluate.inputs import TINY, class_folders, list_patients


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shares")
    class_folders(root / "set", each=16)
    list_patients(root / "set")
    (root / "compare.toml").write_text(
        f'[weights]\nnone = "none"\nother = "none"\n[data]\npath = "{root / "set"}"\n'
        f'[out]\nurl = "{root / "out"}"\n'
    )
    run(root)
    return root


def run(root: Path, *overrides: str) -> None:
    shares = [
        "label_shares=[0.1, 0.5, 1.0]",
        "finetune.epochs=1",
        "finetune.try_recipes=[{base_lr=1e-3}, {base_lr=1e-2}]",
    ]
    assert compare_command(str(root / "compare.toml"), [*TINY, *shares, *overrides], quiet=True) == 0


def test_all_rows_are_compared_at_every_share_on_the_same_test_images(compared: Path) -> None:
    tree = json.loads((compared / "out" / "compare.json").read_text())
    entries = tree["label_efficiency"]
    assert [entry["share"] for entry in entries] == [0.1, 0.5, 1.0]
    assert [entry["train"] for entry in entries] == sorted(entry["train"] for entry in entries)
    assert all(entry["rows"].keys() == {"none", "other"} for entry in entries)
    assert any(s.startswith("With 10 % of the labels") for s in tree["sentences"])
    splits = []
    for share in ("labels_0.1/", "labels_0.5/", ""):
        metrics = json.loads((compared / "out" / f"{share}none" / "metrics.json").read_text())
        assert [line["recipe"] for line in metrics["tuning"]["tried"]] == [
            {"base_lr": 1e-3},
            {"base_lr": 1e-2},
        ]
        lines = (compared / "out" / f"{share}none" / "split.csv").read_text().splitlines()
        splits.append(
            {part: {x.split(",")[0] for x in lines if x.endswith(part)} for part in ("train", "test")}
        )
    assert splits[0]["train"] < splits[1]["train"] < splits[2]["train"]
    assert splits[0]["test"] == splits[1]["test"] == splits[2]["test"]
    page = (compared / "out" / "report.html").read_text()
    assert "Label efficiency, fine-tuned" in page
    assert "Label efficiency, linear probe" in page
    assert "Recipe chosen by val, “other”" in page
    assert "the same recipes to choose from for each" in page


def test_shares_that_are_there_are_not_run_again(compared: Path) -> None:
    files = sorted((compared / "out").rglob("metrics.json"))
    stamps = [file.stat().st_mtime_ns for file in files]
    assert len(files) == 6
    run(compared)
    assert [file.stat().st_mtime_ns for file in files] == stamps


def test_rows_side_by_side_are_the_same_rows(compared: Path) -> None:
    alone = json.loads((compared / "out" / "compare.json").read_text())["label_efficiency"]
    run(compared, "jobs=2", "threads=2", f"out.url={compared / 'beside'}")
    beside = json.loads((compared / "beside" / "compare.json").read_text())["label_efficiency"]
    for a, b in zip(alone, beside, strict=True):
        for name in a["rows"]:
            assert b["rows"][name]["macro"]["aupr"] == pytest.approx(
                a["rows"][name]["macro"]["aupr"], abs=1e-3
            )
