"""A machine with a bad day: no room to hand batches over, a cache that turns read-only, a shard that is cut."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from retfound_dist.formats.shard_set import Manifest
from retfound_dist.io import storage
from retfound_dist.stream.loader import MicroBatch, open_stream
from tests.small_disks import disk_at
from tests.stream.stream_inputs import make_set

READER = """
import sys
from retfound_dist.errors import RetfoundError
from retfound_dist.stream import open_stream
try:
    with open_stream(sys.argv[1], global_batch=8, workers=2, image_size=128, stop_step=6) as stream:
        for batch in stream:
            print(batch.step, f"{batch.digest:x}", int(batch.images.sum()), flush=True)
except RetfoundError as error:
    print(error)
"""


def read_with_shm(url: str, tmp_path: Path, options: str) -> list[str]:
    """What a reader with two loader processes prints, in a mount namespace where /dev/shm is a disk of its own."""
    script = tmp_path / "sample_reader.py"
    script.write_text(READER)
    command = 'mount -t tmpfs -o "$0" tmpfs /dev/shm && exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", command, options, sys.executable, str(script), url],
        capture_output=True, text=True, check=False, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_set(tmp_path_factory.mktemp("set"))


@pytest.mark.slow
def test_a_tiny_shm_changes_no_batch_and_a_full_one_is_named(manifest: Manifest, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts a small /dev/shm")
    with open_stream(manifest.url, global_batch=8, workers=0, image_size=128, stop_step=6) as stream:
        expected = [f"{batch.step} {batch.digest:x} {int(batch.images.sum())}" for batch in stream]
    assert read_with_shm(manifest.url, tmp_path, "size=100k") == expected  # a batch is 131 kB
    (said,) = read_with_shm(manifest.url, tmp_path, "size=100k,nr_inodes=3")
    assert said.startswith("processes cannot be started: the disk at /dev/shm has no room for more files")
    assert "data.workers=0" in said


def read(manifest: Manifest, **settings: object) -> list[MicroBatch]:
    with open_stream(
        manifest, global_batch=8, image_size=32, patches=4, stop_step=8, workers=0, **settings
    ) as stream:  # type: ignore[arg-type]
        return list(stream)


def test_a_read_only_cache_gives_the_same_batches_and_is_told_once(
    manifest: Manifest, tmp_path: Path
) -> None:
    url = "memory://bad-machine/set"
    for name in storage.list_names(manifest.url):
        storage.put_file(f"{manifest.url}/{name}", f"{url}/{name}")
    with disk_at(tmp_path / "cache") as cache:
        remote = Manifest(**{**manifest.__dict__, "url": url})
        first = read(remote, cache_dir=str(cache))
        kept = sorted(cache.glob("*.tar"))
        kept[0].unlink()
        kept[1].write_bytes(kept[1].read_bytes()[:600])
        next(iter(cache.glob("*.idx"))).write_bytes(b"{}")
        subprocess.run(["mount", "-o", "remount,ro", str(cache)], check=True)
        again = read(remote, cache_dir=str(cache))
    assert [batch.digest for batch in again] == [batch.digest for batch in first]
    assert sum(len(batch.faults) for batch in again) == 0
    said = {note for batch in again for note in batch.notes}
    assert len(said) == 1
    assert f"shards cannot be kept in {cache} (the disk at {cache} is read-only)" in said.pop()


CUT = """
import os, sys
from pathlib import Path
from retfound_dist.errors import DataError
from retfound_dist.stream import open_stream
with open_stream(sys.argv[1], global_batch=8, workers=1, image_size=64, bad_sample_budget=3) as stream:
    batches = iter(stream)
    print(next(batches).faults)
    for path in Path(sys.argv[1]).glob("*.tar"):
        os.truncate(path, 600)
    try:
        for _ in batches:
            pass
    except DataError as error:
        print(error)
"""


@pytest.mark.slow
def test_a_shard_that_is_cut_while_it_is_read_is_bad_samples_and_no_death(tmp_path: Path) -> None:
    url = make_set(tmp_path, count=40).url
    script = tmp_path / "cut.py"
    script.write_text(CUT)
    done = subprocess.run([sys.executable, str(script), url], capture_output=True, text=True, timeout=120)
    first, said = done.stdout.splitlines()
    assert first == "[]"
    assert "samples in a row cannot be read, the first: " in said
    assert ".tar/" in said
    assert "differ from the manifest's" in said
