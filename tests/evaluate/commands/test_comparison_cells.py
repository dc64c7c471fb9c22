"""The cells of a comparison: each in its folder, made once, with features of the whole set for all of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from retfound_dist.config.schema import CompareConfig, CompareOut, EvalData
from retfound_dist.errors import ConfigError
from retfound_dist.evaluate.commands.compare import compare_command
from retfound_dist.evaluate.commands.comparison_cells import Cell, cell_config, list_cells
from retfound_dist.evaluate.results import evaluation_files
from tests.evaluate.inputs import TINY, checkpoint, class_folders, list_patients

SHOTS = ["label_shots=[2, 1, 64]", "shot_draws=2", "seeds=[3, 5]", "finetune.epochs=1"]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rows with all labels, and with one and two patients a class, two draws each."""
    root = tmp_path_factory.mktemp("shots")
    class_folders(root / "set", each=16)
    list_patients(root / "set")
    checkpoint(root / "run", 3)
    (root / "compare.toml").write_text(
        f'[weights]\nnone = "none"\nours = "{root}/run"\n[data]\npath = "{root / "set"}"\n'
        f'[out]\nurl = "{root / "out"}"\n'
    )
    run(root)
    return root


def run(root: Path, *overrides: str) -> None:
    assert compare_command(str(root / "compare.toml"), [*TINY, *SHOTS, *overrides], quiet=True) == 0


def metrics_of(folder: Path) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return tree


def stamps(root: Path) -> dict[str, int]:
    files = (root / "out").rglob("metrics.json")
    return {str(file.parent.relative_to(root)): file.stat().st_mtime_ns for file in files}


def test_each_row_number_and_draw_is_an_evaluation_in_its_folder(compared: Path) -> None:
    folders = [f"shots_{shots}/draw_{draw}" for shots in (1, 2) for draw in (0, 1)]
    assert stamps(compared).keys() == {
        *("out/none", "out/ours"),
        *(f"out/{folder}/{row}" for folder in folders for row in ("none", "ours")),
    }
    tests = set()
    for folder in folders:
        one, other = (metrics_of(compared / "out" / folder / row) for row in ("none", "ours"))
        assert one["split"]["patients"]["train"] == 3 * int(folder[6])
        # Rows of one draw have the same images; a draw has one of the seeds.
        assert one["data"]["fingerprint"] == other["data"]["fingerprint"]
        assert one["seeds"] == other["seeds"] == [[3], [5]][int(folder[-1])]
        tests.add((compared / "out" / folder / "none" / "predictions.csv").read_text().count("\n"))
    assert len(tests) == 1


def test_the_comparison_has_means_over_draws_in_all_of_its_files(compared: Path) -> None:
    tree = json.loads((compared / "out" / "compare.json").read_text())
    assert [entry["shots"] for entry in tree["label_shots"]] == [1, 2]
    entry = tree["label_shots"][0]
    assert (entry["draws"], entry["unit"], entry["train"]) == (2, "patient", [6, 6])
    assert entry["rows"].keys() == {"none", "ours"}
    for name, methods in entry["rows"].items():
        assert methods.keys() == {"finetuned", *metrics_of(compared / "out" / name)["probe"]}
        draws = [metrics_of(compared / "out" / "shots_1" / f"draw_{draw}" / name) for draw in (0, 1)]
        for method, scores in methods.items():
            values = [
                (draw if method == "finetuned" else draw["probe"][method])["macro"]["aupr"] for draw in draws
            ]
            assert scores["aupr"]["mean"] == pytest.approx(sum(values) / 2)
    assert any("a class (2 draws" in s and "fine-tuned: “ours”" in s for s in tree["sentences"])
    assert any("64 patients a class are left out" in s for s in tree["sentences"])
    assert "| ours, linear probe |" in (compared / "out" / "table.md").read_text()
    page = (compared / "out" / "report.html").read_text()
    assert "Few patients a class, fine-tuned: AUPR" in page
    assert "2 patients a class" in page


def test_frozen_features_are_computed_once_for_each_row(compared: Path) -> None:
    files = {str(file.parent.relative_to(compared)) for file in (compared / "out").rglob("features.npz")}
    assert files == {"out/none", "out/ours"}


