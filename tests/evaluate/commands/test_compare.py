from __future__ import annotations

import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from retfound_dist.errors import ConfigError, DataError, WeightsError
from retfound_dist.evaluate.commands.compare import compare_command
from retfound_dist.evaluate.results import evaluation_files
from retfound_dist.io import storage
from retfound_dist.model.mae import MaskedAutoencoder
from tests.evaluate.inputs import MODEL, TINY, checkpoint, class_folders, image_bytes, list_patients


def compare(root: Path, *overrides: str, force: bool = False) -> Path:
    """Run the command on three rows; gives the folder of its results."""
    config = root / "compare.toml"
    config.write_text(
        f'[weights]\nnone = "none"\nearly = "{root}/run/checkpoints/step_00000003"\n'
        f'late = "{root}/run/checkpoints/step_00000012"\n[data]\npath = "{root / "set"}"\n'
        f'[out]\nurl = "{root / "out"}"\nreport = "{root / "page.html"}"\n'
    )
    given = [*TINY, "finetune.epochs=1", *overrides]
    assert compare_command(str(config), given, quiet=True, force=force) == 0
    return root / "out"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("compare")
    list_patients(class_folders(root / "set"))
    checkpoint(root / "run", 3)
    checkpoint(root / "run", 12)
    return compare(root)


def test_each_row_is_an_evaluation_of_its_own(done: Path) -> None:
    tree = json.loads((done / "compare.json").read_text())
    assert list(tree["rows"]) == ["none", "early", "late"]
    for name in tree["rows"]:
        metrics = json.loads((done / name / "metrics.json").read_text())
        assert metrics["macro"] == tree["rows"][name]["macro"]
        assert (done / name / "predictions.csv").exists()
    assert tree["rows"]["late"]["checkpoint"]["step"] == 12


def test_differences_are_to_the_best_and_say_whether_they_are_real(done: Path) -> None:
    tree = json.loads((done / "compare.json").read_text())
    assert len(tree["differences"]) == 4
    for line in tree["differences"]:
        assert line["best"] == tree["best"][line["metric"]]
        assert line["difference"] >= 0
        assert isinstance(line["real"], bool)
    assert [(d["row"], d["metric"]) for d in tree["against_none"]] == [
        ("early", "aupr"),
        ("early", "balanced_accuracy"),
        ("late", "aupr"),
        ("late", "balanced_accuracy"),
    ]
    assert len(tree["sentences"]) == 4


def test_the_table_of_both_definitions_is_a_file_to_paste(done: Path) -> None:
    tree = json.loads((done / "compare.json").read_text())
    text = (done / "table.md").read_text()
    scores, _ = text.split("## what is compared")
    legacy, macro = scores.split("## macro")
    assert (
        "| weights | ACC (one-vs-rest) | sensitivity | specificity | precision | AUROC | AUPR | F1 | MCC |"
        in legacy
    )
    row = tree["rows"]["late"]
    low, high = row["ci95"]["macro"]["accuracy"]
    assert f"{row['macro']['accuracy']:.3f}" in macro
    assert f" [{low:.3f} to {high:.3f}] |" in macro
    assert [line.split(" | ")[0] for line in macro.splitlines() if line.startswith("| ")][2:] == [
        "| none", "| early", "| late"]  # fmt: skip


def test_the_page_and_the_table_say_what_is_compared(done: Path) -> None:
    compared = (done / "table.md").read_text().split("## what is compared")[1]
    assert "| late | vit_demo_patch14 | 28 px | 5 | " in compared
    backbone = json.loads((done / "late" / "metrics.json").read_text())["checkpoint"]["backbone"]
    assert (backbone["tokens"], backbone["image_size"], backbone["interpolation"]) == (5, 28, "bicubic")
    assert "What is compared" in (done.parent / "page.html").read_text()


