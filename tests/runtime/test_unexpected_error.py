"""An error that nobody foresaw leaves with 70, in one line, and its traceback is not lost."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from retfound_dist.cli import main
from retfound_dist.runs import run_list
from retfound_dist.runtime import unexpected_error

BROKEN = """
import sys
from retfound_dist.io import storage
from retfound_dist.cli import main
def broken(url):
    raise {error}
storage.is_folder = broken
sys.exit(main({args}))
"""


def retfound(error: str, args: list[str], temporary: Path) -> subprocess.CompletedProcess[str]:
    """A command in which something raises what it should not."""
    code = BROKEN.format(error=error, args=args)
    env = {**os.environ, "TMPDIR": str(temporary)}
    return subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, env=env, timeout=60
    )


def test_it_is_one_line_with_its_place_and_where_the_rest_is(tmp_path: Path) -> None:
    done = retfound("KeyError('macro')", ["runs", str(tmp_path)], tmp_path)
    assert done.returncode == 70
    (line,) = done.stderr.splitlines()
    assert line.startswith("retfound: unexpected KeyError: 'macro' (retfound_dist/")
    assert re.search(r"\.py, line \d+\): the whole traceback is in ", line)
    (kept,) = tmp_path.glob("retfound-error-*.txt")
    assert str(kept) in line
    assert "Traceback (most recent call last)" in kept.read_text()
    assert "in broken" in kept.read_text()
    assert kept.stat().st_mode & 0o077 == 0


def test_no_secret_is_kept(tmp_path: Path) -> None:
    done = retfound("KeyError('s3://AKIAX:hunter2hunter2@bucket/run')", ["runs", str(tmp_path)], tmp_path)
    (kept,) = tmp_path.glob("retfound-error-*.txt")
    assert "hunter2" not in done.stderr
    assert "s3://" in kept.read_text()
    assert "hunter2" not in kept.read_text()


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = retfound("RecursionError()", ["runs", str(tmp_path), "--debug"], tmp_path)
    assert done.returncode == 70
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("retfound: unexpected RecursionError (retfound_dist/")
    assert not list(tmp_path.glob("retfound-error-*.txt"))


def test_where_no_file_can_be_kept_debug_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(**_: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "mkstemp", full)
    assert unexpected_error.report_unexpected(MemoryError(), debug=False) == 70
    assert "unexpected MemoryError: --debug shows the whole traceback" in capsys.readouterr().err


def test_faults_that_a_check_found_and_what_a_person_can_mend_are_not_unexpected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["runs", str(tmp_path / "none")]) == 2
    monkeypatch.setattr(run_list, "check_folder", lambda url: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main(["runs", str(tmp_path)]) == 130
    assert "unexpected" not in capsys.readouterr().err
