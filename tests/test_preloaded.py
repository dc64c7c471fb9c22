"""A forked `retfound` looks from outside like one that was started."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests import ROOT, preloaded


def dashboard(folder: Path) -> subprocess.Popen[str]:
    """A command that goes on until it is ended, and that has said its first line."""
    process = subprocess.Popen(
        [*preloaded.retfound(), "dashboard", str(folder), "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
    )  # fmt: skip
    assert process.stdout
    assert "http://" in process.stdout.readline()
    return process


def commands() -> list[psutil.Process]:
    """The forked commands that run."""
    [server] = [one for one in psutil.Process().children() if "tests.preloaded" in one.cmdline()]
    return [one for child in server.children() for one in child.children()]


def test_it_has_the_output_and_the_exit_code_of_the_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [*preloaded.retfound(), "verify", "nothing"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("retfound: ")


def test_a_signal_reaches_the_command_and_its_end_by_a_signal_is_seen(tmp_path: Path) -> None:
    with dashboard(tmp_path) as process:
        [command] = commands()
        process.terminate()
        assert process.wait(60) in (0, -15)
    assert not command.is_running()


def test_a_killed_client_takes_its_command_along(tmp_path: Path) -> None:
    with dashboard(tmp_path) as process:
        [command] = commands()
        process.kill()
        assert process.wait(60) == -9
    deadline = time.monotonic() + 60
    while command.is_running() and command.status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            pytest.fail("the command goes on")
        time.sleep(0.05)
