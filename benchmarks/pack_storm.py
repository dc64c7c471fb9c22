"""`retfound pack` killed by kill -9 at random moments and started again: is it still the same shard set?

    python -m benchmarks.pack_storm [--kills 20] [--append] [--s3] [--seed N]

A small generated corpus is packed by a process that is killed again and again, each time by the same
command with another number of workers (1 to 3), on disk or on rclone's S3 server. Now the whole
process group dies, now the main process alone, whose workers then have to go by themselves. A pack that
is done before it is killed is looked at, removed, and begun anew, until the kills are used up. Every set
that was finished must be byte-identical to one that nobody disturbed: all files, and no others. With
--append the kills fall on `retfound pack --append`, and the old set must be readable after each of them.
Exit 1 names what does not hold.
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
Say = Callable[[str], None]


@dataclass
class PackStorm:
    """What came of it."""

    kills: int = 0
    alone: int = 0
    """Kills of the main process only."""
    finished: int = 0
    """Packs that ran to their end, each compared."""
    moments: list[float] = field(default_factory=list)
    """Seconds that each killed process lived."""
    shards: list[int] = field(default_factory=list)
    """Committed shards at each kill."""
    half_done: int = 0
    """Kills that left a tar without its record, or a part of a file."""
    broken: list[str] = field(default_factory=list)
    """Promises that were not kept."""


class Place:
    """A folder or bucket in which sets are packed."""

    def __init__(self, url: str, env: Mapping[str, str], draw: random.Random) -> None:
        self.url, self.env, self.draw = url, env, draw

    def start(self, settings: Sequence[str], name: str) -> subprocess.Popen[str]:
        """A pack into the set of this name, with some number of workers."""
        words = [*settings, f"out.url={self.set(name)}", f"out.workers={self.draw.randint(1, MOST_WORKERS)}"]
        return subprocess.Popen(
            [sys.executable, "-m", "retfound_dist", "pack", *words], env=self.env, cwd=ROOT, text=True,
            start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip

    def set(self, name: str) -> str:
        """URL of a set."""
        return storage.join(self.url, name)

    def names(self, name: str) -> list[str]:
        """What stands in a set's folder."""
        return storage.list_names(self.set(name))

    def content(self, name: str) -> dict[str, bytes]:
        """Every file of a set."""
        return {file: storage.read_bytes(storage.join(self.set(name), file)) for file in self.names(name)}

    def copy(self, files: Mapping[str, bytes], name: str) -> None:
        """A set of these files and no others."""
        storage.delete(self.set(name))
        for file, data in files.items():
            storage.write_bytes(storage.join(self.set(name), file), data)


def storm(place: Place, kills: int, append: bool, say: Say = lambda text: None) -> PackStorm:
    """Pack undisturbed, then under kills; says how each process ended."""
    found = PackStorm()
    before: dict[str, bytes] = {}
    if append:
        run_through(place, FIRST, "whole")
        before = place.content("whole")
    settings = MORE if append else FIRST
    usual = run_through(place, settings, "whole")
    expected = place.content("whole")
    place.copy(before, "stormy")
    while found.kills < kills:
        if not live(place, settings, found, usual, say):
            compare(place, expected, found, say)
            place.copy(before, "stormy")
            continue
        if append and storage.exists(storage.join(place.set("stormy"), MANIFEST)):
            whole = read_manifest(place.set("stormy"))
            if storage.read_bytes(storage.join(whole.url, MANIFEST)) not in (
                before[MANIFEST],
                expected[MANIFEST],
            ):
                found.broken.append(f"kill {found.kills} left a manifest of neither set")
        elif append:
            found.broken.append(f"kill {found.kills} left the old set without its manifest")
    run_through(place, settings, "stormy")
    compare(place, expected, found, say)
    return found


def run_through(place: Place, settings: Sequence[str], name: str) -> float:
    """A pack that nobody kills; gives its seconds."""
    began = time.monotonic()
    process = place.start(settings, name)
    _, said = process.communicate(timeout=300)
    if process.returncode:
        raise RetfoundError(f"the pack left with {process.returncode}: {said[-2000:]}")
    return time.monotonic() - began


