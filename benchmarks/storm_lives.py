"""A training process that is killed at random moments and started again, until it is left to finish."""

from __future__ import annotations

import random
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from retfound_dist.errors import TrainingError
from retfound_dist.formats import checkpoint_folder
from tests import ROOT

EVERY = 3
"""Steps between checkpoints."""
AIMS = ("start", "step", "save")
"""What a kill is meant to meet."""
Say = Callable[[str], None]


@dataclass
class Life:
    """One process of the run, from its start to its end."""

    process: subprocess.Popen[str]
    aim: str
    committed: int | None = None
    """The newest committed step when it said where it goes on; None when it did not get there."""
    began: float = field(default_factory=time.time)
    ended: float = 0.0
    saving: bool = False
    """Whether a checkpoint was being written when it was killed."""
    said: list[tuple[float, str]] = field(default_factory=list)
    """Each line on stderr, and when."""

    def when(self, pattern: str) -> tuple[float, str]:
        """When it first said a line, and the pattern's group; (0, "") when it never did."""
        for moment, line in self.said:
            if found := re.search(pattern, line):
                return moment, found[1]
        return 0.0, ""

    def resumed(self) -> str:
        """The step it said it resumes at."""
        return self.when(r"resuming at step (\d+)")[1]

    def ready(self) -> float:
        """When it began to train; 0 when it did not get there."""
        return self.when(r"(steps of .*; run )")[0]

    def last_words(self) -> str:
        """The end of what it said."""
        return "\n".join(line for _, line in self.said[-20:])


class Store:
    """The run as rclone keeps it on disk: looked at without asking the server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def committed(self) -> int:
        """The newest committed step, 0 for none."""
        return max(checkpoint_folder.list_steps(str(self.folder)), default=0)

    def commits(self) -> int:
        """How many checkpoints are committed."""
        return len(checkpoint_folder.list_steps(str(self.folder)))

    def saving_since(self, since: float) -> bool:
        """Whether a checkpoint has been begun after a moment, and is not committed."""
        newest = max(self._checkpoints(), key=_changed, default=None)
        return (
            newest is not None
            and _changed(newest) >= since
            and not (newest / checkpoint_folder.COMMIT).exists()
        )

    def save_s(self) -> float:
        """Seconds from the first file of the newest committed checkpoint to its commit."""
        for folder in reversed(self._checkpoints()):
            if (folder / checkpoint_folder.COMMIT).exists():
                files = [path.stat().st_mtime for path in folder.rglob("*") if path.is_file()]
                return max(files) - min(files)
        return 0.5

    def _checkpoints(self) -> list[Path]:
        return sorted((self.folder / "checkpoints").glob("step_*"))


def _changed(folder: Path) -> float:
    """When a file was last written below a folder."""
    with suppress(FileNotFoundError):
        return max((path.stat().st_mtime for path in folder.rglob("*")), default=0.0)
    return 0.0


def lives(
    command: Sequence[str], env: Mapping[str, str], store: Store, kills: int, draw: random.Random, say: Say
) -> Iterator[Life]:
    """Start, kill, start again at once; after the last kill to the end. Gives each process when over."""
    aims = [AIMS[number % len(AIMS)] for number in range(kills)]
    draw.shuffle(aims)
    usual_start = 10.0
    for number, aim in enumerate([*aims, "end"], 1):
        life = Life(_start(command, env), aim)
        threading.Thread(target=_listen, args=(life, store), daemon=True).start()
        if aim == "end":
            life.process.wait(600)
        else:
            _wait_for(aim, life, store, draw, usual_start)
        early = life.process.poll()
        life.process.kill()
        life.ended = time.time()
        life.process.wait()
        life.saving = store.saving_since(life.began)
        if ready := life.ready():
            usual_start = ready - life.began
        yield life
        if early is not None:
            if (aim, early) != ("end", 0):
                raise TrainingError(f"process {number} left with {early} too early: {life.last_words()}")
            return
        where = f"committed is step {store.committed()}{', half of another' if life.saving else ''}"
        say(f"kill {number} ({aim}) after {life.ended - life.began:.1f} s, {where}")


def _start(command: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, env=env, cwd=ROOT, text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def _listen(life: Life, store: Store) -> None:
    assert life.process.stderr is not None
    for line in life.process.stderr:
        life.said.append((time.time(), line.rstrip()))
        if life.committed is None and (life.resumed() or life.ready()):
            life.committed = store.committed()


def _wait_for(aim: str, life: Life, store: Store, draw: random.Random, usual_start: float) -> None:
    """Return at a random moment of a start, of the steps, or of a save; at once when the process is gone."""
    if aim == "start":
        _sleep(life, draw.uniform(0, usual_start))
        return
    wanted = store.commits() + draw.randint(0, 2)

    def there() -> bool:
        if not life.ready() or store.commits() < wanted:
            return False
        return aim == "step" or store.saving_since(life.began)

    while not there():
        if life.process.poll() is not None or time.time() - life.began > 300:
            return
        time.sleep(0.02)
    _sleep(life, draw.uniform(0, store.save_s() if aim == "save" else 1.0))


def _sleep(life: Life, seconds: float) -> None:
    with suppress(subprocess.TimeoutExpired):
        life.process.wait(seconds)
