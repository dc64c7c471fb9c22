"""`--unit`: a row for each volume, eye or patient, with the probabilities of the evaluation."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from tests.evaluate.made import evaluated
from tests.evaluate.volumes import LABELS, eye_volumes
from tests.prediction.inputs import predict, read_rows

PROBABILITIES = [f"p_{name}" for name in LABELS]


@pytest.fixture(scope="module", params=["mean", "attention"])
def eyes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a set of small volumes (`set`) and its evaluation by eye (`out`), and how it pools."""
    root = tmp_path_factory.mktemp("eyes")
    eye_volumes(root / "set", patients=10, slices=3)
    settings = ("data.unit=eye", f"finetune.pool={request.param}", "seeds=[0, 1]", "probe.enabled=false")
    evaluated(root, "none", *settings, "finetune.epochs=1")
    return root, request.param


def test_eyes_get_the_probabilities_of_predictions_csv_again(
    eyes: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, pool = eyes
    out = tmp_path / "p.csv"
    assert predict(root / "out", root / "set", "--out", out, "--uncalibrated", "--unit", "eye") == 0
    rows, expected = read_rows(out), read_rows(root / "out/predictions.csv")
    assert len(rows) == 20
    for key, row in expected.items():
        assert [rows[key][name] for name in PROBABILITIES] == [row[name] for name in PROBABILITIES]
        assert rows[key]["predicted"] == row["predicted"]
        assert rows[key]["patient"] == row["patient"]
    first = rows["p00 L"]
    assert (first["eye"], first["volume"], first["slice"], first["images"]) == ("L", "v00L", "", "3")
    assert first["deciding"].count("p00_L_") == 3
    weights = [float(part.split("(")[1].rstrip(")")) for part in first["deciding"].split("; ")]
    assert weights == sorted(weights, reverse=True)
    if pool == "attention":
        assert sum(weights) == pytest.approx(1, abs=0.02)
    assert "20 eyes" in "".join(capsys.readouterr())


def test_an_interrupted_command_uses_its_parts_and_gives_the_same_file(
    eyes: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, _ = eyes
    options = ("--unit", "eye", "--quiet")
    assert predict(root / "out", root / "set", "--out", tmp_path / "whole.csv", *options) == 0
    with monkeypatch.context() as patch:
        # Stopped after all parts are stored, before the table is written.
        patch.setattr("retfound_dist.prediction.predict_command.predict_units", _interrupt)
        assert predict(root / "out", root / "set", "--out", tmp_path / "p.csv", *options) == 130
    assert list((tmp_path / "p.csv.parts").iterdir())
    assert predict(root / "out", root / "set", "--out", tmp_path / "p.csv", *options) == 0
    assert (tmp_path / "p.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert not (tmp_path / "p.csv.parts").exists()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_unreadable_images_do_not_count_and_are_named(eyes: tuple[Path, str], tmp_path: Path) -> None:
    root, _ = eyes
    eye_volumes(tmp_path / "set", patients=2, slices=3)
    for name in ("p00_L_1.png", *(f"p01_R_{place}.png" for place in range(3))):
        (tmp_path / "set" / name).write_bytes(b"no image")
    out = tmp_path / "p.csv"
    assert predict(root / "out", tmp_path / "set", "--out", out, "--unit", "eye", "--quiet") == 0
    rows = read_rows(out)
    assert [rows[key]["images"] for key in ("p00 L", "p00 R", "p01 L", "p01 R")] == [
        "2 of 3",
        "3",
        "3",
        "0 of 3",
    ]
    assert rows["p01 R"]["predicted"] == ""
    assert rows["p01 R"]["reason"]
    assert rows["p00 L"]["reason"] == ""
    assert "p00_L_1" not in rows["p00 L"]["deciding"]
    values = np.array([[float(rows["p00 L"][name]) for name in PROBABILITIES]])
    assert values.sum() == pytest.approx(1, abs=1e-6)


def test_images_whose_eye_is_not_known_are_rows_of_their_own_and_named(
    eyes: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, _ = eyes
    folder = eye_volumes(tmp_path / "set", patients=2, slices=2)
    with (folder / "manifest.csv").open() as file:
        listed = list(csv.DictReader(file))
    for row in listed[:2]:
        row |= {"patient": "", "eye": "", "volume": ""}
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, listed[0])
        writer.writeheader()
        writer.writerows(listed)
    assert predict(root / "out", folder, "--out", tmp_path / "p.csv", "--unit", "eye") == 0
    shown = "".join(capsys.readouterr())
    assert "2 images without a known eye" in shown
    assert len(read_rows(tmp_path / "p.csv")) == 5


def test_a_unit_that_nothing_knows_and_a_part_of_the_images_are_refused(
    eyes: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, _ = eyes
    folder = eye_volumes(tmp_path / "set", patients=1, slices=2)
    (folder / "manifest.csv").unlink()
    out = tmp_path / "p.csv"
    assert predict(root / "out", folder, "--out", out, "--unit", "patient") == 2
    assert "no image has a known patient: give a list with the column patient" in capsys.readouterr().err
    assert predict(root / "out", folder, "--out", out, "--unit", "eye", "--shard", "1/2") == 2
    assert "may be in two parts" in capsys.readouterr().err
    assert not out.exists()


def test_another_unit_than_that_of_the_evaluation_is_said(
    eyes: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, _ = eyes
    assert predict(root / "out", root / "set", "--out", tmp_path / "images.csv") == 0
    assert "scored by eye, and its temperature was fitted there" in "".join(capsys.readouterr())
    assert predict(root / "out", root / "set", "--out", tmp_path / "p.csv", "--unit", "patient") == 0
    assert "probabilities by patient may be too low" in "".join(capsys.readouterr())
    assert len(read_rows(tmp_path / "p.csv")) == 10
