"""A lock for one folder: `LOCK.json` names the one process that writes there, and shows that it lives.

The holder increments a counter in it every few seconds. A later process refuses to start while the counter
moves. It takes the lock over when the counter has stood still, or at once where the holder is known to be
gone: a dead process of this machine, or an earlier start of the same job. Clocks are not compared. A holder
that finds another's lock stops.

Where two processes start at the same time, the store lets one through if it can (`exclusive_write`).
Elsewhere both write, wait a moment, and read which of them is named.
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
from retfound_dist.records.exclusive_write import WriteResult, write_new
from retfound_dist.runtime.world import process_space

LOCK = "LOCK.json"
# STILL_S is more than three beats: one or two that a slow store swallows do not cost a live holder its lock.
BEAT_S, STILL_S, SETTLE_S = 10.0, 35.0, 0.5
TRIES = 3
"""How often a new lock that arrived damaged is written again."""


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock. `beat` increases while it lives."""

    id: str
    host: str
    place: str
    """Identifies the machine, its last boot and its space of process numbers."""
    pid: int
    job: str
    """Slurm's job or torchrun's rendezvous, which a start and its restarts share; empty: there is none."""
    beat: int = 0

    @property
    def described(self) -> str:
        """The holder in words, for messages."""
        job = f", job {self.job}" if self.job else ""
        return f"process {self.pid} on {self.host}{job}"


def this_holder(env: Mapping[str, str]) -> Holder:
    """This process as a holder."""
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
    """Whether two ids are of the same holder. One letter may differ, because a bit can flip on its way.

    The holder then stays the holder, and corrects the id with its next beat.
    """
    return len(one) == len(other) and sum(a != b for a, b in zip(one, other, strict=True)) <= 1


class FolderLock:
    """The lock of one folder. Of the processes that write there together, one holds it."""

    def __init__(
        self,
        url: str,
        say: Callable[[str], None],
        conflict: Callable[[Holder | None], RetfoundError],
        env: Mapping[str, str],
    ) -> None:
        """`conflict` makes the error for a folder that another process holds; None: its lock was removed.

        `env`: the environment that names the job. Later starts of a job take over from earlier ones at once.
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
        """Acquire the lock and keep it alive. Raises the `conflict` where another process lives."""
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

    def drop_if_abandoned(self) -> None:
        """Delete the lock, without acquiring it, where its process is known to be dead."""
        with suppress(RetfoundError):
            current = self._read_current()
            if isinstance(current, Holder) and self._is_abandoned(current):
                storage.delete(self._url)

    def confirm(self) -> None:
        """Raise the `conflict` where this process no longer holds the lock. Reads from the store."""
        if not self._is_mine(holder := self._holder()):
            raise self._conflict(holder)

    def check(self) -> str:
        """Why this process has to stop; empty while it holds the lock. Reads nothing."""
        return self._lost

    def release(self) -> None:
        """Release the lock. A folder that `take` created and that holds nothing else is removed too."""
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
        """Return when the lock has stood still. A live holder would repair a damaged one (bytes)."""
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
        """Write the lock. Returns whether it is certain that no other process did so at the same moment."""
        if storage.exists(self._url):  # left behind by one that is gone
            self._write()
            return False
        return (
            write_new(self._url, (json.dumps(asdict(self._mine)) + "\n").encode()) is not WriteResult.UNSURE
        )

    def _repair(self) -> None:
        """Write the lock again where it arrived so damaged that it names nobody."""
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
        """Who holds the lock. A lock that is not ours is read twice, because a byte can flip on its way."""
        holder = self._read_holder()
        return holder if self._is_mine(holder) else self._read_holder()

    def _is_mine(self, holder: Holder | None) -> bool:
        return holder is not None and is_same(holder.id, self._mine.id)

    def _read_current(self) -> Holder | bytes | None:
        """The holder, or the bytes of a damaged lock; None: nobody. FormatError for a later version."""
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
        """The holder; None where there is no lock, or a damaged one."""
        current = self._read_current()
        return current if isinstance(current, Holder) else None

    def _write(self) -> None:
        storage.write_json(self._url, asdict(self._mine))
