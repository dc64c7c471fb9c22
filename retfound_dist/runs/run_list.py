"""`retfound runs URL`: lists all runs below a URL."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from retfound_dist.errors import RetfoundError, StorageError
from retfound_dist.files.untrusted_text import plain
from retfound_dist.formats import url_kinds
from retfound_dist.io import storage
from retfound_dist.runs.config_differences import config_differences
from retfound_dist.runs.long_lists import (
    LONG_LIST,
    DelayedProgress,
    ReadProgress,
    plain_line,
    plain_table,
    read_each,
    without_collector,
)
from retfound_dist.runs.run_facts import SCORE, RunFacts, read_run_overview
from retfound_dist.runs.run_search import Fault, search_runs

DAMAGED = "damaged"
"""The state of a run whose folder cannot be read."""
HEADS = ("run", "state", "step", "loss", "held out", "img/s", "saved", f"best {SCORE.upper()}")
STYLES = {"running": "green", "finished": "bold", "failed": "red", DAMAGED: "red", "silent": "yellow"}


def runs_command(url: str, as_json: bool) -> int:
    """`retfound runs`: list them and return 0; StorageError where there is no folder at the URL."""
    check_folder(url)
    with without_collector():
        _read_and_print(url, as_json)
    return 0


def _read_and_print(url: str, as_json: bool) -> None:
    """Read all runs below a URL, and print the list and the faults."""
    runs, faults = read_all(url.rstrip("/") or "/", DelayedProgress(f"reading the runs below {url}"))
    differences = config_differences({run.url: run.config for run in runs})
    damaged = [fault for fault in faults if fault.is_run]
    if as_json:
        values = [run.list_values | {"differences": differences[run.url]} for run in runs]
        print(json.dumps([*values, *map(damaged_run_values, damaged)], indent=1))
    elif runs or damaged:
        _print_list(runs, damaged, differences)
    else:
        print(f"no runs at or below {url}, which is {url_kinds.kind_at(url)}")
    for fault in faults:
        print(fault, file=sys.stderr if as_json else sys.stdout)


def check_folder(url: str) -> None:
    """StorageError where the URL is not a folder or prefix that may have runs below it."""
    kind = url_kinds.kind_at(url)
    if kind == url_kinds.NOTHING:
        raise StorageError(f"there is nothing at {url}: give a folder or a prefix with runs below it")
    if not storage.is_folder(url):
        raise StorageError(f"{url} is {kind}: give a folder or a prefix with runs below it")


def read_all(url: str, on_progress: ReadProgress | None = None) -> tuple[list[RunFacts], list[Fault]]:
    """An overview of every run below a URL, and the folders that cannot be shown."""
    search = search_runs(url)
    runs, faults = list[RunFacts](), list(search.faults)
    with without_collector():
        for run_url, run in zip(search.runs, read_each(search.runs, _listable_run, on_progress), strict=True):
            if isinstance(run, Exception):
                faults.append(Fault(run_url, f"cannot be shown: {fault_text(run)}", is_run=True))
            else:
                runs.append(run)
    return runs, faults


def _listable_run(url: str) -> RunFacts:
    """A run's overview; an error where a list cannot show it."""
    run = read_run_overview(url)
    _ = run.list_values  # read here, where a fault becomes one line
    return run


def fault_text(error: Exception) -> str:
    """What is wrong with a run's files, in one line."""
    if isinstance(error, RetfoundError):
        return " ".join(str(error).split())
    text = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return f"its files hold something unexpected ({text})"


def damaged_run_values(fault: Fault) -> dict[str, Any]:
    """A damaged run's row of the list as plain values."""
    return {"url": fault.url, "name": storage.name(fault.url), "state": DAMAGED, "fault": str(fault)}


def _print_list(
    runs: Sequence[RunFacts], damaged: Sequence[Fault], differences: Mapping[str, Mapping[str, Any]]
) -> None:
    """The table, and below it each run's alarms, differences and faults."""
    if len(runs) <= LONG_LIST:
        console = Console(soft_wrap=False, highlight=False)
        print_line: Callable[..., None] = partial(console.print, markup=False)
        console.print(_table(runs, damaged))
    else:
        print_line = plain_line
        print(*plain_table(HEADS, [*map(_cells, runs), *map(_damaged_cells, damaged)]), sep="\n")
    for run in runs:
        if run.alarms:
            print_line(plain(f"ALARM: {run.name}: {run.alarms[-1]['message']}"), style="bold red")
        if settings := differences[run.url]:
            text = ", ".join(f"{key}={json.dumps(value)}" for key, value in settings.items())
            print_line(plain(f"{run.name} differs: {text}"))
        for fault in run.read_faults:
            print_line(plain(f"{run.name}: {fault}"))


def _table(runs: Sequence[RunFacts], damaged: Sequence[Fault]) -> Table:
    """A table that fits 80 columns: long names fold."""
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="dim")
    for place, head in enumerate(HEADS):
        table.add_column(head, justify="left" if place < 2 else "right", overflow="fold")
    for name, state, *others in (*map(_cells, runs), *map(_damaged_cells, damaged)):
        table.add_row(Text(name, style="bold"), Text(state, style=STYLES.get(state, "")), *others)
    return table


def _cells(run: RunFacts) -> list[str]:
    """A run's cells under `HEADS`."""
    values = run.list_values
    total = f"/{values['steps']}" if values["steps"] else ""
    best = values["best"]
    return [
        plain(run.name),
        values["state"],
        f"{values['step']}{total}",
        number_text(values["loss"]),
        number_text(values["held_out_loss"]),
        number_text(values["images_per_s"], 0),
        str(values["checkpoint"] or "-"),
        f"{best['value']:.3f} @{best['step']}" if best else "-",
    ]


def _damaged_cells(fault: Fault) -> list[str]:
    """A damaged run's cells under `HEADS`."""
    return [plain(storage.name(fault.url)), DAMAGED, *["-"] * (len(HEADS) - 2)]


def number_text(value: float | None, digits: int = 4) -> str:
    """A number with so many digits after the point; `-` where it is not known."""
    return "-" if value is None else f"{value:,.{digits}f}"
