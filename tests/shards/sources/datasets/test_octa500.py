"""OCTA-500: volumes, diseases and eyes, and what a partial download lacks."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.shards.pack_inputs import write_image
from tests.shards.published_layouts import list_source, write_labels_xlsx, write_octa500


def test_octa500_gives_every_slice_its_volume_and_disease_and_names_what_is_missing(tmp_path: Path) -> None:
    root = write_octa500(tmp_path / "OCTA-500")
    write_labels_xlsx(root / "OCTA_6mm" / "Text labels.xlsx")
    found = list_source("octa500", root)
    assert len(found.scans) == 12
    first = found.scans[-1]
    assert (first.volume, first.slice, first.patient, first.label, first.eye) == (
        "10002",
        10,
        "10002",
        "NORMAL",
        "L",
    )
    notes = "\n".join(found.notes)
    assert "OCTA_6mm: 298 of 300 volumes missing: 10003, 10004" in notes
    assert "OCTA_3mm: 2 volumes without all their slices: 10301 (3 of 304)" in notes
    assert "labels of 3 of 500 volumes" in notes


def test_a_whole_octa500_volume_is_not_called_short(tmp_path: Path) -> None:
    source = write_image(tmp_path / "one.bmp")
    folder = tmp_path / "set" / "OCTA_3mm" / "OCT" / "10500"
    folder.mkdir(parents=True)
    for place in range(1, 305):
        shutil.copy(source, folder / f"{place}.bmp")
    assert not any("without all" in note for note in list_source("octa500", tmp_path / "set").notes)
