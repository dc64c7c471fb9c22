"""OCTID: the label from folder or file name, counts against the published ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.shards.pack_inputs import write_image
from tests.shards.published_layouts import list_source


@pytest.mark.parametrize(
    ("file", "label"),
    [
        ("NORMAL/NORMAL1.jpeg", "NORMAL"),
        ("train/ANORMAL/x.jpg", "NORMAL"),
        ("MH (12).jpg", "MH"),
        ("AMRD33.jpg", "AMRD"),
        ("test/CSR/1.jpg", "CSR"),
        ("DR107.jpeg", "DR"),
        ("notes/readme1.png", None),
    ],
)
def test_octid_labels_come_from_folder_or_name(tmp_path: Path, file: str, label: str | None) -> None:
    write_image(tmp_path / "o" / file)
    write_image(tmp_path / "o" / "NORMAL" / "NORMAL206.jpeg", 5)
    found = {scan.origin: scan.label for scan in list_source("octid", tmp_path / "o").scans}
    assert found.get(file) == label


def test_octid_says_what_differs_from_the_572_published(tmp_path: Path) -> None:
    write_image(tmp_path / "o" / "MH" / "MH1.jpg")
    write_image(tmp_path / "o" / "logo.png", 3)
    notes = list_source("octid", tmp_path / "o").notes
    assert notes[0].startswith("1 images found, 572 published: AMRD 0 of 55")
    assert notes[1] == "1 files ignored (no class in folder or name): logo.png"
