"""`retfound report RUN`: writes the page of a run as one self-contained file."""

from __future__ import annotations

import sys

from retfound_dist.io import output_files, storage
from retfound_dist.runs.reconstructions import draw_pictures, saved_pictures
from retfound_dist.runs.run_facts import read_run
from retfound_dist.runs.run_page import run_page

REPORT = "report.html"


def report_command(
    url: str, out: str, *, pictures: bool, price: float, quiet: bool, force: bool = False
) -> int:
    """Write the page to `out`, or to report.html in the run's folder; ConfigError where there is no run."""
    run = read_run(url.rstrip("/"))
    target = out or storage.join(run.url, REPORT)
    output_files.check_may_write(target, "report", force)

    def warn(text: str) -> None:
        if not quiet:
            print(text, file=sys.stderr)

    reconstructions = draw_pictures(run, warn) if pictures else saved_pictures(run)
    storage.write_text(target, run_page(run, reconstructions, price))
    if not quiet:
        print(target)
    return 0
