"""A group's own Topcon scans: images and raw exports, by part."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from tests.shards.device_files import scan_stack, write_topcon
from tests.shards.pack_inputs import write_image
from tests.shards.published_layouts import list_source


def test_topcon_counts_its_parts(tmp_path: Path) -> None:
    for part, count in (("train", 3), ("val", 1), ("test", 1)):
        for number in range(count):
            write_image(tmp_path / "t" / part / f"{number}.png", number)
    found = list_source("topcon", tmp_path / "t")
    assert found.notes == ("5 images found, 1,280 published: test 1 of 256, train 3 of 768, val 1 of 256",)


def test_topcon_reads_raw_exports_beside_images_and_names_the_broken_ones(tmp_path: Path) -> None:
    write_image(tmp_path / "t" / "train" / "1.png")
    for part, name in (("val", "a.fda"), ("test", "b.fds")):
        (tmp_path / "t" / part).mkdir()
        write_topcon(tmp_path / "t" / part / name, "@IMG_SCAN_03", scan_stack(2).astype(np.uint16))
    (tmp_path / "t" / "test" / "cut.fds").write_bytes((tmp_path / "t" / "test" / "b.fds").read_bytes()[:-50])
    (tmp_path / "t" / "test" / "export.xml").write_text("<x/>")
    found = list_source("topcon", tmp_path / "t")
    assert Counter(scan.split for scan in found.scans) == {"train": 1, "val": 2, "test": 3}
    assert {scan.source for scan in found.scans} == {"topcon"}
    assert found.notes[1:3] == ("3 files, 3 volumes", "1 files cannot be read")
    assert found.notes[3].startswith("experimental: the reader of .fda, .fds files")
    assert found.notes[4:] == ("passed over: 1 file .xml: not an image",)
