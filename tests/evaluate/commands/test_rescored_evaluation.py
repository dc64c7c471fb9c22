"""Other clinical settings, or another list of the same images, cost no new fine-tuning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from retfound_dist.cli import main
from tests.evaluate.commands.test_clinical_scores import listed
from tests.evaluate.inputs import CLASSES, TINY, class_folders

ONCE = [*TINY, "finetune.epochs=1", "probe.enabled=false", "--quiet"]


def evaluate(root: Path, *overrides: str) -> int:
    """`retfound evaluate` of `root/set` into `root/out`."""
    config = root / "evaluate.toml"
    config.write_text(
        f'checkpoint = "none"\n[data]\npath = "{root / "set"}"\n[out]\nurl = "{root / "out"}"\n'
    )
    return main(["evaluate", str(config), *ONCE, *overrides])


def tree_of(root: Path) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads((root / "out/metrics.json").read_text())
    return tree


def test_other_settings_score_again_what_a_new_evaluation_would_give(tmp_path: Path) -> None:
    listed(tmp_path / "set", 20)
    assert evaluate(tmp_path) == 0
    before, weights = tree_of(tmp_path), {f.name for f in (tmp_path / "out/classifier").glob("*.safetensors")}
    asked = ["data.subgroups=['sex']", "clinical.positive=['CSR', 'MH']", "clinical.specificities=[0.8]"]
    assert evaluate(tmp_path, *asked) == 0
    again = tree_of(tmp_path)
    assert {f.name for f in (tmp_path / "out/classifier").glob("*.safetensors")} == weights
    assert list(again["clinical"]["questions"]) == ["CSR or MH"]
    assert again["config"]["clinical"]["positive"] == ["CSR", "MH"]
    assert "By sex" in (tmp_path / "out/report.html").read_text()
    kept = json.loads((tmp_path / "out/classifier/classifier.json").read_text())["thresholds"]
    assert list(kept) == ["CSR or MH"]
    changed = {name for name in again if again[name] != before.get(name)}
    assert changed == {"clinical", "subgroups", "config"}
    assert evaluate(tmp_path, *asked, "--force") == 0
    made = tree_of(tmp_path)
    assert (made["clinical"], made["subgroups"]) == (again["clinical"], again["subgroups"])
    # Without the settings, everything is as it was first.
    assert evaluate(tmp_path) == 0
    assert tree_of(tmp_path)["clinical"] == before["clinical"]
    assert "subgroups" not in tree_of(tmp_path)


def test_another_list_of_the_same_images_moves_them_to_other_groups(tmp_path: Path) -> None:
    listed(tmp_path / "set", 20)
    assert evaluate(tmp_path, "data.subgroups=['sex']") == 0
    before = tree_of(tmp_path)["subgroups"]["columns"]["sex"]["groups"]
    manifest = tmp_path / "set/manifest.csv"
    manifest.write_text(manifest.read_text().replace(",F,", ",M,", 12))
    assert evaluate(tmp_path, "data.subgroups=['sex']") == 0
    after = tree_of(tmp_path)["subgroups"]["columns"]["sex"]["groups"]
    assert after["F"]["images"] < before["F"]["images"]


def test_an_evaluation_of_an_earlier_version_is_kept_and_other_settings_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class_folders(tmp_path / "set", each=10)
    assert evaluate(tmp_path) == 0
    tree = tree_of(tmp_path)
    old = {name: value for name, value in tree.items() if name not in ("clinical", "temperature")}
    old["config"] = {name: value for name, value in tree["config"].items() if name != "clinical"}
    (tmp_path / "out/metrics.json").write_text(json.dumps(old))
    assert evaluate(tmp_path) == 0
    assert "clinical" not in tree_of(tmp_path)
    assert evaluate(tmp_path, f"clinical.positive=['{CLASSES[0]}']") == 2
    error = capsys.readouterr().err
    assert "clinical.positive" in error
    assert "--force" in error
