"""Any store that fsspec opens. What all kinds of stores have in common: tests/io/test_storage.py."""

import uuid

import pytest

from retfound_dist.errors import StorageError
from retfound_dist.io.stores.fsspec_store import FsspecStore, open_filesystem


def test_a_scheme_that_fsspec_does_not_know_is_one_line() -> None:
    with pytest.raises(StorageError, match="this installation cannot open nosuch:// URLs"):
        open_filesystem("nosuch")


def test_a_folder_is_deleted_with_its_content_and_the_root_is_known() -> None:
    store, folder = FsspecStore(open_filesystem("memory")), f"/{uuid.uuid4().hex}"
    for name in ("a", "b/c", "b/d/e"):
        store.write(f"{folder}/{name}", b"x")
    assert sorted(store.list_names(folder)) == ["a", "b"]
    assert store.list_folders(folder) == ["b"]
    store.delete(f"{folder}/b")
    assert store.list_names(folder) == ["a"]
    with pytest.raises(IsADirectoryError):
        store.size(folder)
    assert store.is_root("/")
    assert not store.is_root(folder)


def test_it_promises_no_mark_and_no_checksum() -> None:
    store = FsspecStore(open_filesystem("memory"))
    store.write("/marks/a", b"x")
    assert (store.version_mark("/marks/a"), store.checksum("/marks/a")) == ("", "")
