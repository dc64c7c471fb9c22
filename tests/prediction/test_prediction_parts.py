"""Parts are used again only for the same images and the same classifier."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from retfound_dist.prediction.input_images import InputImage, ScanFacts
from retfound_dist.prediction.prediction_parts import PartFolder, PredictedPart

IMAGES = [InputImage(key, bytes) for key in "ab"]
PART = PredictedPart(
    [ScanFacts("p", "L", "v", 3), ScanFacts()],
    np.array([[[0.25, 0.75], [np.nan, np.nan]]]),
    ["", "is dark ü"],
    ["1", "2"],
)


def test_a_part_is_read_as_it_was_written(tmp_path: Path) -> None:
    out = str(tmp_path / "p.csv")
    PartFolder(out, "x").write(IMAGES, PART)
    part = PartFolder(out, "x").read(IMAGES)
    assert part is not None
    assert (part.facts, part.reasons, part.identities) == (PART.facts, PART.reasons, PART.identities)
    np.testing.assert_array_equal(part.probabilities_SNC, PART.probabilities_SNC)


def test_other_images_or_another_classifier_have_no_part(tmp_path: Path) -> None:
    out = str(tmp_path / "p.csv")
    PartFolder(out, "x").write(IMAGES, PART)
    assert PartFolder(out, "y").read(IMAGES) is None
    assert PartFolder(out, "x").read(IMAGES[:1]) is None
    assert PartFolder(out, "x").read(IMAGES[::-1]) is None


def test_a_damaged_part_is_not_used(tmp_path: Path) -> None:
    out = str(tmp_path / "p.csv")
    PartFolder(out, "x").write(IMAGES, PART)
    (file,) = (tmp_path / "p.csv.parts").iterdir()
    data = file.read_bytes()
    for place in range(0, len(data), 7):
        file.write_bytes(data[:place])
        assert PartFolder(out, "x").read(IMAGES) is None
    file.write_bytes(data.replace(b"is dark", b"is Dark"))
    assert PartFolder(out, "x").read(IMAGES) is None


def test_files_of_a_user_in_the_folder_stay(tmp_path: Path) -> None:
    folder = PartFolder(str(tmp_path / "p.csv"), "x")
    folder.write(IMAGES, PART)
    (tmp_path / "p.csv.parts/notes.txt").write_text("x")
    folder.delete()
    assert [path.name for path in (tmp_path / "p.csv.parts").iterdir()] == ["notes.txt"]


def test_a_part_that_another_process_has_just_deleted_is_made_again(tmp_path: Path) -> None:
    folder = PartFolder(str(tmp_path / "p.csv"), "x")
    folder.write(IMAGES, PART)
    other = PartFolder(str(tmp_path / "p.csv"), "x")
    folder.delete()
    assert other.read(IMAGES) is None
