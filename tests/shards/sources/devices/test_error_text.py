"""The library's text reaches the user, a person's name does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import dcmread

from shards.sources.devices.error_text import safe_error_text
from tests.shards.device_files import BIRTH, FIRST, NAME, NUMBER, SECRETS, scan_stack, write_all, write_dicom


def test_text_is_kept_in_one_line_with_its_class(tmp_path: Path) -> None:
    path = tmp_path / "a.vol"
    path.write_bytes(b"\0" * 50)
    error = ValueError("The header promises\n 7 B-scans; 3 are there")
    assert safe_error_text(error, str(path)) == "ValueError: The header promises 7 B-scans; 3 are there"
    assert safe_error_text(KeyError(), str(path)) == "KeyError"


@pytest.mark.parametrize(
    "secret", [NAME, FIRST, NUMBER, f"{BIRTH:%Y%m%d}", f"{FIRST.upper()} {NAME.lower()}"]
)
def test_what_names_a_person_in_a_dicom_header_is_taken_out(tmp_path: Path, secret: str) -> None:
    path = write_dicom(tmp_path / "a.dcm", scan_stack(1))
    said = safe_error_text(
        ValueError(f"Rows of {secret!r} in MONOCHROME2 are not OPT"), str(path), dcmread(path)
    )
    assert not any(word.lower() in said.lower() for word in (NAME, FIRST, "4711", "19500212"))
    assert said.startswith("ValueError: Rows of")
    assert said.endswith("in MONOCHROME2 are not OPT")


def test_a_physician_s_name_and_other_dates_are_taken_out_too(tmp_path: Path) -> None:
    more = {"ReferringPhysicianName": "Krause^Otto", "StudyDate": "20210304"}
    path = write_dicom(tmp_path / "a.dcm", scan_stack(1), **more)
    said = safe_error_text(ValueError("Krause, Otto on 20210304: too few bytes"), str(path), dcmread(path))
    assert not any(word in said for word in ("Krause", "Otto", "2021"))
    assert said.endswith("too few bytes")


def test_paths_are_taken_out_whole_and_in_words(tmp_path: Path) -> None:
    folder = tmp_path / "Krause_Otto"
    folder.mkdir()
    path = write_dicom(folder / "Krause_OD.dcm", scan_stack(1))
    for file in (None, dcmread(path)):
        for text in (f"No such file: '{path}'", "cannot open Krause_OD.dcm in Otto"):
            said = safe_error_text(OSError(text), str(path), file)
            assert not any(word in said for word in ("Krause", "Otto", str(tmp_path)))


def test_of_other_formats_no_word_of_the_file_is_repeated(tmp_path: Path) -> None:
    for end, path in write_all(tmp_path).items():
        if end in (".img", ".mat"):
            continue  # hold no names
        whole = path.read_bytes()
        words = [word for word in (FIRST, NAME, NUMBER) if found_in(whole, word)]
        held = " ".join(words)
        assert held
        said = safe_error_text(ValueError(f"cannot parse b'M\\xfchlmann' and {held} at offset 12"), str(path))
        assert "cannot parse" in said
        assert not any(secret in said for secret in SECRETS), (end, said)


def found_in(whole: bytes, word: str) -> set[bytes]:
    return {coded for coded in (word.encode(), word.encode("latin-1")) if coded in whole}