def test_each_size_of_a_list_is_a_comparison_of_its_own_and_rows_of_different_tokens_are_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class_folders(tmp_path / "set")
    run = checkpoint(tmp_path / "run", 3)
    config = tmp_path / "sizes.toml"
    config.write_text(
        f'sizes = [56, 112]\n[weights]\nours = "{run}"\nconvnext = "none"\n[data]\npath = "{tmp_path / "set"}"\n'
        f'[out]\nurl = "{tmp_path / "out"}"\n'
    )
    settings = [s for s in TINY if not s.startswith("model.")]
    settings += ["finetune.epochs=1", "probe.enabled=false", "model.name=timm:convnext_atto"]
    assert compare_command(str(config), settings) == 0
    for size, tokens in ((56, 17), (112, 65)):
        out = tmp_path / "out" / f"size_{size}"
        note = json.loads((out / "ours" / "metrics.json").read_text())["checkpoint"]
        assert (note["image_size"], note["backbone"]["tokens"]) == (size, tokens)
        sentences = json.loads((out / "compare.json").read_text())["sentences"]
        assert any("different numbers of tokens (ours" in sentence for sentence in sentences)
        assert (out / "report.html").is_file()
    assert "warning: the rows see an image as different numbers of tokens" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"sizes and model\.image_size both give sizes"):
        compare_command(str(config), [*settings, "model.image_size=28"])


def test_all_rows_whose_weights_cannot_be_used_are_listed_before_anything_is_made(tmp_path: Path) -> None:
    class_folders(tmp_path / "set")
    config = tmp_path / "faults.toml"
    config.write_text(
        f'[weights]\nnone = "none"\nunknown = "timm:vit_small_patch16_dinov5"\ngone = "{tmp_path}/w.pth"\n'
        f'[data]\npath = "{tmp_path / "set"}"\n[out]\nurl = "{tmp_path / "out"}"\n'
    )
    with pytest.raises(WeightsError) as refused:
        compare_command(str(config), TINY, quiet=True)
    first, *rows = str(refused.value).splitlines()
    assert first == "2 of 3 rows cannot be used:"
    assert rows[0].startswith("  weights.unknown: timm has no model vit_small_patch16_dinov5: did you mean ")
    assert rows[1].startswith("  weights.gone: there are no weights at")
    assert not (tmp_path / "out" / "none").exists()


def test_the_page_goes_where_the_config_says(done: Path) -> None:
    page = (done.parent / "page.html").read_text()
    for text in ("none", "early", "late", "Pretraining: loss", "Reconstructions", "<svg"):
        assert text in page


def test_complete_rows_are_not_run_again_unless_something_changed(done: Path) -> None:
    stamps = {p.parent.name: p.stat().st_mtime_ns for p in done.glob("*/metrics.json")}
    compare(done.parent, "threads=1")
    assert {p.parent.name: p.stat().st_mtime_ns for p in done.glob("*/metrics.json")} == stamps
    run = done.parent / "run"
    for path in sorted((run / "checkpoints" / "step_00000012").iterdir()):
        path.unlink()
    (run / "checkpoints" / "step_00000012").rmdir()
    checkpoint(run, 12, seed=5)
    with pytest.raises(ConfigError, match="its content has changed"):
        compare(done.parent, "threads=1")
    compare(done.parent, "threads=1", force=True)
    again = {p.parent.name: p.stat().st_mtime_ns for p in done.glob("*/metrics.json")}
    assert {name for name in again if again[name] != stamps[name]} == {"late"}


def test_a_name_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "compare.toml"
    config.write_text('[weights]\n"a/b" = "none"\n[data]\npath = "x"\n[out]\nurl = "y"\n')
    with pytest.raises(ConfigError, match="name is used as a folder name"):
        compare_command(str(config), [], quiet=True)


@pytest.mark.slow
def test_rows_side_by_side_give_what_rows_one_by_one_give(done: Path, tmp_path: Path) -> None:
    class_folders(tmp_path / "set")
    list_patients(tmp_path / "set")
    checkpoint(tmp_path / "run", 3)
    checkpoint(tmp_path / "run", 12)
    out = compare(tmp_path, "jobs=2", "threads=2")
    for name in ("none", "early", "late"):
        one, other = evaluation_files.read(str(out / name)), evaluation_files.read(str(done / name))
        assert one is not None
        assert other is not None
        if name != "late":  # an earlier test gave that one other weights
            assert np.allclose(one.probabilities_NC, other.probabilities_NC, atol=1e-4)


