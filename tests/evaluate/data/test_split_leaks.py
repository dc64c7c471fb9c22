"""A split that leaks is refused, or warned of where a person insists."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from retfound_dist.cli import main
from retfound_dist.config.schema import EvalData
from retfound_dist.errors import DataError
from retfound_dist.evaluate.data.set_loading import load_labelled_set
from tests.evaluate.inputs import CLASSES, TINY, class_folders, octid_folders, shard_set, write_listing


def config(path: Path, allow_leak: bool = False) -> EvalData:
    return EvalData(path=str(path), allow_leak=allow_leak)


def leaky_shards(root: Path, patients: int = 2) -> Path:
    """Each class's patients stand in train and in test."""
    samples = [
        {"key": f"{c}_{i}", "label": c, "patient": f"{c}{i % patients}", "split": ("train", "test")[i // 4]}
        for c in CLASSES
        for i in range(8)
    ]
    return shard_set(root, samples)


def test_a_patient_in_two_parts_of_a_given_split_is_refused_by_name(tmp_path: Path) -> None:
    root = leaky_shards(tmp_path / "s", patients=1)
    with pytest.raises(DataError) as caught:
        load_labelled_set(config(root), 28)
    assert (
        "3 patients are in more than one part "
        "(CSR0 in train and test, MH0 in train and test, NORMAL0 in train and test)"
    ) in str(caught.value)
    assert "--allow-leak" in str(caught.value)


def test_no_more_than_five_patients_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"6 patients .*\(CSR0 in [^,]*, CSR1 [^,]*, MH0 [^,]*, MH1 [^,]*, "
                       r"NORMAL0 [^,]*, \.\.\.\)") as caught:  # fmt: skip
        load_labelled_set(config(leaky_shards(tmp_path / "s")), 28)
    assert "NORMAL1" not in str(caught.value)


def test_the_same_pixels_in_two_parts_of_a_given_split_are_refused(tmp_path: Path) -> None:
    root = octid_folders(tmp_path)
    shutil.copy(root / "train" / "MH" / "2.jpg", root / "test" / "MH" / "copy.jpg")
    with pytest.raises(DataError, match=r"1 identical image is .*\(train/MH/2.jpg = test/MH/copy.jpg in "):
        load_labelled_set(config(root), 28)


def test_a_leak_that_is_insisted_on_is_a_warning(tmp_path: Path) -> None:
    data = load_labelled_set(config(leaky_shards(tmp_path / "s"), allow_leak=True), 28)
    assert len(data.warnings) == 1
    assert data.warnings[0].startswith("6 patients are in more than one part")


def test_the_same_pixels_in_a_split_of_ours_are_a_warning(tmp_path: Path) -> None:
    root = class_folders(tmp_path)
    for i in range(8):
        shutil.copy(root / "MH" / "MH_0.jpg", root / "MH" / f"copy_{i}.jpg")
    (warning,) = load_labelled_set(config(root), 28).warnings
    assert "1 identical image is in more than one part" in warning


@pytest.mark.parametrize("command", ["evaluate", pytest.param("compare", marks=pytest.mark.slow)])
def test_the_flag_insists_and_the_warning_reaches_metrics_and_page(
    tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = ("train", "train", "val", "test")
    write_listing(
        class_folders(tmp_path / "set", each=4),
        [
            {"file": f"{c}/{c}_{i}.jpg", "label": c, "patient": f"{c}{max(i, 1)}", "split": parts[i]}
            for c in CLASSES
            for i in range(4)
        ]
        + [{"file": "MH/extra.jpg", "label": "MH", "patient": "MH3", "split": "train"}],
    )
    shutil.copy(tmp_path / "set" / "CSR" / "CSR_0.jpg", tmp_path / "set" / "MH" / "extra.jpg")
    row = 'checkpoint = "none"' if command == "evaluate" else 'weights.scratch = "none"'
    config = tmp_path / "c.toml"
    config.write_text(f'{row}\n[data]\npath = "{tmp_path / "set"}"\n[out]\nurl = "{tmp_path / "out"}"\n')
    assert main([command, str(config), *TINY, "--quiet"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "1 patient is in more than one part (MH3 in train and test)" in said
    assert not (tmp_path / "out").exists()
    settings = [*TINY, "finetune.epochs=1", "probe.enabled=false"]
    assert main([command, str(config), *settings, "--quiet", "--allow-leak"]) == 0
    folder = tmp_path / "out" if command == "evaluate" else tmp_path / "out" / "scratch"
    assert "1 patient is in more than one part" in (folder / "metrics.json").read_text()
    assert "1 patient is in more than one part" in (tmp_path / "out" / "report.html").read_text()
