"""A split made by us is written down and used again."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from retfound_dist.errors import DataError
from retfound_dist.evaluate.dataset import load
from retfound_dist.evaluate.results import split_csv
from retfound_dist.schema import EvalData
from tests.evaluate.inputs import class_folders, image_bytes, list_patients


def config(root: Path, **more: object) -> EvalData:
    return EvalData(path=str(root / "set"), split_file=str(root / "split.csv"), **more)  # type: ignore[arg-type]


def rows(root: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((root / "split.csv").open()))


def test_a_split_by_us_is_written_and_used_again_whatever_the_seed(tmp_path: Path) -> None:
    class_folders(tmp_path / "set")
    first = load(config(tmp_path), 28)
    assert {row["key"]: row["part"] for row in rows(tmp_path)} == {
        key: name for name, part in first.parts.items() for key in part.keys
    }
    again = load(config(tmp_path, split_seed=7, fractions=(0.2, 0.2, 0.6)), 28)
    assert again.divided_by == "file"
    assert again.fingerprint == first.fingerprint
    fresh = load(EvalData(path=str(tmp_path / "set"), split_seed=7), 28)
    assert fresh.parts["test"].keys != first.parts["test"].keys


def test_an_evaluation_s_split_csv_is_a_split_file(tmp_path: Path) -> None:
    list_patients(class_folders(tmp_path / "set"))
    (tmp_path / "set" / "MH" / "MH_0.jpg").write_bytes(b"not an image")
    data = load(EvalData(path=str(tmp_path / "set")), 28)
    (tmp_path / "split.csv").write_text(split_csv(data))
    again = load(config(tmp_path, split_seed=7), 28)
    assert again.fingerprint == data.fingerprint
    assert [key for key, _ in again.skipped] == ["MH/MH_0.jpg"]


def test_a_file_of_other_images_is_refused(tmp_path: Path) -> None:
    class_folders(tmp_path / "set")
    load(config(tmp_path), 28)
    (tmp_path / "set" / "MH" / "new.jpg").write_bytes(image_bytes(1, 99))
    (tmp_path / "set" / "CSR" / "CSR_0.jpg").unlink()
    with pytest.raises(
        DataError,
        match=r"split.csv does not fit .*set: 1 of its images are not in the set \(CSR/CSR_0.jpg\); "
        r"1 images of the set are not in it \(MH/new.jpg\)",
    ):
        load(config(tmp_path), 28)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("file,split\na,train\n", "has columns file, split: its header must be key,part"),
        ("key,part\na,training\n", "line 2: part 'training' is not train, val, test"),
        ("key,part\na,train\na,test\n", "line 3: a is in two parts"),
        ("", "has columns none"),
    ],
)
def test_a_file_that_is_no_split_gets_one_line(tmp_path: Path, text: str, says: str) -> None:
    class_folders(tmp_path / "set")
    (tmp_path / "split.csv").write_text(text)
    with pytest.raises(DataError, match=says):
        load(config(tmp_path), 28)


def test_a_file_that_parts_a_patient_is_refused(tmp_path: Path) -> None:
    list_patients(class_folders(tmp_path / "set"))
    load(config(tmp_path), 28)
    held = rows(tmp_path)
    held[0]["part"] = "test" if held[1]["part"] != "test" else "train"
    assert held[0]["key"][:-6] == held[1]["key"][:-6]
    (tmp_path / "split.csv").write_text("key,part\n" + "".join(f"{r['key']},{r['part']}\n" for r in held))
    with pytest.raises(DataError, match="1 patient is in more than one part"):
        load(config(tmp_path), 28)


def test_a_set_that_is_refused_writes_no_split(tmp_path: Path) -> None:
    class_folders(tmp_path / "set", each=1)
    with pytest.raises(DataError):
        load(config(tmp_path), 28)
    assert not (tmp_path / "split.csv").exists()
