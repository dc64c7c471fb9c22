"""What all tests on real parts need: programs that are there, commands run, conditions awaited."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests import ROOT

INFRA = Path(__file__).parent / "infra"


def need(*programs: str) -> None:
    """Skip the test when a program is not installed; in CI, fail it."""
    path = clean_environment()["PATH"]
    missing = [program for program in programs if shutil.which(program, path=path) is None]
    if missing:
        message = f"{', '.join(missing)} not installed: run .ci/install-system-packages"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)


def need_root() -> None:
    """Network namespaces and system daemons want root."""
    if os.geteuid() != 0:
        message = "needs root: makes network namespaces"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without AWS and Slurm settings, its virtual environment first on PATH."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "SLURM_", "SBATCH_"))}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    return env | dict(extra or {})


def run(
    *command: str | Path,
    env: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
    timeout: float = 300,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run a command; on failure show what it said."""
    done = subprocess.run(
        [str(part) for part in command],
        env=clean_environment(env),
        cwd=cwd,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if check and done.returncode != 0:
        pytest.fail(f"{' '.join(map(str, command))}\nleft with {done.returncode}:\n{done.stdout[-4000:]}")
    return done


PATIENCE = 3
"""How much longer than usual things may take: CI machines are shared, and no test asserts on a clock."""


def wait_until(condition: Callable[[], bool], seconds: float, what: str, every: float = 0.2) -> None:
    """Poll a callable until it is true; fail with `what` after PATIENCE times the usual `seconds`."""
    seconds *= PATIENCE
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"after {seconds:g} s still not: {what}")
        time.sleep(every)


def read_logs(folder: Path) -> str:
    """All log files of a folder, one after the other."""
    return "\n".join(f"--- {p.name}\n{p.read_text(errors='replace')}" for p in sorted(folder.rglob("*.log")))


def clone_with_stand_in(folder: Path) -> Path:
    """A clone of the repository whose trainer is `stand_in.py`."""
    (folder / "launch").symlink_to(ROOT / "launch")
    (folder / "notes").mkdir()
    (folder / "retfound_dist").mkdir()
    (folder / "retfound_dist" / "__init__.py").touch()
    shutil.copy(Path(__file__).parent / "stand_in.py", folder / "retfound_dist" / "__main__.py")
    return folder


def notes(clone: Path) -> dict[str, list[str]]:
    """What each rank of the stand-in noted."""
    return {path.name: path.read_text().splitlines() for path in sorted((clone / "notes").iterdir())}