def test_cells_that_are_complete_are_not_made_again_and_a_lost_one_is(compared: Path) -> None:
    before = stamps(compared)
    lost = compared / "out" / "shots_2" / "draw_1" / "ours"
    shutil.rmtree(lost)
    unpredicted = compared / "out" / "shots_1" / "draw_0" / "none"
    (unpredicted / "probe_test_predictions.csv").unlink()
    # Made by a version without these settings.
    older = compared / "out" / "ours" / "metrics.json"
    tree = json.loads(older.read_text())
    del tree["config"]["data"]["label_shots"], tree["config"]["data"]["shot_draw"]
    older.write_text(json.dumps(tree))
    before["out/ours"] = older.stat().st_mtime_ns
    run(compared)
    after = stamps(compared)
    assert {name for name in after if after[name] != before[name]} == {
        "out/shots_2/draw_1/ours",
        "out/shots_1/draw_0/none",
    }
    assert (unpredicted / "probe_test_predictions.csv").exists()
    # More draws only add cells.
    run(compared, "shot_draws=3", "label_shots=[1]")
    assert stamps(compared).keys() - after.keys() == {"out/shots_1/draw_2/none", "out/shots_1/draw_2/ours"}


@pytest.mark.slow
def test_cells_of_parallel_processes_are_the_same(compared: Path) -> None:
    run(compared)
    alone = json.loads((compared / "out" / "compare.json").read_text())["label_shots"]
    run(compared, "jobs=2", "threads=2", f"out.url={compared / 'beside'}")
    beside = json.loads((compared / "beside" / "compare.json").read_text())["label_shots"]
    for one, other in zip(alone, beside, strict=True):
        for name, methods in one["rows"].items():
            for method, scores in methods.items():
                mean = other["rows"][name][method]["aupr"]["mean"]
                assert mean == pytest.approx(scores["aupr"]["mean"], abs=1e-3), (name, method)
    assert len(list((compared / "beside").rglob("features.npz"))) == 2
    cell = evaluation_files.read(str(compared / "beside" / "shots_1" / "draw_1" / "none"))
    assert cell is not None
    assert len(cell.keys) == 12


def config(**changes: Any) -> CompareConfig:
    base = {"weights": {"a": "none", "b": "none"}, "data": EvalData(path="set"), "out": CompareOut(url="out")}
    return CompareConfig(**{**base, **changes})


def test_the_whole_comparison_comes_first_and_each_cell_has_a_title_and_a_folder_of_its_own() -> None:
    one = config(label_shares=(0.1, 1.0), label_shots=(4,), shot_draws=2, seeds=(7, 8, 9))
    cells = list_cells(one, [4])
    assert [cell.title for cell in cells if cell.row == "b"] == [
        "b",
        "b, 10 % of the labels",
        "b, 4 a class, draw 0",
        "b, 4 a class, draw 1",
    ]
    assert [cell.row for cell in cells[:2]] == ["a", "b"]
    configs = [cell_config(one, cell) for cell in cells if cell.row == "b"]
    assert [c.out.url for c in configs] == [
        "out/b", "out/labels_0.1/b", "out/shots_4/draw_0/b", "out/shots_4/draw_1/b",
    ]  # fmt: skip
    assert [c.seeds for c in configs] == [(7, 8, 9), (7, 8, 9), (7,), (8,)]


def test_shots_are_drawn_from_all_of_train_where_the_whole_comparison_has_a_share() -> None:
    one = config(data=EvalData(path="set", label_share=0.5), label_shots=(4,))
    assert cell_config(one, Cell("a", 1.0, 4, 2)).data == EvalData(path="set", label_shots=4, shot_draw=2)


def test_a_comparison_of_one_number_of_patients_is_the_whole_comparison() -> None:
    one = config(data=EvalData(path="set", label_shots=4, shot_draw=1), seeds=(7, 8))
    cell = list_cells(one, [])[0]
    assert cell_config(one, cell).out.url == "out/a"
    assert cell_config(one, cell).seeds == (7, 8)
    with pytest.raises(ValidationError, match=r"data\.label_shots is one number of patients"):
        config(data=EvalData(path="set", label_shots=4), label_shares=(0.5,))


def test_no_patients_and_no_draws_are_refused(compared: Path) -> None:
    for wrong in ("label_shots=[0]", "shot_draws=0"):
        with pytest.raises(ConfigError, match=wrong.split("=", 1)[0]):
            run(compared, wrong)
