"""An evaluation keeps its classifier, or not, as `finetune.keep` says."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from retfound_dist.errors import StorageError
from retfound_dist.evaluate.classifier.classifier import load_classifier
from tests.evaluate.inputs import class_folders
from tests.evaluate.made import evaluated


def test_keep_is_no_part_of_the_recipe_and_false_keeps_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class_folders(tmp_path / "set", each=10)
    out = evaluated(tmp_path, "none", "finetune.keep=false", "finetune.epochs=1")
    assert not (out / "classifier").exists()
    before = (out / "metrics.json").stat().st_mtime_ns
    evaluated(tmp_path, "none", "finetune.epochs=1")
    assert (out / "metrics.json").stat().st_mtime_ns == before
    evaluated(tmp_path, "none", "finetune.epochs=1", force=True)
    first = json.loads((out / "classifier" / "classifier.json").read_text())
    evaluated(tmp_path, "none", "finetune.epochs=1", force=True)
    second = json.loads((out / "classifier" / "classifier.json").read_text())
    assert {path.name for path in (out / "classifier").iterdir()} == {"classifier.json", *second["files"]}
    assert first["files"].keys() != second["files"].keys()
    evaluated(tmp_path, "none", "finetune.epochs=1", "finetune.keep=false", force=True)
    assert not (out / "classifier").exists()


def test_other_families_and_methods_are_kept_too(tmp_path: Path) -> None:
    class_folders(tmp_path / "set", each=10)
    for method in ("head", "lora"):
        overrides = ("model.name=timm:test_vit3", "model.image_size=96", "finetune.epochs=1")
        out = evaluated(
            tmp_path, "none", *overrides, f"finetune.method={method}", "probe.enabled=false", force=True
        )
        classifier = load_classifier(str(out))
        assert classifier.backbone.family == "test_vit3"
        assert classifier.image_size == 96


@pytest.mark.slow
def test_a_disk_without_room_for_the_weights_leaves_the_older_evaluation_whole(
    tmp_path: Path, small_disk: Path
) -> None:
    class_folders(tmp_path / "set", each=5)
    out = small_disk / "out"
    settings = (f"out.url={out}", "finetune.epochs=1", "probe.enabled=false")
    evaluated(tmp_path, "none", *settings)
    before = (out / "metrics.json").read_bytes(), (out / "classifier/classifier.json").read_bytes()
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    (small_disk / "ballast").write_bytes(bytes(free - 80_000))
    with pytest.raises(StorageError, match="No space left"):
        evaluated(tmp_path, "none", *settings, "seeds=[1]", force=True)
    assert before == ((out / "metrics.json").read_bytes(), (out / "classifier/classifier.json").read_bytes())
    assert load_classifier(str(out)).seeds == (0,)
    assert not [path for path in out.rglob("*") if path.name.endswith(".tmp")]
