"""`retfound pack` is killed with kill -9 at random times and started again: is the shard set the same?

    python -m benchmarks.pack_storm [--kills 20] [--append] [--s3] [--seed N]

A small generated corpus is packed on disk or on rclone's S3 server by a process that is killed again and
again. Each start uses the same command with another number of workers (1 to 3). A kill hits the whole process
group, or only the main process; its workers must then end by themselves. A pack that ends before its kill is
compared and deleted, and packing begins again, until all kills are done. Every complete set must have the
same files with the same bytes as one that was packed without kills. With --append, the kills hit `retfound
pack --append`, and the old set must be readable after each of them. Exit 1 names the broken promises.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.report import Row, finish, median_of
from retfound_dist.errors import RetfoundError
from retfound_dist.formats.shard_set import MANIFEST, read_manifest
from retfound_dist.io import storage
from tests import ROOT
from tests.cluster.real_parts import clean_environment
from tests.cluster.real_s3 import rclone, with_new_bucket

PATIENTS, MOST_WORKERS = 60, 3
FIRST = ["configs/demo/pack.toml", f"phantom.patients={PATIENTS}", "out.shard_mb=0.1", "source.name=first"]
MORE = [*FIRST[:3], "source.name=second", "phantom.seed=1", "--append"]
Print = Callable[[str], None]


@dataclass
class PackStorm:
    """The results of all kills."""

    kills: int = 0
    main_only: int = 0
    """Kills of the main process alone."""
    finished: int = 0
    """Packs that were completed; each is compared."""
    moments: list[float] = field(default_factory=list)
    """Seconds from the start of each killed process to its kill."""
    shards: list[int] = field(default_factory=list)
    """Committed shards at each kill."""
    half_done: int = 0
    """Kills that left a tar without its record, or a part of a file."""
    broken: list[str] = field(default_factory=list)
    """A line for each broken promise."""


class Place:
    """A folder or bucket in which sets are packed."""

    def __init__(self, url: str, env: Mapping[str, str], draw: random.Random) -> None:
        self.url, self.env, self.draw = url, env, draw

    def start(self, settings: Sequence[str], name: str) -> subprocess.Popen[str]:
        """A pack into the set of this name, with some number of workers."""
        arguments = [
            *settings,
            f"out.url={self.set(name)}",
            f"out.workers={self.draw.randint(1, MOST_WORKERS)}",
        ]
        return subprocess.Popen(
            [sys.executable, "-m", "retfound_dist", "pack", *arguments], env=self.env, cwd=ROOT, text=True,
            start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip

    def set(self, name: str) -> str:
        """URL of a set."""
        return storage.join(self.url, name)

    def names(self, name: str) -> list[str]:
        """The files in a set's folder."""
        return storage.list_names(self.set(name))

    def content(self, name: str) -> dict[str, bytes]:
        """Every file of a set."""
        return {file: storage.read_bytes(storage.join(self.set(name), file)) for file in self.names(name)}

    def copy(self, files: Mapping[str, bytes], name: str) -> None:
        """A set of these files and no others."""
        storage.delete(self.set(name))
        for file, data in files.items():
            storage.write_bytes(storage.join(self.set(name), file), data)


def storm(place: Place, kills: int, append: bool, print_line: Print = lambda text: None) -> PackStorm:
    """Pack once without kills, then with kills; prints how each process ended."""
    result = PackStorm()
    before: dict[str, bytes] = {}
    if append:
        run_through(place, FIRST, "whole")
        before = place.content("whole")
    settings = MORE if append else FIRST
    undisturbed_s = run_through(place, settings, "whole")
    expected = place.content("whole")
    place.copy(before, "stormy")
    while result.kills < kills:
        if not kill_once(place, settings, result, undisturbed_s, print_line):
            compare(place, expected, result, print_line)
            place.copy(before, "stormy")
            continue
        if append and storage.exists(storage.join(place.set("stormy"), MANIFEST)):
            manifest = read_manifest(place.set("stormy"))
            if storage.read_bytes(storage.join(manifest.url, MANIFEST)) not in (
                before[MANIFEST],
                expected[MANIFEST],
            ):
                result.broken.append(f"kill {result.kills} left a manifest of neither set")
        elif append:
            result.broken.append(f"kill {result.kills} left the old set without its manifest")
    run_through(place, settings, "stormy")
    compare(place, expected, result, print_line)
    return result


def run_through(place: Place, settings: Sequence[str], name: str) -> float:
    """Run a pack without a kill; returns its seconds."""
    began = time.monotonic()
    process = place.start(settings, name)
    _, stderr = process.communicate(timeout=300)
    if process.returncode:
        raise RetfoundError(f"the pack left with {process.returncode}: {stderr[-2000:]}")
    return time.monotonic() - began


