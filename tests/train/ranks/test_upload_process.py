"""A process of its own for what takes time at the run's store."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from retfound_dist.formats import run_folder
from retfound_dist.io import storage
from retfound_dist.train.ranks import upload_process
from retfound_dist.train.ranks.upload_process import UploadProcess


def test_things_are_done_elsewhere_in_the_order_they_were_asked_for(tmp_path: Path) -> None:
    mine, url = UploadProcess(str(tmp_path)), str(tmp_path / "run")
    assert mine.submit(os.getpid).result() != os.getpid()
    asked = [mine.submit(upload_process.append_rows, url, "log.jsonl", [{"n": n}], 1.0) for n in range(20)]
    mine.finish()
    assert [upload_process.failure_text(each) for each in asked] == [""] * 20
    assert run_folder.read_rows(url, "log.jsonl") == [{"n": n} for n in range(20)]


def test_what_fails_is_told_and_a_death_too(tmp_path: Path) -> None:
    mine = UploadProcess(str(tmp_path))
    (tmp_path / "file").write_text("in the way")
    refused = mine.submit(upload_process.append_rows, str(tmp_path / "file"), "log.jsonl", [{}], 0.0)
    assert "log.jsonl" in upload_process.failure_text(refused)
    process = mine.submit(os.getpid).result()
    waiting = mine.submit(time.sleep, 60)
    subprocess.run(["kill", "-TERM", str(process)], check=True)  # a scheduler's, which is not for it
    time.sleep(0.5)
    assert not waiting.done()
    os.kill(process, signal.SIGKILL)
    assert "was killed" in upload_process.failure_text(waiting)
    assert "was killed" in upload_process.failure_text(mine.submit(os.getpid)), (
        "what is asked of the dead fails like what it was doing"
    )


def test_a_folder_is_uploaded_with_what_its_files_are(tmp_path: Path) -> None:
    for name, data in {"state/a.pt": b"a" * 100, "b.bin": b"b", "helper.py": b"no"}.items():
        (tmp_path / "from" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "from" / name).write_bytes(data)
    files = upload_process.upload(str(tmp_path / "from"), "memory://keeper/to", 1.0)
    assert files == {"b.bin": storage.bytes_info(b"b"), "state/a.pt": storage.bytes_info(b"a" * 100)}
    assert storage.read_bytes("memory://keeper/to/state/a.pt") == b"a" * 100
    assert not storage.exists("memory://keeper/to/helper.py")


FULL_SHM = """
import sys
from retfound_dist.errors import RetfoundError
from retfound_dist.train.ranks.upload_process import UploadProcess
try:
    UploadProcess(sys.argv[1])
except RetfoundError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_full_dev_shm_is_named(tmp_path: Path) -> None:
    if os.getuid():
        pytest.skip("needs root: mounts a small /dev/shm")
    command = 'mount -t tmpfs -o size=4k,nr_inodes=2 tmpfs /dev/shm && exec "$@"'
    words = [sys.executable, "-c", FULL_SHM, str(tmp_path)]
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-c", command, "-", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "processes cannot be started: the disk at /dev/shm cannot hold more files" in done.stdout
    assert "data.workers" not in done.stdout