def live(place: Place, settings: Sequence[str], found: PackStorm, usual: float, say: Say) -> bool:
    """One process, killed at a random moment of its life; False where it was done before."""
    began, process = time.monotonic(), place.start(settings, "stormy")
    wait_for_a_moment(place, process, usual)
    if process.poll() is not None:
        said = process.communicate()[1]
        if process.returncode:
            found.broken.append(f"after kill {found.kills} it left with {process.returncode}: {said[-500:]}")
            found.kills += 1  # or a pack that always fails would be started for ever
        return False
    alone = place.draw.random() < 0.5
    workers = children(process.pid)
    if alone:
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    found.moments.append(time.monotonic() - began)
    found.kills, found.alone = found.kills + 1, found.alone + alone
    if left := still_there(workers):
        found.broken.append(f"kill {found.kills}: {len(left)} workers outlive the pack")
    count_state(place, found)
    who = "main process" if alone else "all processes"
    say(f"kill {found.kills} ({who}) after {found.moments[-1]:.1f} s, {found.shards[-1]} shards committed")
    return True


def wait_for_a_moment(place: Place, process: subprocess.Popen[str], usual: float) -> None:
    """Return at a random time, or soon after some more shards have been committed; or when it is done."""
    if place.draw.random() < 0.4:
        with suppress(subprocess.TimeoutExpired):
            process.wait(place.draw.uniform(0.05, 0.8) * usual)
        return
    wanted = records(place) + place.draw.randint(1, 6)
    while process.poll() is None and records(place) < wanted:
        time.sleep(0.002)
    time.sleep(place.draw.uniform(0, 0.05))


def records(place: Place) -> int:
    """Committed shards of the set under storm."""
    return sum(name.endswith(".idx") for name in place.names("stormy"))


def count_state(place: Place, found: PackStorm) -> None:
    """How far it had come, and whether it was struck between a file's begin and its record."""
    names = place.names("stormy")
    done = {name.removesuffix(".idx") for name in names if name.endswith(".idx")}
    bare = [n for n in names if n.endswith(".tmp") or (n.endswith(".tar") and n[:-4] not in done)]
    found.shards.append(len(done))
    found.half_done += bool(bare)


def compare(place: Place, expected: Mapping[str, bytes], found: PackStorm, say: Say) -> None:
    """Hold a finished set against the undisturbed one."""
    found.finished += 1
    content = place.content("stormy")
    files = sorted(expected.keys() | content.keys())
    wrong = [file for file in files if expected.get(file) != content.get(file)]
    if wrong:
        found.broken.append(f"after kill {found.kills} {len(wrong)} files differ: {', '.join(wrong[:5])}")
    say(f"finished after {found.kills} kills: {len(content)} files, {len(wrong)} differ")


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    with suppress(FileNotFoundError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def still_there(processes: Sequence[int], seconds: float = 20.0) -> list[int]:
    """Those that are there after so long."""
    end = time.monotonic() + seconds
    while left := [pid for pid in processes if _runs(pid)]:
        if time.monotonic() > end:
            return left
        time.sleep(0.02)
    return []


def _runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def table(found: PackStorm) -> list[Row]:
    """What a person wants to know of it."""
    return [
        Row("kills", found.kills, "", f"{found.alone} of the main process alone"),
        median_of("a killed process had lived", found.moments, "s", 1),
        median_of("shards committed at a kill", found.shards, "shards"),
        Row("left a file without its record", found.half_done, "kills"),
        Row("packs brought to their end", found.finished, "", "each compared, file by file"),
        Row("promises broken", len(found.broken), ""),
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
        found = storm(place, args.kills, args.append, lambda text: print(text, flush=True))
    for line in found.broken:
        print(f"BROKEN: {line}")
    name = "pack-storm" + "-append" * args.append + "-s3" * args.s3
    what = "--append" if args.append else "packing"
    title = f"{what} onto {'S3 (rclone)' if args.s3 else 'disk'}, killed {args.kills} times, seed {args.seed}"
    ratios = {"promises_broken": float(len(found.broken)), "median_life_s": statistics.median(found.moments)}
    columns = ("value", "unit", "of that")
    finish(name, title, table(found), ratios, ("numpy", "pillow", "s3fs"), columns=columns)
    return bool(found.broken)


if __name__ == "__main__":
    sys.exit(main())
