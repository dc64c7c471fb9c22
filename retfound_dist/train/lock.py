"""One run, one writer: `LOCK.json` in the run's folder says who it is, and that it still lives.

Its holder counts it up every few seconds. Who comes later refuses while it moves, and takes it over when it
has stood still, or at once where it can be known that the holder is gone: its process on this machine, or
an earlier start of the same job. Clocks are not compared. A holder that finds another's lock stops.
"""

from __future__ import annotations

import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from retfound_dist import records, storage, verified
from retfound_dist.errors import RecordError, RetfoundError, RunConflictError, StorageError
from retfound_dist.world import process_space

LOCK = "LOCK.json"
BEAT_S, STILL_S, SETTLE_S = 10.0, 35.0, 0.5


@dataclass(frozen=True)
class Holder:
    """Who holds a lock; `beat` counts up while it lives."""

    id: str
    host: str
    place: str
    """Names the machine and its process numbers' space since it was started."""
    pid: int
    job: str
    """What a start and its restarts share: Slurm's job or torchrun's rendezvous; empty: nothing."""
    beat: int = 0

    @property
    def described(self) -> str:
        """For a person."""
        job = f", job {self.job}" if self.job else ""
        return f"process {self.pid} on {self.host}{job}"


def this_holder(env: Mapping[str, str]) -> Holder:
    """This process."""
    place = platform.node()
    with suppress(OSError), open("/proc/sys/kernel/random/boot_id") as file:
        place = f"{place}/{file.read().strip()}/{process_space()}"
    return Holder(uuid.uuid4().hex, platform.node(), place, os.getpid(), _job(env))


def _job(env: Mapping[str, str]) -> str:
    if "SLURM_JOB_ID" in env:
        return f"slurm {env.get('SLURM_CLUSTER_NAME', '')} {env['SLURM_JOB_ID']}".replace("  ", " ")
    meeting = env.get("TORCHELASTIC_RUN_ID", "none")
    return "" if meeting == "none" else f"torchrun {meeting}"


def has_lost(run_url: str, lock_id: str) -> bool:
    """Whether another start holds the run's lock by now; a lock that is gone or damaged is nobody's."""
    where = storage.join(run_url, LOCK)
    try:
        held = records.read(where, dict[str, Any], "")
    except RecordError:
        return False
    except StorageError as error:
        if verified.is_missing(error):
            return False
        raise
    return bool(held.get("id", lock_id) != lock_id)


class RunLock:
    """The lock of one run, for rank 0."""

    def __init__(self, run_url: str, say: Callable[[str], None]) -> None:
        self._run, self._url, self._say = run_url, storage.join(run_url, LOCK), say
        self._mine = this_holder(os.environ)
        self._made_folder = False
        self._lost: Holder | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lock", daemon=True)

    def take(self) -> None:
        """Have the lock, or RunConflictError; from then on it is counted up."""
        held = self._read()
        if held and not self._abandoned(held):
            self._wait_for_silence(held)
        self._made_folder = storage.is_local(self._run) and not storage.is_folder(self._run)
        self._write()
        time.sleep(SETTLE_S)
        now = self._read()
        if now is None or now.id != self._mine.id:
            raise self._conflict(now or self._mine)
        self._thread.start()

    @property
    def id(self) -> str:
        """Tells this holder's lock from all others."""
        return self._mine.id

    def check(self) -> str:
        """Empty, or why this run has to stop."""
        return str(self._conflict(self._lost)) if self._lost else ""

    def release(self) -> None:
        """Give the lock back; a folder that holds nothing else and was not there before goes too."""
        self._ended.set()
        if not self._thread.ident:
            return
        self._thread.join(BEAT_S)
        with suppress(RetfoundError):
            held = self._read()
            if held and held.id == self._mine.id:
                storage.delete(self._url)
        if self._made_folder:
            with suppress(OSError):
                os.rmdir(storage.local_path(self._run))

    def _wait_for_silence(self, held: Holder) -> None:
        self._say(
            f"{self._run} was held by {held.described}: waiting up to {STILL_S:.0f} s to see whether it runs"
        )
        until = time.monotonic() + STILL_S
        while time.monotonic() < until:
            time.sleep(1)
            now = self._read()
            if now is None:
                return
            if now != held:
                raise self._conflict(now)

    def _abandoned(self, held: Holder) -> bool:
        if held.job and held.job == self._mine.job:
            return True
        return held.place == self._mine.place and not os.path.exists(f"/proc/{held.pid}")

    def _conflict(self, held: Holder) -> RunConflictError:
        return RunConflictError(
            f"{self._run} is being run by {held.described}: "
            "wait for it or stop it, or give this run a run.url of its own"
        )

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S):
            with suppress(RetfoundError):
                held = self._read()
                if held is not None and held.id != self._mine.id:
                    self._lost = held
                    return
                self._mine = replace(self._mine, beat=self._mine.beat + 1)
                self._write()

    def _read(self) -> Holder | None:
        if not storage.exists(self._url):
            return None
        try:
            return Holder(**storage.read_json(self._url))
        except TypeError:
            return None  # not ours to understand: our own takes its place
        except StorageError:
            if storage.exists(self._url):
                raise
            return None

    def _write(self) -> None:
        storage.write_json(self._url, asdict(self._mine))
