"""Whole evaluations of unusual sets: each ends in one clear line and exit 2, or in a null that says why."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from retfound_dist.cli import main
from retfound_dist.config.schema import Model
from retfound_dist.model.mae import MaskedAutoencoder
from tests.evaluate.inputs import (
    CLASSES,
    TINY,
    checkpoint,
    class_folders,
    image_bytes,
    octid_folders,
    write_listing,
)

FIVE = ("AMD", "CSR", "DR", "MH", "NORMAL")
QUICK = [*TINY, "finetune.epochs=1", "probe.enabled=false"]


def evaluate(root: Path, *overrides: str, settings: list[str] = QUICK) -> int:
    """The command on `root/set`, into `root/out`; its exit code."""
    config = root / "evaluate.toml"
    config.write_text(
        f'checkpoint = "none"\n[data]\npath = "{root / "set"}"\n[out]\nurl = "{root / "out"}"\n'
    )
    return main(["evaluate", str(config), *settings, "--quiet", *overrides])


def metrics(root: Path) -> dict[str, object]:
    tree: dict[str, object] = json.loads((root / "out" / "metrics.json").read_text())
    return tree


def absent(root: Path, part: str) -> None:
    """OCTID without MH in one part."""
    octid_folders(root)
    shutil.rmtree(root / part / "MH")
    (root / part / "MH").mkdir()


def one_image(root: Path) -> None:
    (root / "MH").mkdir(parents=True)
    (root / "MH" / "0.jpg").write_bytes(image_bytes(1, 0))


def one_class(root: Path) -> None:
    one_image(root)
    for number in range(1, 5):
        (root / "MH" / f"{number}.jpg").write_bytes(image_bytes(1, number))


def one_image_each(root: Path) -> None:
    class_folders(root, each=1)


def unreadable(root: Path, each: int) -> None:
    class_folders(root)
    for name in CLASSES:
        for i in range(each):
            (root / name / f"{name}_{i}.jpg").write_bytes(b"\xff\xd8 not a whole JPEG")


def patient_on_both_sides(root: Path) -> None:
    class_folders(root, each=4)
    rows = [
        {"file": f"{c}/{c}_{i}.jpg", "label": c, "patient": f"{c}{i % 2}", "split": ("train", "test")[i // 2]}
        for c in CLASSES
        for i in range(4)
    ]
    write_listing(root, rows)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda root: absent(root, "train"), "no image of class MH in the train part: add images"),
        (lambda root: absent(root, "test"), "no image of class MH in the test part: add images"),
        (one_image, "only one image of class MH, but a class needs images for training and for testing"),
        (one_class, "has fewer than two classes (MH): a classifier needs at least two"),
        (one_image_each, "only one image of class CSR, MH, NORMAL, but a class needs images"),
        (lambda root: unreadable(root, 4), "12 images of"),
        (lambda root: unreadable(root, 10), "none of the 30 images in"),
        (patient_on_both_sides, "6 patients are in more than one part (CSR0 in train and test, CSR1 in"),
    ],
    ids=[
        "class absent in train",
        "class absent in test",
        "one image",
        "one class",
        "one image a class",
        "more unreadable files than the budget",
        "all files unreadable",
        "a patient in train and test",
    ],
)
def test_a_set_that_cannot_be_used_gets_one_line_and_nothing_is_written(
    tmp_path: Path, make: Callable[[Path], None], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "set")
    assert evaluate(tmp_path) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_a_class_absent_in_val_is_a_null_with_its_reason(tmp_path: Path) -> None:
    absent(tmp_path / "set", "val")
    assert evaluate(tmp_path) == 0
    row = json.loads((tmp_path / "out" / "history.jsonl").read_text().splitlines()[0])
    assert row["val"]["auroc"] is None
    assert row["val"]["undefined"]["auroc"] == "class MH does not occur"
    assert 0 <= row["val_auroc"] <= 1


def test_a_few_unreadable_files_are_named_in_the_metrics(tmp_path: Path) -> None:
    unreadable(tmp_path / "set", 1)
    assert evaluate(tmp_path) == 0
    skipped = metrics(tmp_path)["skipped"]
    assert [row["key"] for row in skipped] == [f"{c}/{c}_0.jpg" for c in CLASSES]  # type: ignore[attr-defined]
    assert "3 images were left out (CSR/CSR_0.jpg: " in (tmp_path / "out" / "report.html").read_text()


def test_five_classes_are_tested_on_a_set_of_two(tmp_path: Path) -> None:
    class_folders(tmp_path / "set", each=8, classes=FIVE)
    class_folders(tmp_path / "two", each=6, classes=("healthy", "hole"))
    for file in (tmp_path / "two").rglob("*.jpg"):
        file.write_bytes(image_bytes(int("hole" in file.name), 300 + int(file.stem[-1])))
    pair = "{NORMAL = 'healthy', MH = 'hole'}"
    assert evaluate(tmp_path, f"external.path={tmp_path / 'two'}", f"external.class_map={pair}") == 0
    tree = metrics(tmp_path)
    external = tree["external"]
    assert len(tree["confusion"]) == 5  # type: ignore[arg-type]
    assert external["classes"] == ["MH", "NORMAL"]  # type: ignore[index]
    assert [len(row) for row in external["confusion"]] == [2, 2]  # type: ignore[index]
    assert external["dropped_classes"] == ["AMD", "CSR", "DR"]  # type: ignore[index]


def test_of_two_classes_legacy_is_the_second_s_own_and_what_is_undefined_says_why(tmp_path: Path) -> None:
    class_folders(tmp_path / "set", classes=("MH", "NORMAL"))
    for file in (tmp_path / "set").rglob("*.jpg"):
        file.write_bytes(image_bytes(0, 0))
    assert evaluate(tmp_path) == 0
    tree = json.loads((tmp_path / "out" / "metrics.json").read_text())
    legacy, own = tree["legacy"], tree["per_class"]["NORMAL"]
    assert {legacy["sensitivity"], own["sensitivity"]} in ({0.0}, {1.0})
    assert tree["macro"]["precision"] is None
    never = "NORMAL" if own["sensitivity"] == 0 else "MH"
    assert tree["macro"]["undefined"]["precision"] == f"class {never} is never predicted"
    assert tree["macro"]["auroc"] == 0.5


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["external.class_map={MH = 'hole', CSR = 'fluidd'}"], "maps to fluidd, but external.path="),
        (["external.class_map={MH = 'hole', CRS = 'fluid'}"], "names CRS, but the model has no such class"),
    ],
    ids=["label unknown in the external set", "class unknown to the model"],
)
def test_a_map_to_the_unknown_gets_one_line_before_anything_is_trained(
    tmp_path: Path, overrides: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    class_folders(tmp_path / "set")
    class_folders(tmp_path / "other", classes=("fluid", "hole"))
    assert evaluate(tmp_path, f"external.path={tmp_path / 'other'}", *overrides) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_keeps_its_own_patch_and_is_resampled_to_the_size_that_is_asked_for(
    tmp_path: Path,
) -> None:
    class_folders(tmp_path / "set")
    url = checkpoint(tmp_path / "run", 3)
    assert evaluate(tmp_path, f"checkpoint={url}", "model.name=vit_large_patch16", "model.image_size=56") == 0
    start = metrics(tmp_path)["checkpoint"]
    assert start["encoder"]["patch"] == 14  # type: ignore[index]
    assert start["image_size"] == 56  # type: ignore[index]
    assert start["backbone"]["tokens"] == 17  # type: ignore[index]


def test_weights_whose_patches_fit_no_grid_get_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class_folders(tmp_path / "set")
    model = Model(name="vit_demo_patch14", image_size=28, decoder_width=32, decoder_depth=1, decoder_heads=2)
    state = MaskedAutoencoder(model).state_dict()
    state["pos_embed"] = state["pos_embed"][:, :4]
    torch.save({"model": state}, tmp_path / "w.pth")
    assert evaluate(tmp_path, f"checkpoint={tmp_path / 'w.pth'}") == 2
    said = capsys.readouterr().err
    assert "positions for 3 patches" in said
    assert said.count("\n") == 1


def test_a_disk_that_fills_under_the_report_gets_one_line_and_leaves_no_evaluation(
    small_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class_folders(tmp_path / "set")
    # Without a classifier, the page is the largest file.
    out = (f"out.url={small_disk / 'out'}", "finetune.keep=false")
    assert evaluate(tmp_path, *out) == 0
    sizes = {path.name: path.stat().st_size for path in (small_disk / "out").iterdir()}
    report = sizes.pop("report.html")
    assert max(sizes.values()) + 16384 < report
    shutil.rmtree(small_disk / "out")
    fill(small_disk, leave=sum(sizes.values()) + report // 2)
    capsys.readouterr()
    assert evaluate(tmp_path, *out) == 2
    said = capsys.readouterr().err
    assert "report.html" in said
    assert "No space left" in said
    assert said.count("\n") == 1
    left = {path.name for path in (small_disk / "out").iterdir()}
    assert not left & {"report.html", "metrics.json"}
    assert not any(name.endswith(".tmp") for name in left)


def fill(disk: Path, leave: int) -> None:
    """Write to a disk until so many bytes are free."""
    free = os.statvfs(disk)
    with (disk / "filler").open("wb") as file:
        file.write(b"x" * (free.f_bavail * free.f_frsize - leave))
