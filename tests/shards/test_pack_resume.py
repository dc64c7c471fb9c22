"""Killed or failing anywhere, the same command goes on and ends with the same bytes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from retfound_dist.config.schema import PackConfig
from retfound_dist.errors import DataError, StorageError
from retfound_dist.formats.content_identity import set_fingerprint
from retfound_dist.formats.shard_set import read_manifest
from retfound_dist.io import storage
from retfound_dist.io.scratch import Scratch
from shards import pack as packing
from shards.images.scan import Scan
from shards.pack import pack, plan_pack
from shards.verify import verify
from shards.write.packed_sample import make_sample
from tests.shards.pack_inputs import file_bytes, pack_config, write_classes

SCRIPT = """
import sys
from retfound_dist.config.loading import load
from retfound_dist.config.schema import PackConfig
from shards.pack import pack
if __name__ == "__main__":
    force = sys.argv[2:3] == ["--force"]
    pack(load(PackConfig, sys.argv[1], sys.argv[2 + force :])[0], force=force)
"""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    root = write_classes(tmp_path / "images", {"A": 12, "B": 8})
    (root / "A" / "bad.jpg").write_text("hi")
    return root


AFTER = {
    *(f"write_bytes {name}" for name in ("DATACARD.md", "quality.html", "examples.jpg", "dropped.jpg")),
    *("delete packing.json", "delete LOCK.json"),
}
"""Changes that come after the manifest, by which the set stands."""


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, at: int, torn: bool) -> Iterator[list[str]]:
    """The `at`-th change of storage fails; `torn` leaves what a killed process would beside it."""
    changes: list[str] = []

    def wrap(function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def changed(*arguments: Any) -> Any:
            url = str(arguments[1] if name == "move_file" else arguments[0])
            changes.append(f"{name} {storage.name(url)}")
            if len(changes) - 1 == at:
                if torn and name != "delete":
                    Path(url).parent.mkdir(parents=True, exist_ok=True)
                    Path(f"{url}.0123abcd.tmp").write_bytes(b"half")
                raise StorageError(f"cannot write {url}: no space left")
            return function(*arguments)

        return changed

    with monkeypatch.context() as patch:
        for name in ("move_file", "write_bytes", "delete"):
            patch.setattr(storage, name, wrap(getattr(storage, name), name))
        yield changes


def test_a_failure_at_any_write_is_made_good_by_the_same_command(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parted = {"fractions": [0.6, 0.4, 0.0]}
    pack(pack_config(images, tmp_path / "undisturbed", split=parted))
    expected = file_bytes(tmp_path / "undisturbed")
    out = tmp_path / "out"
    at = 0
    while True:
        storage.delete(str(out))
        with failing(monkeypatch, at, torn=at % 2 == 0) as changes, suppress(StorageError):
            pack(pack_config(images, out, split=parted))
            break
        left = file_bytes(out) if out.exists() else {}
        assert ("manifest.json" in left) == (changes[at] in AFTER)
        pack(pack_config(images, out, split=parted))
        assert file_bytes(out) == expected, changes[at]
        at += 1
    assert at > 2 * 3 + 2
    assert set(changes) >= AFTER


def test_work_that_was_committed_is_not_done_again(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def counting(scan: Scan, **options: Any) -> Any:
        read.append(scan.key)
        return make_sample(scan, **options)

    config = pack_config(images, tmp_path / "out")
    with failing(monkeypatch, 7, torn=True), pytest.raises(StorageError):
        pack(config)  # marker, then tar and idx of three shards
    monkeypatch.setattr(packing, "make_sample", counting)
    manifest = pack(config)
    assert 0 < len(read) <= 21 - sum(shard.samples for shard in manifest.shards[:3])


def test_shards_of_another_config_are_not_mixed_in(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with failing(monkeypatch, 7, torn=True), pytest.raises(StorageError):
        pack(pack_config(images, tmp_path / "out", out={"seed": 5, "name": "other"}))
    pack(pack_config(images, tmp_path / "out"))
    pack(pack_config(images, tmp_path / "undisturbed"))
    assert file_bytes(tmp_path / "out") == file_bytes(tmp_path / "undisturbed")


def test_a_replacement_that_failed_anywhere_leaves_the_old_set_or_the_new_one_and_is_made_good(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {"shard_mb": 0.04}
    old, out = pack_config(images, tmp_path / "old", out={"seed": 5, **few}), tmp_path / "out"
    pack(old)
    config = pack_config(images, out, out=few)
    before = file_bytes(tmp_path / "old")
    pack_beside(tmp_path, config)
    expected = file_bytes(tmp_path / "undisturbed")
    replaced, at = 0, 0
    while True:
        storage.delete(str(out))
        shutil.copytree(tmp_path / "old", out)
        with failing(monkeypatch, at, torn=True) as changes, suppress(StorageError):
            pack(config, force=True)
            break
        left = file_bytes(out)
        if left["manifest.json"] == before["manifest.json"]:
            assert left.items() >= before.items(), f"{changes[at]} changed the old set"
        else:
            replaced += 1
            assert left["manifest.json"] == expected["manifest.json"]
        assert verify(str(out), 1) == [], changes[at]
        pack(config, force=True)
        assert file_bytes(out) == expected, changes[at]
        at += 1
    assert replaced > len(before) - 4, "the old shards were removed one by one after the new manifest"
    assert at > replaced + 5


def pack_beside(tmp_path: Path, config: PackConfig) -> None:
    """The set that `config` makes where another one stood, undisturbed."""
    shutil.copytree(tmp_path / "old", tmp_path / "undisturbed")
    pack(replace(config, out=replace(config.out, url=str(tmp_path / "undisturbed"))), force=True)


def test_a_tar_that_lost_its_end_is_packed_again(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pack(pack_config(images, out))
    expected = file_bytes(out)
    (out / "manifest.json").rename(out / "packing.json")
    (out / "oct-000001.tar").write_bytes(expected["oct-000001.tar"][:-512])
    pack(pack_config(images, out))
    assert file_bytes(out) == expected


@pytest.mark.slow
def test_kill_9_anywhere_ends_with_the_same_bytes_and_no_process_left(tmp_path: Path) -> None:
    images = write_classes(tmp_path / "images", {"A": 250, "B": 150}, "png")
    (tmp_path / "pack.py").write_text(SCRIPT)
    (tmp_path / "pack.toml").write_text(
        f'[source]\npath = "{images}"\n[split]\nfractions = [0.5, 0.25, 0.25]\n'
        '[out]\nurl = ""\nshard_mb = 0.1\n'
    )
    command = [sys.executable, str(tmp_path / "pack.py"), str(tmp_path / "pack.toml"), "out.workers=2"]
    subprocess.run([*command, f"out.url={tmp_path}/undisturbed"], check=True, timeout=120)
    out = tmp_path / "out"
    for shards in (0, 1, 3, 4, 6):
        process = subprocess.Popen([*command, f"out.url={out}"])
        children = wait_for_shards(process, out, shards)
        process.send_signal(signal.SIGKILL)
        process.wait()
        wait_until_gone(children)
    subprocess.run([*command, f"out.url={out}"], check=True, timeout=120)
    assert file_bytes(out) == file_bytes(tmp_path / "undisturbed")


@pytest.mark.slow
def test_a_replacement_killed_anywhere_leaves_the_old_set_sound_until_the_new_one_is_whole(
    tmp_path: Path,
) -> None:
    images = write_classes(tmp_path / "images", {"A": 40, "B": 24}, "png")
    (tmp_path / "pack.py").write_text(SCRIPT)
    (tmp_path / "pack.toml").write_text(f'[source]\npath = "{images}"\n[out]\nurl = ""\nshard_mb = 0.04\n')
    command = [sys.executable, str(tmp_path / "pack.py"), str(tmp_path / "pack.toml")]
    out = tmp_path / "out"
    pack(pack_config(images, out, out={"seed": 5}))
    before = file_bytes(out)
    for shards in (1, 3):
        process = subprocess.Popen([*command, "--force", f"out.url={out}", "out.workers=1"])
        while process.poll() is None and len(list(out.glob("oct.2-*.idx"))) < shards:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert file_bytes(out).items() >= before.items()
        assert verify(str(out), 1) == []
    subprocess.run([*command, "--force", f"out.url={out}", "out.workers=1"], check=True, timeout=120)
    alone = pack(pack_config(images, tmp_path / "alone", out={"shard_mb": 0.04}))
    assert set_fingerprint(read_manifest(str(out)).shards) == set_fingerprint(alone.shards)
    assert not before.keys() & {name for name in file_bytes(out) if name.endswith((".tar", ".idx"))}
    assert not {"LOCK.json", "packing.json"} & file_bytes(out).keys()
    assert verify(str(out), 1) == []


def test_one_shard_is_open_at_a_time(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []

    def move(draft: str, url: str) -> None:
        held.append(sum(name.endswith(".tmp") for name in os.listdir(os.path.dirname(draft))))
        whole(draft, url)

    whole = storage.move_file
    monkeypatch.setattr(storage, "move_file", move)
    pack(pack_config(images, tmp_path / "out"))
    assert len(held) > 2
    assert set(held) == {1}


def test_scratch_of_a_killed_pack_is_cleared_and_that_of_a_living_one_kept(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    killed = temporary / f"retfound-pack-{os.getuid()}-killed"
    for folder in (killed, temporary / "other"):
        folder.mkdir(parents=True)
    (killed / ".users").touch()  # whose lock went with its process
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with Scratch("pack", "living") as kept:
        pack(pack_config(images, tmp_path / "out"))
        assert sorted(path.name for path in temporary.iterdir()) == ["other", Path(kept.folder).name]


def wait_for_shards(process: subprocess.Popen[bytes], out: Path, shards: int) -> list[int]:
    """Wait for so many index files; gives the workers' ids."""
    children: list[int] = []
    end = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < end:
        text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        children = [int(child) for child in text.split()] or children
        if children and len(list(out.glob("*.idx"))) >= shards:
            break
        time.sleep(0.002)
    return children


