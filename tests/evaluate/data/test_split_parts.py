"""A split made by us is written down and used again."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from retfound_dist.config.schema import EvalData
from retfound_dist.errors import DataError
from retfound_dist.evaluate.data.set_loading import load_labelled_set
from retfound_dist.evaluate.results.evaluation_tables import split_csv
from retfound_dist.evaluate.scores import wording
from tests.evaluate.inputs import CLASSES, class_folders, image_bytes, list_patients, shard_set


def config(root: Path, **more: object) -> EvalData:
    return EvalData(path=str(root / "set"), split_file=str(root / "split.csv"), **more)  # type: ignore[arg-type]


def rows(root: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((root / "split.csv").open()))


def test_a_split_by_us_is_written_and_used_again_whatever_the_seed(tmp_path: Path) -> None:
    class_folders(tmp_path / "set")
    first = load_labelled_set(config(tmp_path), 28)
    assert {row["key"]: row["part"] for row in rows(tmp_path)} == {
        key: name for name, part in first.parts.items() for key in part.keys
    }
    again = load_labelled_set(config(tmp_path, split_seed=7, fractions=(0.2, 0.2, 0.6)), 28)
    assert again.split_source == "file"
    assert again.fingerprint == first.fingerprint
    fresh = load_labelled_set(EvalData(path=str(tmp_path / "set"), split_seed=7), 28)
    assert fresh.parts["test"].keys != first.parts["test"].keys


def test_an_evaluation_s_split_csv_is_a_split_file(tmp_path: Path) -> None:
    list_patients(class_folders(tmp_path / "set"))
    (tmp_path / "set" / "MH" / "MH_0.jpg").write_bytes(b"not an image")
    data = load_labelled_set(EvalData(path=str(tmp_path / "set")), 28)
    (tmp_path / "split.csv").write_text(split_csv(data))
    again = load_labelled_set(config(tmp_path, split_seed=7), 28)
    assert again.fingerprint == data.fingerprint
    assert [key for key, _ in again.skipped] == ["MH/MH_0.jpg"]


def test_a_file_of_other_images_is_refused(tmp_path: Path) -> None:
    class_folders(tmp_path / "set")
    load_labelled_set(config(tmp_path), 28)
    (tmp_path / "set" / "MH" / "new.jpg").write_bytes(image_bytes(1, 99))
    (tmp_path / "set" / "CSR" / "CSR_0.jpg").unlink()
    with pytest.raises(
        DataError,
        match=r"split.csv does not fit .*set: 1 of its images are not in the set \(CSR/CSR_0.jpg\); "
        r"1 images of the set are not in it \(MH/new.jpg\)",
    ):
        load_labelled_set(config(tmp_path), 28)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "file,label\na,train\n",
            "has no column 'part' \\(it has 'file', 'label'\\): its header must be such as key,part",
        ),
        ("key,part\na,training\n", "line 2: part 'training' is not one of train, val, test"),
        ("key,part\na,train\na,test\n", "line 3: a is in two parts"),
        ("", "is empty: its first line must be a header such as key,part"),
    ],
)
def test_a_file_that_is_no_split_gets_one_line(tmp_path: Path, text: str, says: str) -> None:
    class_folders(tmp_path / "set")
    (tmp_path / "split.csv").write_text(text)
    with pytest.raises(DataError, match=says):
        load_labelled_set(config(tmp_path), 28)


def test_a_file_that_parts_a_patient_is_refused(tmp_path: Path) -> None:
    list_patients(class_folders(tmp_path / "set"))
    load_labelled_set(config(tmp_path), 28)
    held = rows(tmp_path)
    held[0]["part"] = "test" if held[1]["part"] != "test" else "train"
    assert held[0]["key"][:-6] == held[1]["key"][:-6]
    (tmp_path / "split.csv").write_text("key,part\n" + "".join(f"{r['key']},{r['part']}\n" for r in held))
    with pytest.raises(DataError, match="1 patient is in more than one part"):
        load_labelled_set(config(tmp_path), 28)


def test_a_set_that_is_refused_writes_no_split(tmp_path: Path) -> None:
    class_folders(tmp_path / "set", each=1)
    with pytest.raises(DataError):
        load_labelled_set(config(tmp_path), 28)
    assert not (tmp_path / "split.csv").exists()


def test_slices_of_a_volume_are_not_divided_where_no_patient_is_known(tmp_path: Path) -> None:
    for label, name in enumerate(CLASSES):
        for volume in range(6):
            for n in range(4):
                where = tmp_path / "set" / name / f"{name}{volume}_slice{n}.jpg"
                where.parent.mkdir(parents=True, exist_ok=True)
                where.write_bytes(image_bytes(label, 10 * volume + n))
    data = load_labelled_set(EvalData(path=str(tmp_path / "set")), 28)
    assert (data.split_source, dict(data.unit_counts)) == ("volume", {"volume": 72})
    assert data.counts()["known_by"] == {"volume": 72}
    parts = {name: {key.split("_slice")[0] for key in part.keys} for name, part in data.parts.items()}
    assert sum(map(len, parts.values())) == 18 == len(set.union(*parts.values()))
    alone = load_labelled_set(EvalData(path=str(tmp_path / "set"), unknown_patient="image"), 28)
    assert (alone.split_source, dict(alone.unit_counts)) == ("image", {"image": 72})
    assert "volumes are in more than one part" in alone.warnings[0]


def test_folders_below_a_class_folder_are_not_divided(tmp_path: Path) -> None:
    for label, name in enumerate(CLASSES):
        for person in range(6):
            for view in ("near", "far"):
                where = tmp_path / "set" / name / f"P{person}" / f"{view}.jpg"
                where.parent.mkdir(parents=True, exist_ok=True)
                where.write_bytes(image_bytes(label, 10 * person + len(view)))
    data = load_labelled_set(EvalData(path=str(tmp_path / "set")), 28)
    assert (data.split_source, dict(data.unit_counts)) == ("folder", {"folder": 36})
    parts = {name: {key.rsplit("/", 1)[0] for key in part.keys} for name, part in data.parts.items()}
    assert sum(map(len, parts.values())) == 18 == len(set.union(*parts.values()))


def test_a_patient_who_is_not_known_does_not_hide_that_others_are(tmp_path: Path) -> None:
    list_patients(class_folders(tmp_path / "set"))
    listing = tmp_path / "set" / "manifest.csv"
    listing.write_text(listing.read_text().replace("MH/MH_0.jpg,MH,MH0", "MH/MH_0.jpg,MH,unknown"))
    data = load_labelled_set(EvalData(path=str(tmp_path / "set")), 28)
    assert (data.split_source, dict(data.unit_counts)) == ("image", {"patient": 29, "image": 1})
    assert wording.describe_split(data.split_source, data.unit_counts) == (
        "at random by patient (29 images), by image (1 image, their patients are not known)"
    )
    parts = {name: {p for p in part.patients if p} for name, part in data.parts.items()}
    assert sum(map(len, parts.values())) == 15 == len(set.union(*parts.values()))


def test_volumes_of_a_given_split_are_checked(tmp_path: Path) -> None:
    notes = [
        {
            "key": f"k{n}",
            "label": CLASSES[n % 2],
            "volume": f"v{n // 4}",
            "split": ("train", "test", "val")[n % 3],
        }
        for n in range(24)
    ]
    shards = shard_set(tmp_path / "shards", notes)
    with pytest.raises(
        DataError, match=r"6 volumes are in more than one part \(v0 in train and val and test"
    ):
        load_labelled_set(EvalData(path=str(shards)), 28)
    told = load_labelled_set(EvalData(path=str(shards), unknown_patient="image"), 28)
    assert "6 volumes are in more than one part" in told.warnings[0]
    assert "the patient of 24 of 24 images is not known" in wording.describe_split(
        told.split_source, told.unit_counts
    )


def test_a_split_file_may_be_spelt_as_lists_are(tmp_path: Path) -> None:
    class_folders(tmp_path / "set")
    first = load_labelled_set(config(tmp_path), 28)
    keys = [(key, name) for name, part in first.parts.items() for key in part.keys]
    text = "Filename;Split\r\n" + "".join(f"{key};{name}\r\n" for key, name in keys)
    (tmp_path / "split.csv").write_bytes(text.encode("utf-16"))
    assert load_labelled_set(config(tmp_path), 28).fingerprint == first.fingerprint
    (tmp_path / "split.csv").write_text(text.replace("Split", "Splti"))
    with pytest.raises(DataError, match=r"has no column 'part' .*'Splti' looks like 'part'"):
        load_labelled_set(config(tmp_path), 28)


def test_slices_whose_row_names_no_patient_go_with_their_volume(tmp_path: Path) -> None:
    lines = []
    for label, name in enumerate(CLASSES):
        for n in range(40):
            where = tmp_path / "set" / name / f"eye{n // 4}_slice{n % 4}.jpg"
            where.parent.mkdir(parents=True, exist_ok=True)
            where.write_bytes(image_bytes(label, n))
            lines.append(f"{name}/{where.name},{f'{name}{n // 4}' if n % 4 == 0 else ''}")
    (tmp_path / "set" / "manifest.csv").write_text("file,patient\n" + "\n".join(lines) + "\n")
    data = load_labelled_set(EvalData(path=str(tmp_path / "set")), 28)
    assert (data.split_source, data.unit_counts) == ("patient", {"patient": 120})
    assert "the patient of 90 images is taken from other slices of their volume" in data.notes