@pytest.mark.slow
def test_a_row_that_fails_side_by_side_is_one_line_and_the_others_are_kept(tmp_path: Path) -> None:
    class_folders(tmp_path / "set")
    checkpoint(tmp_path / "run", 3)
    checkpoint(tmp_path / "run", 12)
    with pytest.raises(DataError, match=r"lower finetune\.base_lr"):
        compare(tmp_path, "jobs=3", "finetune.base_lr=1e30")
    assert not (tmp_path / "out" / "compare.json").exists()


def save_weights(url: str, seed: int) -> None:
    """A .pth of a tiny encoder; of every seed with as many bytes."""
    torch.manual_seed(seed)
    buffer = io.BytesIO()
    torch.save({"model": MaskedAutoencoder(MODEL).state_dict()}, buffer)
    storage.write_bytes(url, buffer.getvalue())


def rows_of_two_files_at_one_url(root: Path, url: str) -> list[dict[str, Any]]:
    """`compare` of a weights file, again, and once more after another of its size has taken its place."""
    config = root / "compare.toml"
    config.write_text(
        f'[weights]\nother = "{url}"\n[data]\npath = "{root / "set"}"\n[out]\nurl = "{root / "out"}"\n'
    )
    rows, sizes = [], set()
    command = str(config), [*TINY, "finetune.epochs=1"]
    for seed in (0, 0, 1):
        save_weights(url, seed)
        sizes.add(storage.size(url))
        if seed:
            with pytest.raises(ConfigError, match="its content has changed"):
                compare_command(*command, quiet=True)
        assert compare_command(*command, quiet=True, force=bool(seed)) == 0
        rows.append(json.loads((root / "out" / "other" / "metrics.json").read_text()))
    assert len(sizes) == 1
    return rows


def check_rows(rows: Sequence[dict[str, Any]]) -> None:
    """The first two are one evaluation, the third is of the other weights, from features to scores."""
    first, again, other = rows
    assert again == first
    assert other["checkpoint"]["sha256"] != first["checkpoint"]["sha256"]
    for what in ("per_class", "probe"):
        assert other[what] != first[what], what


def test_another_file_of_the_same_size_at_a_remote_url_is_another_row(tmp_path: Path) -> None:
    class_folders(tmp_path / "set", shade=8)
    check_rows(rows_of_two_files_at_one_url(tmp_path, "memory://compare/weights.pth"))


def test_rows_of_a_set_that_was_moved_are_not_run_again_and_of_changed_images_are(
    done: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(done.parent, tmp_path / "root")
    stamps = {p.parent.name: p.stat().st_mtime_ns for p in (root / "out").glob("*/metrics.json")}
    shutil.move(root / "set", root / "moved")
    compare(root, f"data.path={root}/moved")
    assert {p.parent.name: p.stat().st_mtime_ns for p in (root / "out").glob("*/metrics.json")} == stamps
    image = root / "moved" / "MH" / "MH_0.jpg"
    size, pixels = image.stat().st_size, image.read_bytes()
    other = next(d for seed in range(1000) if len(d := image_bytes(1, 5000 + seed)) == size and d != pixels)
    image.write_bytes(other)
    with pytest.raises(ConfigError, match=r"data are .*set there and .*moved here"):
        compare(root, f"data.path={root}/moved")
    compare(root, f"data.path={root}/moved", force=True)
    again = {p.parent.name: p.stat().st_mtime_ns for p in (root / "out").glob("*/metrics.json")}
    assert all(again[name] != stamps[name] for name in again)


def test_every_row_without_the_layers_of_lora_is_listed_before_anything_is_read(tmp_path: Path) -> None:
    lora = ["finetune.method=lora", 'finetune.lora_targets=["query"]']
    with pytest.raises(WeightsError) as caught:
        # The set does not exist: reading it would be another error.
        compare(tmp_path, "weights={a = 'none', b = 'none'}", *lora)
    assert [line for line in str(caught.value).splitlines() if "'query' is no layer" in line][1].startswith(
        "  weights.b: finetune.lora_targets: "
    )
