"""Lines are added to a log; what stands in it already is never lost or replaced."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from retfound_dist.errors import StorageError
from retfound_dist.formats import log_writer
from retfound_dist.formats.log_writer import LogWriter, append_rows
from retfound_dist.io import storage


def lines_of(*numbers: int) -> bytes:
    """What a log of these rows holds."""
    return b"".join(json.dumps({"n": n}).encode() + b"\n" for n in numbers)


@pytest.mark.parametrize("base", ["disk", "memory://logwriter"])
def test_rows_of_one_and_of_several_writers_follow_each_other(base: str, tmp_path: Path) -> None:
    url = storage.join(str(tmp_path) if base == "disk" else base, "log.jsonl")
    first = LogWriter(url)
    first.append([{"n": 1}, {"n": 2}])
    first.append([{"n": 3}])
    LogWriter(url).append([{"n": 4}])
    first.append([{"n": 5}])
    assert storage.read_bytes(url) == lines_of(1, 2, 3, 4, 5)


@pytest.mark.parametrize("base", ["disk", "memory://logwriter-bad"])
@pytest.mark.parametrize("bad", [b"{broken", b"[]", b"\0\0\0", b"\xff", b'{"n": NaN}', b""])
def test_bad_lines_in_the_middle_stay_as_they_are(bad: bytes, base: str, tmp_path: Path) -> None:
    """They may be mended by hand; no writer makes them worse."""
    url = storage.join(str(tmp_path) if base == "disk" else base, "log.jsonl")
    before = lines_of(1) + bad + b"\n" + lines_of(2)
    storage.write_bytes(url, before)
    LogWriter(url).append([{"n": 3}])
    assert storage.read_bytes(url) == before + lines_of(3)


@pytest.mark.parametrize("base", ["disk", "memory://logwriter-cut"])
@pytest.mark.parametrize("rest", [b'{"n": 2, "lo', b"\0" * 4096, b"{", b'{"text": "' + b"x" * 200_000])
def test_what_a_killed_writer_left_of_a_line_goes(rest: bytes, base: str, tmp_path: Path) -> None:
    url = storage.join(str(tmp_path) if base == "disk" else base, "log.jsonl")
    storage.write_bytes(url, lines_of(1) + rest)
    LogWriter(url).append([{"n": 3}])
    assert storage.read_bytes(url) == lines_of(1, 3)


@pytest.mark.parametrize("base", ["disk", "memory://logwriter-end"])
def test_a_whole_line_without_its_end_stays(base: str, tmp_path: Path) -> None:
    url = storage.join(str(tmp_path) if base == "disk" else base, "log.jsonl")
    storage.write_bytes(url, lines_of(1, 2)[:-1])
    LogWriter(url).append([{"n": 3}])
    assert storage.read_bytes(url) == lines_of(1, 2, 3)


FULL = """
import resource, signal, sys
from retfound_dist.errors import StorageError
from retfound_dist.formats.log_writer import LogWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
writer, said = LogWriter(sys.argv[1]), ""
rows = [{"n": 5, "text": "x" * 60}, {"n": 6, "text": "x" * 60}]
try:
    writer.append(rows)
except StorageError as error:
    said = str(error)
print(said)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
writer.append(rows)
"""


def test_a_disk_that_takes_no_more_leaves_all_rows_or_none(tmp_path: Path) -> None:
    """A file that may not grow fails as a full disk does, in the middle of the rows."""
    where = tmp_path / "log.jsonl"
    LogWriter(str(where)).append([{"n": 1}])
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(where)], capture_output=True, text=True, check=True, timeout=60
    )
    assert "cannot write" in done.stdout
    assert [json.loads(line)["n"] for line in where.read_text().splitlines()] == [1, 5, 6]


def test_a_folder_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(StorageError, match=r"cannot write .*log\.jsonl"):
        append_rows(str(tmp_path), "log.jsonl", [{"n": 1}])


def test_a_number_that_is_not_finite_ends_no_run(tmp_path: Path) -> None:
    append_rows(
        str(tmp_path), "log.jsonl", [{"n": 1, "more": {"a": [float("nan"), 2.0]}, "b": float("-inf")}]
    )
    assert (tmp_path / "log.jsonl").read_text() == '{"n": 1, "more": {"a": [null, 2.0]}, "b": null}\n'


def test_a_store_that_reads_differently_each_time_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "memory://logwriter-noise/log.jsonl"
    storage.write_bytes(url, lines_of(1))
    monkeypatch.setattr(storage, "read_bytes", lambda url: os.urandom(8))
    with pytest.raises(StorageError, match="it gave different bytes in 8 readings"):
        LogWriter(url).append([{"n": 2}])
    monkeypatch.undo()
    assert storage.read_bytes(url) == lines_of(1)


def test_lines_that_the_file_lost_are_those_that_were_held() -> None:
    held, coming = lines_of(1, 2, 3), lines_of(9)
    damaged = held.replace(b'"n": 2', b'"n": \x00') + lines_of(4)
    assert log_writer._merged(held, damaged, coming) == lines_of(1, 2, 3, 4)
    assert log_writer._merged(held, b"", coming) == held
    assert log_writer._merged(held, lines_of(1), coming) == held
    assert log_writer._merged(held, held + lines_of(7) + coming, b"") == held + lines_of(7, 9)
