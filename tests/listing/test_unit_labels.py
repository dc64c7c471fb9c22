"""Labels that stand on the volume, the eye or the patient alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from retfound_dist.config.schema import EvalData
from retfound_dist.errors import DataError
from retfound_dist.evaluate.data.set_loading import load_labelled_set
from retfound_dist.listing.unit_labels import read_unit_labels
from retfound_dist.listing.unit_names import NamedImage
from tests.evaluate.volumes import eye_volumes

IMAGES = [
    NamedImage("a", "p", "v", "R"),
    NamedImage("b", "p", "v", "R"),
    NamedImage("c", "p", "w", "L"),
    NamedImage("d", "q", "x", "R"),
]


def table(tmp_path: Path, text: str) -> str:
    """A CSV's path."""
    (tmp_path / "labels.csv").write_text(text)
    return str(tmp_path / "labels.csv")


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("volume,label\nv,AMD\nx,NORMAL\n", ["AMD", "AMD", "", "NORMAL"]),
        ("patient,eye,label\np,OD,AMD\np,OS,DR\nq,right,DR\n", ["AMD", "AMD", "DR", "DR"]),
        ("Patient ID;Diagnosis\np;AMD\n", ["AMD", "AMD", "AMD", ""]),
        ("patient,volume,eye,label\np,v,L,AMD\n", ["AMD", "AMD", "", ""]),
    ],
)
def test_each_image_gets_the_label_of_its_unit(text: str, labels: list[str], tmp_path: Path) -> None:
    assert read_unit_labels(table(tmp_path, text)).match(IMAGES, "set")[0] == labels


def test_what_does_not_match_is_counted_and_named(tmp_path: Path) -> None:
    labels = read_unit_labels(table(tmp_path, "volume,label\nv,AMD\nelsewhere,DR\n"))
    assert labels.match(IMAGES, "set")[1] == (
        "2 of 4 images are left out: labels.csv has no label for their volume (first c)",
        "1 of 2 labels of labels.csv have no image: elsewhere",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("volume,label\nother,AMD\n", "none of its 1 labels is for an image of set.*for example v, w, x"),
        ("file,label\na.png,AMD\n", "must name volumes, eyes or patients, not files"),
        ("eye,label\nR,AMD\n", "must name volumes, eyes or patients"),
        ("volume,grade\nv,AMD\n", "no column 'label'"),
        ("volume,label\nv,AMD\nv,DR\n", "line 3: v has two labels, AMD and DR: keep one"),
        ("volume,label\nv,\n", "line 2: a cell is empty"),
        ("volume,label\n", "no rows|empty|no row"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message) as error:
        read_unit_labels(table(tmp_path, text)).match(IMAGES, "set")
    assert "\n" not in str(error.value)


def test_a_table_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.csv does not exist"):
        read_unit_labels(str(tmp_path / "nowhere.csv"))


def test_a_set_of_images_without_labels_is_labelled_by_eye(tmp_path: Path) -> None:
    folder = eye_volumes(tmp_path / "set", patients=10, slices=2)
    listing = folder / "manifest.csv"
    listing.write_text(listing.read_text().replace(",label,", ",x_label,", 1))
    rows = [f"p{i:02d},{eye},{('CSR', 'NORMAL')[i % 2]}" for i in range(9) for eye in "LR"]
    labels = table(tmp_path, "\n".join(["patient,eye,label", *rows]) + "\n")
    data = load_labelled_set(EvalData(path=str(folder), labels=labels, unit="eye"), 28)
    assert sum(map(len, data.parts.values())) == 36
    assert any("4 of 40 images are left out" in note for note in data.notes)
    for part in data.parts.values():
        assert all(
            data.classes[label] == ("CSR", "NORMAL")[int(key[1:3]) % 2]
            for key, label in zip(part.keys, part.labels, strict=True)
        )
