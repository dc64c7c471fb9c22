"""Duke DME: slices keep their levels, and missing subjects and slices are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from shards.sources.datasets.duke_dme import list_duke_dme
from tests.shards.pack_inputs import scan_pixels
from tests.shards.published_layouts import list_source, write_duke


def test_duke_slices_keep_their_own_levels_and_missing_subjects_are_named(tmp_path: Path) -> None:
    found = list_source("duke_dme", write_duke(tmp_path / "duke"))
    assert len(found.scans) == 122
    assert found.notes == (
        "8 of 10 subjects missing: Subject_02, Subject_03, Subject_04, Subject_05, Subject_06 and 3 more",
    )
    scan = found.scans[61 + 7]
    assert (scan.patient, scan.slice, scan.label) == ("Subject_10", 7, "DME")
    assert (np.asarray(scan.read()) == scan_pixels(1007, 48, 40)).all()


def test_a_duke_subject_with_too_few_slices_is_named(tmp_path: Path) -> None:
    found = list_source("duke_dme", write_duke(tmp_path / "duke", (3,), slices=5))
    assert "Subject_03: 5 of 61 slices" in found.notes


def test_a_linked_subject_is_read_where_links_may_lead_anywhere(tmp_path: Path) -> None:
    write_duke(tmp_path / "elsewhere")
    (tmp_path / "duke").mkdir()
    for file in (tmp_path / "elsewhere").rglob("Subject_*.mat"):
        (tmp_path / "duke" / file.name).symlink_to(file)
    listing = list_duke_dme(str(tmp_path / "duke"), links="anywhere")
    assert len(listing.scans) == 122
    assert np.asarray(listing.scans[0].read()).shape == (48, 40)
