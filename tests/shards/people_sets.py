"""Sets of images that are called after people, and what is read back of a packed one."""

from __future__ import annotations

import csv
import json
import tarfile
from pathlib import Path
from typing import Any

from tests.shards.pack_inputs import write_image


def fields_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Key -> JSON of every sample."""
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    found[member.name[:-5]] = json.load(tar.extractfile(member))  # type: ignore[arg-type]
    return found


def rows_of(path: str) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_list(root: Path, people: dict[str, list[str]]) -> None:
    """A manifest.csv that names the patient of each file."""
    lines = ["file,label,patient", *(f'{file},A,"{who}"' for who, files in people.items() for file in files)]
    (root / "manifest.csv").write_text("\n".join(lines) + "\n")


def cohort(root: Path, people: int, first: int = 0) -> dict[str, list[str]]:
    """Images of so many people, three each, with files that tell nothing and a list that names them."""
    held: dict[str, list[str]] = {}
    for person in range(first, first + people):
        files = [f"A/im{person:02d}_{place}.png" for place in range(3)]
        for place, file in enumerate(files):
            write_image(root / file, 1000 * person + place)
        held[f"Kowalski{'abcdefghijklmnopqrstuvwxyz'[person]}, Jan"] = files
    write_list(root, held)
    return held
