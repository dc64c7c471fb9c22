"""`retfound predict` gives the evaluation's probabilities again, whatever the options, and refuses mistakes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.evaluate.inputs import CLASSES, checkpoint, class_folders
from tests.prediction.inputs import predict, read_rows

PROBABILITIES = [f"p_{name}" for name in CLASSES]


def test_the_test_part_gets_the_probabilities_of_predictions_csv_again(kept: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.csv"
    assert predict(kept / "out/classifier", kept / "set", "--out", out, "--uncalibrated", "--quiet") == 0
    rows, expected = read_rows(out), read_rows(kept / "out/predictions.csv")
    assert len(rows) == 90
    assert 0 < len(expected) < 90
    for key, row in expected.items():
        for name in ("patient", "predicted", *PROBABILITIES):
            assert rows[key][name] == row[name]
    assert not (tmp_path / "p.csv.parts").exists()


def test_calibrated_probabilities_are_those_at_the_temperature(kept: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(kept / "out/classifier", tmp_path / "classifier"))
    tree = json.loads((copy / "classifier.json").read_text())
    (copy / "classifier.json").write_text(json.dumps(tree | {"temperature": {"value": 0.5}}))
    for name, more in (("raw", ["--uncalibrated"]), ("calibrated", [])):
        assert predict(copy, kept / "set", "--out", tmp_path / f"{name}.csv", "--quiet", *more) == 0
    raw, calibrated = read_rows(tmp_path / "raw.csv"), read_rows(tmp_path / "calibrated.csv")
    for key, row in raw.items():
        p = np.array([float(row[name]) for name in PROBABILITIES]) ** 2
        values = np.array([float(calibrated[key][name]) for name in PROBABILITIES])
        np.testing.assert_allclose(values, p / p.sum(), atol=2e-8)
        assert calibrated[key]["predicted"] == row["predicted"]
        entropy = -(values * np.log(values)).sum() / np.log(3)
        np.testing.assert_allclose(float(calibrated[key]["entropy"]), entropy, atol=1e-7)


def test_the_parts_of_all_shards_joined_are_the_whole_file(kept: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole.csv"
    assert predict(kept / "out", kept / "set", "--out", whole, "--quiet") == 0
    texts = []
    for index in (1, 2, 3):
        out = tmp_path / f"part{index}.csv"
        assert predict(kept / "out", kept / "set", "--out", out, "--shard", f"{index}/3", "--quiet") == 0
        head, _, rows = out.read_text().partition("\n")
        assert rows.count("\n") == 30
        texts.append(rows)
    assert f"{head}\n{''.join(texts)}" == whole.read_text()


def test_several_workers_give_the_same_file(kept: Path, tmp_path: Path) -> None:
    for workers in (1, 2):
        out = tmp_path / f"{workers}.csv"
        assert predict(kept / "out", kept / "set", "--out", out, "--workers", str(workers), "--quiet") == 0
    assert (tmp_path / "1.csv").read_bytes() == (tmp_path / "2.csv").read_bytes()


def test_an_own_file_is_replaced_and_another_file_only_with_force(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "p.csv"
    out.write_text("key,age\n1,2\n")
    arguments: list[str | Path] = [kept / "out", kept / "set/MH", "--out", out, "--quiet"]
    assert predict(*arguments) == 2
    assert "was not written by `retfound predict`" in capsys.readouterr().err
    assert out.read_text() == "key,age\n1,2\n"
    assert predict(*arguments, "--force") == 0
    first = out.read_bytes()
    assert predict(*arguments) == 0
    assert out.read_bytes() == first


def test_a_checkpoint_is_refused_with_the_line_to_type(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = checkpoint(tmp_path / "run", 3)
    for given in (url, str(tmp_path / "run")):
        assert predict(given, kept / "set", "--out", tmp_path / "p.csv", "--quiet") == 2
        error = capsys.readouterr().err
        assert len(error.splitlines()) == 1
        assert f"retfound evaluate configs/evaluate_octid.toml checkpoint={given} data.path=" in error
    assert not (tmp_path / "p.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{set}", "--out", "{out}", "--shard", "3/2"], "--shard 3/2: give I/N"),
        (["{set}", "--out", "{out}", "--shard", "half"], "--shard half: give I/N"),
        (["{set}", "--out", "{out}.txt"], "give a name that ends in .csv or .parquet"),
        (["{set}", "--out", "{out}", "--workers", "-1"], "--workers -1"),
        (["{set}/nothing", "--out", "{out}"], "does not exist"),
        (["{set}", "{set}/MH", "--out", "{out}"], "is not a single image or device file"),
        (["s3x://bucket/images", "--out", "{out}"], "s3x"),
    ],
)
def test_a_mistake_gets_one_line_and_exit_2(
    arguments: list[str], message: str, kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled = [text.format(set=kept / "set", out=tmp_path / "p.csv") for text in arguments]
    assert predict(kept / "out", *filled, "--quiet") == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1, error
    assert message in error
    assert list(tmp_path.iterdir()) == []


def test_the_command_hides_no_function_of_the_package() -> None:
    import retfound_dist
    import retfound_dist.prediction.predict_command

    # A folder called `predict` would replace the function of this name as soon as it is imported.
    assert callable(retfound_dist.predict)


def test_unreadable_images_are_rows_with_a_reason_and_over_the_budget_nothing_is_written(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = class_folders(tmp_path / "set", each=2)
    for name in ("CSR/CSR_0.jpg", "MH/MH_1.jpg"):
        (images / name).write_bytes(b"x")
    out = tmp_path / "p.csv"
    assert predict(kept / "out", images, "--out", out, "--bad-sample-budget", "1", "--quiet") == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "(CSR/CSR_0.jpg: is not a JPEG" in error
    assert not out.exists()
    assert predict(kept / "out", images, "--out", out) == 0
    assert "6 images, 2 cannot be read" in capsys.readouterr().out
    rows = read_rows(out)
    assert [key for key, row in rows.items() if row["reason"]] == ["CSR/CSR_0.jpg", "MH/MH_1.jpg"]
    assert rows["MH/MH_1.jpg"]["predicted"] == rows["MH/MH_1.jpg"]["p_MH"] == ""
    assert rows["MH/MH_1.jpg"]["entropy"] == rows["MH/MH_1.jpg"]["seed_spread"] == ""


def test_labels_that_are_no_class_are_named(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = class_folders(tmp_path / "set", each=1, classes=("MH", "NEW"))
    assert predict(kept / "out", images, "--out", tmp_path / "p.csv") == 0
    assert "note: labels that are no class of the classifier: NEW" in capsys.readouterr().out


def test_real_device_files_get_patient_eye_volume_and_slice(
    kept: Path, tmp_path: Path, test_data: Path
) -> None:
    out = tmp_path / "p.csv"
    assert predict(kept / "out", test_data / "device", "--out", out, "--quiet") == 0
    rows = read_rows(out)
    # 23 B-scans, and a picture that is in no export.
    assert len(rows) == 24
    assert sum(bool(row["patient"] and row["volume"] and row["slice"]) for row in rows.values()) == 23
    assert {row["eye"] for row in rows.values() if row["volume"]} == {"R"}
    assert all(row["predicted"] in CLASSES for row in rows.values())


def test_more_parts_than_images_give_tables_without_rows(kept: Path, tmp_path: Path) -> None:
    images, out = class_folders(tmp_path / "set", each=1), tmp_path / "p.csv"
    counts = []
    for index in range(1, 6):
        for name in (out, out.with_suffix(".parquet")):
            part = f"{index}/5"
            assert predict(kept / "out", images, "--out", name, "--shard", part, "--quiet") == 0
        counts.append(len(read_rows(out)))
    assert sorted(counts) == [0, 0, 1, 1, 1]


def test_a_classifier_of_another_version_or_with_changed_weights_is_refused(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    later = Path(shutil.copytree(kept / "out/classifier", tmp_path / "later"))
    tree = json.loads((later / "classifier.json").read_text())
    (later / "classifier.json").write_text(json.dumps(tree | {"format": 2}))
    changed = Path(shutil.copytree(kept / "out/classifier", tmp_path / "changed"))
    weights = next(changed.glob("seed_1-*"))
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    for folder, message in ((later, "format 2"), (changed, "differs from classifier.json")):
        assert predict(folder, kept / "set", "--out", tmp_path / "p.csv", "--quiet") == 2
        error = capsys.readouterr().err
        assert len(error.splitlines()) == 1
        assert message in error
    assert not (tmp_path / "p.csv").exists()
