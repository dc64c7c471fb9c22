"""Starts that are refused, one after the other in a process of their own (signals stay blocked in it).

python -m tests.train.refused ARGUMENTS.json: a list of the words of commands, each with its run's URL. Prints
for each its exit code, what it said, and whether its run is there.
"""

from __future__ import annotations

import io
import json
import sys
from contextlib import redirect_stderr
from pathlib import Path

from retfound_dist.cli import main
from retfound_dist.io import storage


def refused(words: list[str], run: str) -> tuple[int, list[str], bool]:
    """Of one command: exit code, its lines to the person, whether there is something at the run's URL."""
    errors = io.StringIO()
    with redirect_stderr(errors):
        code = main(words)
    lines = [line for line in errors.getvalue().splitlines() if line.startswith("retfound:")]
    return code, lines, storage.exists(run)


if __name__ == "__main__":
    json.dump([refused(words, run) for words, run in json.loads(Path(sys.argv[1]).read_text())], sys.stdout)
    sys.stdout.flush()
