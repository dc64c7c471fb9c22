"""The end of every benchmark: prints a table and writes a JSON file of the results."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Row:
    """One measured value."""

    label: str
    value: float
    unit: str
    spread: str = ""
    """The smallest and the largest value of the rounds."""


def median_of(label: str, values: Sequence[float], unit: str, digits: int = 0) -> Row:
    """The median of some rounds, with their range."""
    spread = f"{min(values):.{digits}f} to {max(values):.{digits}f}"
    return Row(label, round(statistics.median(values), digits + 1), unit, spread)


def machine() -> str:
    """The GPU where there is one, the processor and its cores."""
    torch = sys.modules.get("torch")
    gpu = f"{torch.cuda.get_device_name()}, " if torch and torch.cuda.is_available() else ""
    name = platform.processor() or platform.machine()
    with open("/proc/cpuinfo") as file:
        names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return f"{gpu}{names[0] if names else name}, {len(os.sched_getaffinity(0))} cores"


def versions(*packages: str) -> dict[str, str]:
    """Installed versions; packages that are not installed are left out."""
    installed = {"python": platform.python_version()}
    for package in packages:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return installed


def command() -> str:
    """This benchmark's command line, with only the last part of absolute paths."""
    arguments = [re.sub(r"(^|=)/(?:[^/]*/)*(?=[^/])", r"\1", word) for word in sys.argv[1:]]
    return shlex.join(["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *arguments])


def finish(
    name: str,
    title: str,
    rows: Sequence[Row],
    ratios: dict[str, float],
    packages: Sequence[str],
    where: str = "",
    columns: tuple[str, str, str] = ("median", "unit", "range of rounds"),
    folder: Path = RESULTS,
) -> Path:
    """Print the table and write FOLDER/NAME-DATE-MACHINE.json; `where` replaces the machine's name."""
    table = Table(title=title, title_justify="left")
    for column in ("", *columns):
        table.add_column(column, justify="right" if column == columns[0] else "left", overflow="fold")
    for row in rows:
        table.add_row(row.label, f"{row.value:,g}", row.unit, row.spread)
    console = Console(width=None if sys.stdout.isatty() else 110)
    console.print(table)
    for key, value in ratios.items():
        console.print(f"  {key} = {value:g}", highlight=False)
    today, device = date.today().isoformat(), where or machine()
    tree = {
        "name": name,
        "date": today,
        "machine": device,
        "versions": versions(*packages),
        "command": command(),
        "rows": [asdict(row) for row in rows],
        "ratios": ratios,
    }
    short = "".join(c if c.isalnum() else "-" for c in device.lower())
    path = folder / f"{name}-{today}-{'-'.join(filter(None, short.split('-')))}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tree, indent=1) + "\n")
    console.print(f"[dim]{path}[/]", highlight=False)
    return path