def wait_until_gone(processes: list[int]) -> None:
    end = time.monotonic() + 20
    while any(os.path.exists(f"/proc/{process}") for process in processes):
        assert time.monotonic() < end, "workers outlive the pack that was killed"
        time.sleep(0.05)


def test_a_file_that_goes_away_costs_only_the_shards_after_it(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = pack_config(images, tmp_path / "out")
    with failing(monkeypatch, 9, torn=True), pytest.raises(StorageError):
        pack(config)  # marker, then tar and idx of four shards
    planned = [scan.key for scan in packing.plan_pack(config).scans]
    held = [entry for number in range(3) for entry in read_keys(tmp_path / "out", number)]
    gone = next(key for key in planned[len(held) + 1 :] if key != "A_bad")
    (images / f"{gone[0]}" / f"{gone[2:]}.jpg").unlink()
    kept = (tmp_path / "out" / "oct-000001.tar").stat().st_mtime_ns
    manifest = pack(config)
    assert (tmp_path / "out" / "oct-000001.tar").stat().st_mtime_ns == kept
    pack(pack_config(images, tmp_path / "undisturbed"))
    assert file_bytes(tmp_path / "out") == file_bytes(tmp_path / "undisturbed")
    assert manifest.samples == 19


def test_a_file_that_goes_away_while_packing_is_named_and_counted(images: Path, tmp_path: Path) -> None:
    config = pack_config(images, tmp_path / "out")

    last = [scan.key for scan in packing.plan_pack(config).scans if scan.key != "A_bad"][-1]
    manifest = pack(
        config, progress=lambda done, total: (images / f"{last[0]}" / f"{last[2:]}.jpg").unlink(True)
    )
    assert {skip["key"]: skip["reason"] for skip in manifest.skipped}[last] == (
        "cannot be read (No such file or directory)"
    )
    assert verify(manifest.url, 1) == []
    assert pack(config, force=True).samples == manifest.samples
    assert last not in {skip["key"] for skip in storage.read_json(f"{manifest.url}/manifest.json")["skipped"]}


def read_keys(out: Path, number: int) -> list[str]:
    return [row[0] for row in storage.read_json(f"{out}/oct-{number:06d}.idx")["samples"]]


def spoiled_first_and_last(root: Path, url: Path, **sections: dict[str, Any]) -> list[str]:
    """Twenty images, of which the first and the last of the plan are made unreadable; gives their keys."""
    write_classes(root, {"A": 12, "B": 8})
    scans = plan_pack(pack_config(root, url, **sections)).scans
    for scan in (scans[0], scans[-1]):
        path = next(path for path in root.rglob("*.jpg") if path.stem in scan.origin)
        path.write_bytes(b"no image".ljust(path.stat().st_size, b"."))
    return [scans[0].key, scans[-1].key]


def test_bad_images_count_over_restarts_and_each_is_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"shard_mb": 0.01}
    bad = spoiled_first_and_last(tmp_path / "images", tmp_path / "out", out=small)
    allowed, strict = (
        pack_config(tmp_path / "images", tmp_path / "out", out={**small, "bad_sample_budget": budget})
        for budget in (2, 1)
    )
    for _ in range(2):  # two shards, and some more
        with failing(monkeypatch, 5, torn=True), pytest.raises(StorageError):
            pack(allowed)
    with pytest.raises(DataError, match="2 of 20 images cannot be used"):
        pack(strict)
    manifest = pack(allowed)
    assert [skip["key"] for skip in manifest.skipped] == bad
    assert manifest.samples == 18


def test_what_ends_a_pack_leaves_no_open_shard_behind(tmp_path: Path) -> None:
    spoiled_first_and_last(tmp_path / "images", tmp_path / "out", out={"shard_mb": 1.0})
    config = pack_config(tmp_path / "images", tmp_path / "out", out={"shard_mb": 1.0, "bad_sample_budget": 1})
    with pytest.raises(DataError):
        pack(config)
    assert not (tmp_path / "out").exists()
