"""One folder, one writer: `LOCK.json` in it says who writes there, and that it still lives.

Its holder counts it up every few seconds. Who comes later refuses while it moves, and takes it over when it
has stood still, or at once where it can be known that the holder is gone: its process on this machine, or
an earlier start of the same job. Clocks are not compared. A holder that finds another's lock stops.

Of two that begin at once the store lets one through where it can (`exclusive`); elsewhere both write, wait
a moment and read who is named.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace

from retfound_dist.errors import FormatError, RecordError, RetfoundError, StorageError
from retfound_dist.io import storage
from retfound_dist.records import json_reader
from retfound_dist.records.exclusive_write import Made, write_new
from retfound_dist.runtime.world import process_space

LOCK = "LOCK.json"
# STILL_S is more than three beats: one or two that a slow store swallows do not cost a live holder its lock.
BEAT_S, STILL_S, SETTLE_S = 10.0, 35.0, 0.5
TRIES = 3
"""Times that a new lock which arrived damaged is written again."""


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
    return Holder(uuid.uuid4().hex, platform.node(), place, os.getpid(), _job_name(env))


def _job_name(env: Mapping[str, str]) -> str:
    # Job numbers are unique within one cluster only. A requeued job keeps its number.
    if "SLURM_JOB_ID" in env:
        return f"slurm {env.get('SLURM_CLUSTER_NAME', '')} {env['SLURM_JOB_ID']}".replace("  ", " ")
    # `none` is torchrun's default, which all runs without --rdzv-id share: it identifies no job.
    meeting = env.get("TORCHELASTIC_RUN_ID", "none")
    return "" if meeting == "none" else f"torchrun {meeting}"


def is_same(one: str, other: str) -> bool:
    """Whether two ids of holders are of one; a letter may differ, for a bit can flip as a lock is written.

    Its holder then stays the holder, and puts it right as it counts the lock up.
    """
    return len(one) == len(other) and sum(a != b for a, b in zip(one, other, strict=True)) <= 1


class FolderLock:
    """The lock of one folder, for one process of those that write there together."""

    def __init__(
        self,
        url: str,
        say: Callable[[str], None],
        conflict: Callable[[Holder | None], RetfoundError],
        env: Mapping[str, str],
    ) -> None:
        """`conflict`: the error for a folder that is somebody else's; None: its lock was taken away.

        `env`: where a job's name is read, whose later starts follow the earlier ones at once.
        """
        self._folder, self._url, self._say = url, storage.join(url, LOCK), say
        self._conflict = conflict
        self._mine = this_holder(env)
        self._made_folder = False
        self._lost = ""
        self._ended = threading.Event()
        # A thread, because a step or a save may take longer than a beat.
        self._thread = threading.Thread(target=self._keep_alive, name="lock", daemon=True)

    def take(self) -> None:
        """Have the lock, or the `conflict`; from then on it is counted up."""
        current = self._read_current()
        if isinstance(current, bytes) or (current and not self._is_abandoned(current)):
            self._wait_for_silence(current)
        self._made_folder = storage.is_local(self._folder) and not storage.is_folder(self._folder)
        if not self._write_first():
            # Both may have written. After this pause both read, and the store names one of them.
            time.sleep(SETTLE_S)
        self._repair()
        self.confirm()
        self._thread.start()

    def confirm(self) -> None:
        """Raise the `conflict` where the lock is no longer this process's; asks the store."""
        if not self._is_mine(holder := self._holder()):
            raise self._conflict(holder)

    def check(self) -> str:
        """Empty, or why this process has to stop."""
        return self._lost

    def release(self) -> None:
        """Give the lock back; a folder that holds nothing else and was not there before goes too."""
        self._ended.set()
        if not self._thread.ident:
            return
        self._thread.join(BEAT_S)
        with suppress(RetfoundError):
            holder = self._read_holder()
            if self._is_mine(holder):
                storage.delete(self._url)
        if self._made_folder:
            with suppress(OSError):
                os.rmdir(storage.local_path(self._folder))

    def _wait_for_silence(self, holder: Holder | bytes) -> None:
        """Return when nobody counts the lock up; a holder that lives puts a damaged one (its bytes) right."""
        who = holder.described if isinstance(holder, Holder) else f"somebody whose {LOCK} is damaged"
        over = "" if isinstance(holder, Holder) else f" (who knows that nobody does deletes {self._url})"
        self._say(
            f"{self._folder} was held by {who}: waiting up to {STILL_S:.0f} s to see whether it runs{over}"
        )
        deadline = time.monotonic() + STILL_S
        while time.monotonic() < deadline:
            time.sleep(1)
            now = self._read_current()
            if now is None:
                return
            if now != holder:
                raise self._conflict(now if isinstance(now, Holder) else None)

    def _is_abandoned(self, holder: Holder) -> bool:
        if holder.job and holder.job == self._mine.job:
            return True
        # A number may belong to another process by now. Then the wait decides, which is only slower.
        return holder.place == self._mine.place and not os.path.exists(f"/proc/{holder.pid}")

    def _write_first(self) -> bool:
        """Write the lock; whether it is certain that nobody else does so at this moment."""
        if storage.exists(self._url):  # left behind by one that is gone
            self._write()
            return False
        return write_new(self._url, (json.dumps(asdict(self._mine)) + "\n").encode()) is not Made.UNSURE

    def _repair(self) -> None:
        """Write the lock again where it arrived so damaged that nobody is named in it."""
        for _ in range(TRIES):
            if not isinstance(self._read_current(), bytes):
                return
            self._write()

    def _keep_alive(self) -> None:
        while not self._ended.wait(BEAT_S):
            with suppress(RetfoundError):
                holder = self._holder()
                # A lock that is there and cannot be read counts as ours: it is written again below. A store
                # that fails for a while takes no lock away either.
                if not self._is_mine(holder) and (holder is not None or not storage.exists(self._url)):
                    self._lost = str(self._conflict(holder))
                    return
                self._mine = replace(self._mine, beat=self._mine.beat + 1)
                self._write()

    def _holder(self) -> Holder | None:
        """Who holds the lock; one that is not ours is read twice, for a byte can flip on its way."""
        holder = self._read_holder()
        return holder if self._is_mine(holder) else self._read_holder()

    def _is_mine(self, holder: Holder | None) -> bool:
        return holder is not None and is_same(holder.id, self._mine.id)

    def _read_current(self) -> Holder | bytes | None:
        """Who holds the lock, or the bytes of a damaged one; None: nobody. FormatError: a later version."""
        try:
            data = storage.read_bytes(self._url) if storage.exists(self._url) else None
            return None if data is None else json_reader.read(self._url, Holder, "")
        except FormatError:
            raise
        except RecordError:
            return data
        except StorageError:
            if storage.exists(self._url):
                raise
            return None

    def _read_holder(self) -> Holder | None:
        """Who holds the lock; None: nobody, or nobody can tell."""
        current = self._read_current()
        return current if isinstance(current, Holder) else None

    def _write(self) -> None:
        storage.write_json(self._url, asdict(self._mine))
