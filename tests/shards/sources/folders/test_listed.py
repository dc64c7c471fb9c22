"""A list of files as a source: every field, missing files, and paths that lead out."""

from __future__ import annotations

from pathlib import Path

import pytest

from retfound_dist.errors import DataError
from tests.shards.pack_inputs import write_image
from tests.shards.published_layouts import list_source


def test_a_csv_list_gives_every_field_and_says_which_files_are_not_there(tmp_path: Path) -> None:
    write_image(tmp_path / "c" / "x" / "1.png")
    listing = tmp_path / "c" / "list.csv"
    listing.write_text(
        "file,label,patient,eye,volume,slice,split\nx/1.png,A,p1,L,v1,4,val\nx/2.png,B,p2,,,,\n"
    )
    found = list_source("csv", listing)
    scan = found.scans[0]
    assert (scan.label, scan.patient, scan.eye, scan.volume, scan.slice, scan.split) == (
        "A",
        "p1",
        "L",
        "v1",
        4,
        "val",
    )
    assert found.notes[0].startswith("list.csv: file <- 'file', label <- 'label', patient <- 'patient'")
    assert found.notes[1:] == (
        "list.csv: volume is given for 1 of 2 files",
        "list.csv: 1 of 2 listed files do not exist: x/2.png",
    )


def test_a_csv_list_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    write_image(tmp_path / "secret.png")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "list.csv").write_text("file\n../secret.png\n")
    with pytest.raises(DataError, match="leads out of its folder"):
        list_source("csv", tmp_path / "c" / "list.csv").scans[0].read()
