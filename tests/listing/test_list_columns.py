"""Columns are known by their usual names; a name that may hide a patient or a label is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retfound_dist.errors import DataError
from retfound_dist.listing.list_columns import (
    FIELDS,
    SPLIT_FILE,
    Columns,
    find_columns,
    known_counter,
    similar_field,
)
from retfound_dist.listing.table_files import Table, normalized_name


def columns(header: str, *rows: str, fields: dict[str, str] = FIELDS, needed: str = "file") -> Columns:
    """The columns of a table whose cells are parted by commas."""
    cells = [tuple(row.split(",")) for row in rows]
    table = Table("list.csv", tuple(header.split(",")), list(enumerate(cells, start=2)))
    return find_columns(table, fields, (needed,), "file,label,patient")


@pytest.mark.parametrize(
    ("title", "field"),
    [
        ("pateint", "patient"),
        ("patient_code_anon", "patient"),
        ("Patientennummer", "patient"),
        ("sujet", "patient"),
        ("lable", "label"),
        ("Diagnose", "label"),
        ("étiquette", "label"),
        ("splti", "split"),
        ("patient_age", None),
        ("AgeOfPatient", None),
        ("diagnosis_date", None),
        ("age", None),
        ("thickness", None),
        ("x_patient", None),
        ("site", None),
    ],
)
def test_a_name_that_is_near_to_a_field_is_told_from_one_that_is_not(title: str, field: str | None) -> None:
    assert similar_field(title, FIELDS) == field


@pytest.mark.parametrize("title", ["pateint", "patient_code_anon", "Patientennummer", "lable", "Diagnose"])
def test_an_unknown_column_that_looks_like_patient_or_label_is_refused(title: str) -> None:
    with pytest.raises(DataError, match=rf"column '{title}' is not known and looks like '(patient|label)'"):
        columns(f"file,{title}", "A/0.jpg,1")
    assert columns(f"file,x_{title}", "A/0.jpg,1").positions == {"file": 0}


def test_a_doubtful_column_is_refused_where_images_share_its_values() -> None:
    assert columns("id,file", "1,A/0.jpg", "2,A/1.jpg").positions == {"file": 1}
    with pytest.raises(
        DataError, match=r"'case_id' has the same value for several images .* call it 'patient'"
    ):
        columns("case_id,file", "1,A/0.jpg", "1,A/1.jpg")
    assert columns("x_case_id,file", "1,A/0.jpg", "1,A/1.jpg").positions == {"file": 1}
    named = columns("case_id,file,patient", "1,A/0.jpg,p", "1,A/1.jpg,p")
    assert named.positions == {"file": 1, "patient": 2}


def test_two_columns_that_mean_the_same_are_refused_by_name() -> None:
    with pytest.raises(DataError, match="columns 'patient' and 'Subject ID' both mean 'patient'"):
        columns("file,patient,Subject ID", "A/0.jpg,p,q")
    with pytest.raises(DataError, match="columns 'label' and 'label' both mean 'label'"):
        columns("file,label,label", "A/0.jpg,p,q")


def test_a_list_in_another_language_is_refused_with_what_each_column_looks_like() -> None:
    with pytest.raises(DataError) as caught:
        columns("Datei,Diagnose,Patientennummer", "A/0.jpg,A,1")
    assert "has no column 'file' (it has 'Datei', 'Diagnose', 'Patientennummer')" in str(caught.value)
    assert "'Datei' looks like 'file', 'Diagnose' looks like 'label'" in str(caught.value)
    assert "its header must be such as file,label,patient" in str(caught.value)


def test_a_split_file_has_columns_of_its_own() -> None:
    assert columns("Sample Key,partition", fields=SPLIT_FILE, needed="part").positions == {
        "key": 0,
        "part": 1,
    }
    with pytest.raises(DataError, match="has no column 'part'"):
        columns("key,label", fields=SPLIT_FILE, needed="part")


def test_no_name_means_two_fields() -> None:
    names = [name for plain_names in FIELDS.values() for name in plain_names.split()]
    assert len(names) == len(set(names))
    assert all(name == normalized_name(name) for name in names)


NAMES = sorted({name for plain_names in FIELDS.values() for name in plain_names.split()})


@given(st.sampled_from(NAMES), st.sampled_from("_- ."), st.data())
def test_case_and_punctuation_of_a_known_name_change_nothing(
    name: str, mark: str, data: st.DataObject
) -> None:
    at = data.draw(st.integers(1, len(name) - 1)) if len(name) > 1 else 1
    spelt = name[:at].upper() + mark + name[at:]
    assert known_counter(FIELDS)([spelt, "thickness"]) == 1


def test_a_requested_column_is_found_by_its_plain_name_and_is_not_called_unused() -> None:
    table = Table("list.csv", ("file", "Device Name", "sex", "age"), [])
    chosen = find_columns(table, FIELDS, ("file",), "file,label", ("sex", "device_name"))
    assert chosen.requested == (2, 1)
    assert chosen.summary == "file <- 'file', 'sex', 'Device Name'; not used: 'age'"


def test_a_requested_column_may_look_like_a_patient_or_be_a_known_field() -> None:
    table = Table("list.csv", ("file", "patient_code_anon", "eye"), [])
    chosen = find_columns(table, FIELDS, ("file",), "file,label", ("patient_code_anon", "eye"))
    assert chosen.requested == (1, 2)
    assert chosen.positions == {"file": 0, "eye": 2}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("devise", r"no column 'devise' \(it has 'file', 'device'\): did you mean 'device'\?"),
        ("ethnicity", r"no column 'ethnicity' \(it has 'file', 'device'\): add it, or leave it out"),
    ],
)
def test_a_requested_column_that_is_missing_names_the_nearest(name: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        find_columns(Table("list.csv", ("file", "device"), []), FIELDS, ("file",), "file,label", (name,))
