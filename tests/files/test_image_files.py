"""Which files are images by name, and how one is read. (Links and folders: test_folder_walk.py.)"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from retfound_dist.errors import DataError
from retfound_dist.files.image_files import IMAGE_EXTENSIONS, MAX_FILE_BYTES, find_files, read_file
from tests.files.folder_trees import link, put


@pytest.mark.parametrize("extension", IMAGE_EXTENSIONS)
def test_every_image_extension_is_found_in_any_case(tmp_path: Path, extension: str) -> None:
    put(tmp_path / f"a{extension}"), put(tmp_path / f"b{extension.upper()}")
    assert find_files(str(tmp_path)).paths == [f"a{extension}", f"b{extension.upper()}"]


def test_what_is_passed_over_is_counted_by_kind_with_an_example(tmp_path: Path) -> None:
    for name in ("b.npy", "a.npy", "x.NPY", "deep/c.npy"):
        put(tmp_path / name)
    put(tmp_path / "IM0001", bytes(128) + b"DICM" + bytes(50))
    put(tmp_path / "1.2.840.113619.2.55", bytes(128) + b"DICM")
    put(tmp_path / "e.IMA"), put(tmp_path / "eye.vol"), put(tmp_path / "c.heic"), put(tmp_path / "README")
    put(tmp_path / "data.zip"), put(tmp_path / "packed", b"PK\x03\x04rest")
    (
        put(tmp_path / ".DS_Store"),
        put(tmp_path / "._a.jpg"),
        put(tmp_path / "Thumbs.db"),
        put(tmp_path / "__MACOSX/a.jpg"),
    )
    files = find_files(str(tmp_path))
    assert files.paths == []
    lines = files.skipped.lines()
    assert lines[0] == "passed over: 4 files .npy, such as a.npy: not an image"
    assert "passed over: 3 files that look like DICOM, such as 1.2.840.113619.2.55: " in lines[1]
    assert "source.kind=device" in lines[1]
    assert "passed over: 2 archives, such as data.zip: unpack them" in lines
    assert any("1 file of the kinds that OCT devices write, such as eye.vol" in line for line in lines)
    assert any(
        "1 file in a picture format that is not read, such as c.heic: save as PNG" in line for line in lines
    )
    assert any("1 file without an extension, such as README" in line for line in lines)
    assert lines[-1].startswith("passed over: 4 hidden or of the operating system")
    assert len(files.skipped) == 12


def test_the_bytes_of_a_file_are_read_also_through_links_inside_its_folder(tmp_path: Path) -> None:
    put(tmp_path / "store/one/0.jpg", b"zero"), put(tmp_path / "pool/1.jpg", b"one")
    link(tmp_path / "A/1.jpg", "../pool/1.jpg"), link(tmp_path / "B", "store/one")
    assert read_file(str(tmp_path), "A/1.jpg") == b"one"
    assert read_file(str(tmp_path), "B/0.jpg") == b"zero"


def test_a_link_out_of_the_folder_is_read_only_on_request(tmp_path: Path) -> None:
    put(tmp_path / "blobs/0.jpg", b"blob")
    link(tmp_path / "data/A/0.jpg", "../../blobs/0.jpg")
    with pytest.raises(DataError, match="leads out of its folder"):
        read_file(str(tmp_path / "data"), "A/0.jpg")
    assert read_file(str(tmp_path / "data"), "A/0.jpg", "anywhere") == b"blob"


def test_a_pipe_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(DataError, match="not a regular file"):
        read_file(str(tmp_path), "pipe.jpg")


def test_a_file_larger_than_any_scan_is_not_read(tmp_path: Path) -> None:
    os.truncate(put(tmp_path / "a.jpg"), MAX_FILE_BYTES + 1)
    with pytest.raises(DataError, match="256,000,001 bytes"):
        read_file(str(tmp_path), "a.jpg")


def test_a_file_swapped_for_a_link_after_it_was_listed_is_not_read(tmp_path: Path) -> None:
    secret = put(tmp_path / "secret.jpg")
    put(tmp_path / "data/a.jpg")
    (tmp_path / "data/a.jpg").unlink()
    link(tmp_path / "data/a.jpg", secret)
    with pytest.raises(DataError, match="leads out of its folder"):
        read_file(str(tmp_path / "data"), "a.jpg")


def test_names_that_are_no_text_are_listed_and_printed(tmp_path: Path) -> None:
    for name in (b"\xff\xfe.jpg", b"bad\n\xff.npy"):
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as stream:
            stream.write(b"x")
    files = find_files(str(tmp_path))
    assert read_file(files.root, files.paths[0]) == b"x"
    assert all(line.isprintable() for line in files.skipped.lines())
