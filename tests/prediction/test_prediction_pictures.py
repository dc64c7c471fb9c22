"""`--heatmaps` and `--html` of the command."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from tests.browser import assert_fits
from tests.evaluate.inputs import CLASSES, class_folders, image_bytes
from tests.export.inputs import make_classifier
from tests.prediction.inputs import predict, read_rows


def test_every_readable_image_gets_a_picture_once(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in range(3):
        (images / f"{number}.jpg").write_bytes((kept / "set/MH" / f"MH_{number}.jpg").read_bytes())
    (images / "cut.jpg").write_bytes((images / "0.jpg").read_bytes()[:200])
    options = ["--out", tmp_path / "p.csv", "--heatmaps", tmp_path / "maps"]
    assert predict(kept / "out", images, *options) == 0
    files = sorted((tmp_path / "maps").iterdir())
    assert [file.name[:5] for file in files] == ["0.jpg", "1.jpg", "2.jpg"]
    assert Image.open(files[0]).size == (28 + 4 + 28, 28)
    assert "3 new heat maps" in "".join(capsys.readouterr())
    stamps = [file.stat().st_mtime_ns for file in files]
    files[1].unlink()
    assert predict(kept / "out", images, *options) == 0
    assert "1 new heat map" in "".join(capsys.readouterr())
    assert files[0].stat().st_mtime_ns == stamps[0]
    assert files[1].exists()


def test_a_picture_of_other_content_or_of_another_classifier_is_replaced(kept: Path, tmp_path: Path) -> None:
    other = make_classifier(tmp_path / "other" / "classifier")
    images = class_folders(tmp_path / "images", each=2)
    options = ["--out", tmp_path / "p.csv", "--heatmaps", tmp_path / "maps", "--quiet"]

    def drawn_anew(classifier: str | Path) -> list[str]:
        before = set((tmp_path / "maps").glob("*"))
        assert predict(classifier, images, *options) == 0
        after = set((tmp_path / "maps").iterdir())
        assert len(after) == 6
        return sorted(path.name.rpartition(".jpg-")[0] for path in after - before)

    every = sorted(f"{name}_{name}_{n}" for name in CLASSES for n in range(2))
    assert drawn_anew(kept / "out") == every
    assert drawn_anew(kept / "out") == []
    (images / "MH/MH_1.jpg").write_bytes(image_bytes(0, 99))
    assert drawn_anew(kept / "out") == ["MH_MH_1"]
    assert drawn_anew(other) == every


def test_names_that_are_not_utf8_get_pictures_and_a_place_on_the_page(kept: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / os.fsdecode(b"caf\xe9.jpg")).write_bytes(image_bytes(0, 1))
    options = ["--out", tmp_path / "p.csv", "--heatmaps", tmp_path / "maps", "--html", tmp_path / "p.html"]
    assert predict(kept / "out", images, *options, "--quiet") == 0
    assert len(list((tmp_path / "maps").iterdir())) == 1
    assert r"caf\udce9.jpg" in (tmp_path / "p.html").read_text()


@pytest.mark.cluster
def test_the_page_opens_on_a_phone_and_on_a_desk_without_complaint(kept: Path, tmp_path: Path) -> None:
    images = tmp_path / ("a_long_name_without_a_place_to_break_" * 5)
    shutil.copytree(kept / "set", images)
    (images / "cut.jpg").write_bytes(image_bytes(0, 1)[:200])
    assert predict(kept / "out", images, "--out", tmp_path / "p.csv", "--html", tmp_path / "p.html") == 0
    assert_fits(tmp_path / "p.html", tmp_path, images=90)


def test_the_page_shows_the_least_certain_images_first(kept: Path, tmp_path: Path) -> None:
    page = tmp_path / "p.html"
    options = ["--out", tmp_path / "p.csv", "--html", page, "--html-images", "5", "--quiet"]
    assert predict(kept / "out", kept / "set", *options) == 0
    rows = read_rows(tmp_path / "p.csv")
    by_entropy = sorted(rows, key=lambda key: -float(rows[key]["entropy"]))[:5]
    shown = re.findall(r'<p class="note">([^<]+\.jpg)', page.read_text())
    assert [float(rows[key]["entropy"]) for key in shown] == [float(rows[k]["entropy"]) for k in by_entropy]
    assert f"The 5 least certain of {len(rows)} images" in page.read_text()
    counts = Counter(row["predicted"] for row in rows.values())
    for name in CLASSES:
        assert f"<th>{name}</th><td>{counts[name]}</td>" in page.read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--html", "page.txt"], "give a name that ends in .html"),
        (["--html", "page.html", "--html-images", "0"], "--html-images 0: give 1 or more"),
        (["--heatmaps", "file"], "is a file: give a folder"),
        (["--html", "other.html"], "other.html"),
    ],
)
def test_a_picture_that_cannot_be_written_is_refused_before_the_work(
    kept: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("x")
    Path("other.html").write_text("<html>of a person</html>")
    assert predict(kept / "out", kept / "set", "--out", "p.csv", *options) == 2
    assert message in capsys.readouterr().err
    assert not Path("p.csv").exists()
    assert Path("other.html").read_text() == "<html>of a person</html>"
