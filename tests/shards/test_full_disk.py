"""A disk that is full while packing: one clear line, and the same command goes on when there is room."""

from __future__ import annotations

import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from retfound_dist.errors import StorageError
from retfound_dist.io import storage
from shards.append import append
from shards.pack import pack, plan_pack
from shards.repair import repair
from shards.verify import inspect_set
from tests.shards.pack_inputs import file_bytes, pack_config, write_classes
from tests.small_disks import disk_at


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk with room for a part of a set."""
    with disk_at(tmp_path / "tiny", "size=200k") as folder:
        yield folder


def enlarge(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_classes(tmp_path / "images", {"A": 60, "B": 30})


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(
    images: Path, tmp_path: Path, tiny_disk: Path
) -> None:
    pack(pack_config(images, tmp_path / "whole"))
    config = pack_config(images, tiny_disk / "set")
    with pytest.raises(StorageError, match=r"cannot write .*No space left on device") as caught:
        pack(config)
    assert "\n" not in str(caught.value)
    left = file_bytes(tiny_disk / "set")
    assert "manifest.json" not in left
    assert not [name for name in left if name.endswith(".tmp")]
    enlarge(tiny_disk)
    pack(config)
    assert file_bytes(tiny_disk / "set") == file_bytes(tmp_path / "whole")


def test_an_append_that_fills_the_disk_leaves_the_old_set_whole(
    images: Path, tmp_path: Path, tiny_disk: Path
) -> None:
    few = write_classes(tmp_path / "few", {"A": 3})
    for out in (tmp_path / "whole", tiny_disk / "set"):
        pack(pack_config(few, out))
    append(pack_config(images, tmp_path / "whole"))
    with pytest.raises(StorageError, match="No space left"):
        append(pack_config(images, tiny_disk / "set"))
    assert storage.read_json(f"{tiny_disk}/set/manifest.json")["samples"] == 3
    enlarge(tiny_disk)
    append(pack_config(images, tiny_disk / "set"))
    assert file_bytes(tiny_disk / "set") == file_bytes(tmp_path / "whole")


def test_full_scratch_of_a_set_that_goes_elsewhere_is_one_line(
    images: Path, tmp_path: Path, tiny_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tiny_disk))
    url = f"memory://{uuid.uuid4().hex}/set"
    config = pack_config(images, url, out={"shard_mb": 5.0})
    with pytest.raises(StorageError, match=r"cannot write .*No space left on device: .*; .*set TMPDIR"):
        pack(config)
    assert [path for path in tiny_disk.rglob("*") if path.is_file()] == []
    monkeypatch.undo()
    assert pack(config).samples == 90
    storage.delete(url)


def test_a_repair_that_fills_the_disk_can_be_run_again(images: Path, tmp_path: Path, tiny_disk: Path) -> None:
    enlarge(tiny_disk)
    config = pack_config(images, tiny_disk / "set")
    pack(config)
    before = file_bytes(tiny_disk / "set")
    next((tiny_disk / "set").glob("*.tar")).unlink()
    filler = fill(tiny_disk)
    with pytest.raises(StorageError, match="No space left"):
        repair(config, plan_pack(config), inspect_set(config.out.url).bad_shards)
    filler.unlink()
    repair(config, plan_pack(config), inspect_set(config.out.url).bad_shards)
    assert file_bytes(tiny_disk / "set") == before


def fill(disk: Path) -> Path:
    """A file that takes all the room that is left."""
    path = disk / "filler"
    with suppress(OSError), open(path, "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return path
