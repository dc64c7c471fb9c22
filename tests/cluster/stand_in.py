"""Stands in for the trainer (as `python -m retfound_dist`) where only its launching is tested.

Every rank notes its starts and the signals it is asked to leave by in notes/rankN. Arguments:
`linger` stays until a file `release` appears, `fail` leaves with 2, `hang` asks for another start and
leaves with 3, the first time; `grace` notes how long torchrun waits for a save. Its config has a
train.grace_s of 60.
"""

import os
import signal
import sys
import time
import types

rank, size = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")


def note(text: str) -> None:
    with open(f"notes/rank{rank}", "a") as file:
        file.write(text + "\n")


def leave(number: int, frame: types.FrameType | None) -> None:
    """Leave once: Python forgets its handlers while it ends, and a second signal would kill it."""
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note(signal.Signals(number).name)
    sys.exit(0)


if __name__ == "__main__":
    if sys.argv[1] == "show":
        print('{"train.grace_s": {"value": 60.0}}')
        sys.exit()
    signal.signal(signal.SIGUSR1, leave)
    signal.signal(signal.SIGTERM, leave)
    if "grace" in sys.argv:
        note(f"torchrun gives {os.environ['TORCH_ELASTIC_SHUTDOWN_TIMEOUT']} s")
    note(f"start {rank} of {size}: {' '.join(sys.argv[1:])}")
    if "fail" in sys.argv:
        print("retfound: a clear sentence about what is wrong", file=sys.stderr)
        sys.exit(2)
    if "hang" in sys.argv and not os.path.exists("hung"):
        for path in ("hung", os.environ["RETFOUND_START_AGAIN"]):
            open(path, "w").close()
        sys.exit(3)
    while "linger" in sys.argv and not os.path.exists("release"):
        time.sleep(0.1)
