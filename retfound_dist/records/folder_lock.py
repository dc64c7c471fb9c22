"""A lock for one folder: `LOCK.json` names the only process that may write there, and shows that it is alive.

The holder increments a counter in the file every few seconds. A later process does not start while the
counter increases. It takes over the lock when the counter has not changed for a while. It takes it over at
once where the holder is known to be dead: a process of this machine that ended, or an earlier start of the
same job. Clocks are not compared. A holder that finds the lock of another process stops.

Where two processes start at the same time, the store accepts only one of them if it can (`exclusive_write`).
Otherwise both write, wait a moment, and read which of them the lock names.
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
from retfound_dist.runtime.world import pid_namespace

LOCK = "LOCK.json"
# STALE_AFTER_S is more than three heartbeats: a living holder keeps its lock if a slow store loses one or
# two.
HEARTBEAT_S, STALE_AFTER_S, RACE_PAUSE_S = 10.0, 35.0, 0.5
REPAIR_ATTEMPTS = 3
"""How often a new lock that arrived damaged is written again."""
STABLE_READS = 4
"""How often a lock is read again that differs from one reading to the next."""


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock. `beat` increases while it is alive."""

    id: str
    host: str
    place: str
    """Identifies the machine, its last boot and its namespace of process numbers."""
    pid: int
    job: str
    """Slurm's job or torchrun's rendezvous, the same for a start and its restarts; empty: there is none."""
    beat: int = 0

    @property
    def description(self) -> str:
        """The holder as a text for messages."""
        job = f", job {self.job}" if self.job else ""
        return f"process {self.pid} on {self.host}{job}"


def this_holder(env: Mapping[str, str]) -> Holder:
    """This process as a holder."""
    place = platform.node()
    with suppress(OSError), open("/proc/sys/kernel/random/boot_id") as file:
        place = f"{place}/{file.read().strip()}/{pid_namespace()}"
    return Holder(uuid.uuid4().hex, platform.node(), place, os.getpid(), _job_name(env))


def _job_name(env: Mapping[str, str]) -> str:
    # Job numbers are unique only within one cluster. A requeued job keeps its number.
    if "SLURM_JOB_ID" in env:
        return f"slurm {env.get('SLURM_CLUSTER_NAME', '')} {env['SLURM_JOB_ID']}".replace("  ", " ")
    # `none` is torchrun's default, which all runs without --rdzv-id share: it identifies no job.
    rendezvous_id = env.get("TORCHELASTIC_RUN_ID", "none")
    return "" if rendezvous_id == "none" else f"torchrun {rendezvous_id}"


def is_same_id(one: str, other: str) -> bool:
    """Whether two ids belong to the same holder. One letter may differ, because a bit may change on its way.

    Then the holder keeps its lock and corrects the id with its next heartbeat.
    """
    return len(one) == len(other) and sum(a != b for a, b in zip(one, other, strict=True)) <= 1