def kill_once(
    place: Place, settings: Sequence[str], result: PackStorm, undisturbed_s: float, print_line: Print
) -> bool:
    """Start a process and kill it at a random time; False where it ended before."""
    began, process = time.monotonic(), place.start(settings, "stormy")
    wait_for_a_moment(place, process, undisturbed_s)
    if process.poll() is not None:
        stderr = process.communicate()[1]
        if process.returncode:
            result.broken.append(
                f"after kill {result.kills} it left with {process.returncode}: {stderr[-500:]}"
            )
            result.kills += 1  # otherwise a pack that always fails would be started for ever
        return False
    main_only = place.draw.random() < 0.5
    workers = children(process.pid)
    if main_only:
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    result.moments.append(time.monotonic() - began)
    result.kills, result.main_only = result.kills + 1, result.main_only + main_only
    if survivors := surviving(workers):
        result.broken.append(f"kill {result.kills}: {len(survivors)} workers outlive the pack")
    count_state(place, result)
    who = "main process" if main_only else "all processes"
    print_line(
        f"kill {result.kills} ({who}) after {result.moments[-1]:.1f} s, {result.shards[-1]} shards committed"
    )
    return True


def wait_for_a_moment(place: Place, process: subprocess.Popen[str], undisturbed_s: float) -> None:
    """Return at a random time, soon after some more shards were committed, or when the process has ended."""
    if place.draw.random() < 0.4:
        with suppress(subprocess.TimeoutExpired):
            process.wait(place.draw.uniform(0.05, 0.8) * undisturbed_s)
        return
    target_shards = records(place) + place.draw.randint(1, 6)
    while process.poll() is None and records(place) < target_shards:
        time.sleep(0.002)
    time.sleep(place.draw.uniform(0, 0.05))


def records(place: Place) -> int:
    """Number of committed shards of the set."""
    return sum(name.endswith(".idx") for name in place.names("stormy"))


def count_state(place: Place, result: PackStorm) -> None:
    """Count committed shards, and whether the kill left an uncommitted file."""
    names = place.names("stormy")
    committed = {name.removesuffix(".idx") for name in names if name.endswith(".idx")}
    uncommitted = [n for n in names if n.endswith(".tmp") or (n.endswith(".tar") and n[:-4] not in committed)]
    result.shards.append(len(committed))
    result.half_done += bool(uncommitted)


def compare(place: Place, expected: Mapping[str, bytes], result: PackStorm, print_line: Print) -> None:
    """Compare a complete set with the one that was packed without kills."""
    result.finished += 1
    content = place.content("stormy")
    files = sorted(expected.keys() | content.keys())
    wrong = [file for file in files if expected.get(file) != content.get(file)]
    if wrong:
        result.broken.append(f"after kill {result.kills} {len(wrong)} files differ: {', '.join(wrong[:5])}")
    print_line(f"finished after {result.kills} kills: {len(content)} files, {len(wrong)} differ")


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    with suppress(FileNotFoundError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def surviving(processes: Sequence[int], seconds: float = 20.0) -> list[int]:
    """The processes that still run after so many seconds."""
    end = time.monotonic() + seconds
    while survivors := [pid for pid in processes if _runs(pid)]:
        if time.monotonic() > end:
            return survivors
        time.sleep(0.02)
    return []


def _runs(pid: int) -> bool:
    """Whether a process runs and is not a zombie."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def table(result: PackStorm) -> list[Row]:
    """The rows of the results."""
    return [
        Row("kills", result.kills, "", f"{result.main_only} of the main process alone"),
        median_of("a killed process had lived", result.moments, "s", 1),
        median_of("shards committed at a kill", result.shards, "shards"),
        Row("left a file without its record", result.half_done, "kills"),
        Row("packs brought to their end", result.finished, "", "each compared, file by file"),
        Row("promises broken", len(result.broken), ""),
    ]


def main() -> int:
    """Measure and print; 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--append", action="store_true", help="kill `retfound pack --append`")
    parser.add_argument("--s3", action="store_true", help="onto rclone's S3 server")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    args = parser.parse_args()
    print(f"--seed {args.seed}", flush=True)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        env = clean_environment({"TMPDIR": folder})
        url = folder + "/sets"
        if args.s3:
            server = with_new_bucket(stack.enter_context(rclone(Path(folder) / "store")))
            env |= server.environment()
            os.environ.update(server.environment())
            url = server.url
        place = Place(url, env, random.Random(args.seed))
        result = storm(place, args.kills, args.append, lambda text: print(text, flush=True))
    for line in result.broken:
        print(f"BROKEN: {line}")
    name = "pack-storm" + "-append" * args.append + "-s3" * args.s3
    action = "--append" if args.append else "packing"
    title = (
        f"{action} onto {'S3 (rclone)' if args.s3 else 'disk'}, killed {args.kills} times, seed {args.seed}"
    )
    ratios = {
        "promises_broken": float(len(result.broken)),
        "median_life_s": statistics.median(result.moments),
    }
    columns = ("value", "unit", "of that")
    finish(name, title, table(result), ratios, ("numpy", "pillow", "s3fs"), columns=columns)
    return bool(result.broken)


if __name__ == "__main__":
    sys.exit(main())
