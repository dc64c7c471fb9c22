"""`retfound report RUN`: one self-contained page of a run, at any time."""

from __future__ import annotations

import sys

from retfound_dist.io import output_files, storage
from retfound_dist.runs.reconstructions import draw_pictures, kept_pictures
from retfound_dist.runs.run_list import read_run
from retfound_dist.runs.run_page import run_page

REPORT = "report.html"


def report_command(
    url: str, out: str, *, pictures: bool, price: float, quiet: bool, force: bool = False
) -> int:
    """Write the page to `out`, or to the run's own report.html; ConfigError where there is no run."""
    run = read_run(url.rstrip("/"))
    target = out or storage.join(run.url, REPORT)
    output_files.check_free(target, "report", force)

    def say(text: str) -> None:
        if not quiet:
            print(text, file=sys.stderr)

    drawn = draw_pictures(run, say) if pictures else kept_pictures(run)
    storage.write_text(target, run_page(run, drawn, price))
    if not quiet:
        print(target)
    return 0