class FolderLock:
    """The lock of one folder. One of the processes of a command holds it."""

    def __init__(
        self,
        url: str,
        print_line: Callable[[str], None],
        conflict_error: Callable[[Holder | None], RetfoundError],
        env: Mapping[str, str],
    ) -> None:
        """`conflict_error` makes the error for a folder that another process holds; None: the lock was
        removed.

        `env`: the environment that names the job. Later starts of a job take over from earlier ones at once.
        """
        self._folder, self._url, self._print_line = url, storage.join(url, LOCK), print_line
        self._conflict_error = conflict_error
        self._own_holder = this_holder(env)
        self._created_folder = False
        self._lost_reason = ""
        self._ended = threading.Event()
        # A thread, because a step or a save may take longer than the time between two heartbeats.
        self._thread = threading.Thread(target=self._keep_alive, name="lock", daemon=True)

    def acquire(self) -> None:
        """Acquire the lock and keep it alive. Raises the conflict error where another process holds it."""
        current = self._read_stable()
        if isinstance(current, bytes) or (current and not self._is_abandoned(current)):
            self._wait_for_silence(current)
        self._created_folder = storage.is_local(self._folder) and not storage.is_folder(self._folder)
        if not self._write_first():
            # Both processes may have written. After this pause both read which of them the lock names.
            time.sleep(RACE_PAUSE_S)
        self._repair()
        self.check_still_held()
        self._thread.start()

    def delete_if_abandoned(self) -> None:
        """Delete the lock, without acquiring it, where its process is known to be dead."""
        with suppress(RetfoundError):
            current = self._read_stable()
            if isinstance(current, Holder) and self._is_abandoned(current):
                storage.delete(self._url)

    def check_still_held(self) -> None:
        """Raise the conflict error where this process no longer holds the lock. Reads from the store."""
        if not self._is_mine(holder := self._confirmed_holder()):
            raise self._conflict_error(holder)

    def lost_reason(self) -> str:
        """Why this process has to stop; empty while it holds the lock. Does not access the store."""
        return self._lost_reason

    def release(self) -> None:
        """Release the lock. A folder that `acquire` created is removed too if it is empty."""
        self._ended.set()
        if not self._thread.ident:
            return
        self._thread.join(HEARTBEAT_S)
        with suppress(RetfoundError):
            current = self._read_stable()
            # A damaged lock is this process's own, because no other has taken it: its last heartbeat arrived
            # damaged. Left behind, it would let the next start wait, or stop it.
            is_own_damaged = isinstance(current, bytes) and not self._lost_reason
            if is_own_damaged or (isinstance(current, Holder) and self._is_mine(current)):
                storage.delete(self._url)
        if self._created_folder:
            with suppress(OSError):
                os.rmdir(storage.local_path(self._folder))

    def _wait_for_silence(self, holder: Holder | bytes) -> None:
        """Return when the lock has not changed for a while. A living holder would repair a damaged one
        (bytes)."""
        holder_text = (
            holder.description if isinstance(holder, Holder) else f"a process whose {LOCK} is damaged"
        )
        advice = (
            "" if isinstance(holder, Holder) else f" (if you are sure that it is not, delete {self._url})"
        )
        self._print_line(
            f"{self._folder} is locked by {holder_text}: waiting up to {STALE_AFTER_S:.0f} s "
            f"to see whether it is alive{advice}"
        )
        deadline = time.monotonic() + STALE_AFTER_S
        while time.monotonic() < deadline:
            time.sleep(1)
            current = self._read_current()
            if current != holder:
                # Only what stays so was written by a living process. A byte may also change on its way.
                current = self._read_stable()
            if current is None:
                return
            if current != holder:
                named = current if isinstance(current, Holder) else holder
                raise self._conflict_error(named if isinstance(named, Holder) else None)

    def _is_abandoned(self, holder: Holder) -> bool:
        """Whether the holder is an earlier start of this job, or an ended process of this machine."""
        if holder.job and holder.job == self._own_holder.job:
            return True
        # The number may belong to another process by now. Then the wait decides, which is only slower.
        return holder.place == self._own_holder.place and not os.path.exists(f"/proc/{holder.pid}")

    def _write_first(self) -> bool:
        """Write the lock. Returns whether it is certain that no other process wrote it at the same moment."""
        if storage.exists(self._url):  # left behind by a dead process
            self._write()
            return False
        data = (json.dumps(asdict(self._own_holder)) + "\n").encode()
        return write_new(self._url, data) is not WriteResult.UNCERTAIN

    def _repair(self) -> None:
        """Write the lock again where it arrived too damaged to name a holder."""
        for _ in range(REPAIR_ATTEMPTS):
            if not isinstance(self._read_current(), bytes):
                return
            self._write()

    def _keep_alive(self) -> None:
        """The thread's loop: renew the lock, until another process has taken it."""
        while not self._ended.wait(HEARTBEAT_S):
            with suppress(RetfoundError):
                holder = self._confirmed_holder()
                # A lock that exists and cannot be read counts as ours, and is written again below. A store
                # that fails for a while does not end a lock either.
                if not self._is_mine(holder) and (holder is not None or not storage.exists(self._url)):
                    self._lost_reason = str(self._conflict_error(holder))
                    return
                self._own_holder = replace(self._own_holder, beat=self._own_holder.beat + 1)
                self._write()

    def _confirmed_holder(self) -> Holder | None:
        """The holder of the lock. One that is not this process is read twice, because a byte may change on
        its way."""
        holder = self._read_holder()
        return holder if self._is_mine(holder) else self._read_holder()

    def _is_mine(self, holder: Holder | None) -> bool:
        return holder is not None and is_same_id(holder.id, self._own_holder.id)

    def _read_current(self) -> Holder | bytes | None:
        """The holder, or the bytes of a damaged lock; None: no lock. FormatError for the lock of a later
        version."""
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

    def _read_stable(self) -> Holder | bytes | None:
        """What two readings in a row agree on; after `STABLE_READS` the last one."""
        current = self._read_current()
        for _ in range(STABLE_READS):
            previous, current = current, self._read_current()
            if current == previous:
                break
        return current

    def _read_holder(self) -> Holder | None:
        """The holder; None where there is no lock, or a damaged one."""
        current = self._read_current()
        return current if isinstance(current, Holder) else None

    def _write(self) -> None:
        storage.write_json(self._url, asdict(self._own_holder))
