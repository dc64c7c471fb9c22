"""Reads predictions of an evaluation, its seeds and its probes into columns, without an object for each row.

Shapes: N images, C classes, S seeds, B rows of a block.
"""

from __future__ import annotations

import csv
import io
import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from retfound_dist.evaluate.results.plain_rows import split_rows
from retfound_dist.evaluate.scores.metrics import Floats, Labels
from retfound_dist.io import storage

BLOCK = 256
"""Rows that are parsed at a time. With more, Python's garbage collector scans them again and again."""
BLOCK_BYTES = 1 << 17
"""Bytes that are split at a time."""
Block = tuple[Sequence[Sequence[str]], Floats]
"""Columns of text, and probabilities (B, C)."""


@dataclass(frozen=True)
class Predictions:
    """The content of `predictions.csv`."""

    keys: tuple[str, ...]
    patients: tuple[str | None, ...]
    labels_N: Labels
    probabilities_NC: Floats


def read_predictions(url: str, classes: Sequence[str]) -> Predictions:
    """predictions.csv at a URL; KeyError for an unknown class, ValueError for other damage."""
    class_indices = {name: index for index, name in enumerate(classes)}
    keys: list[str] = []
    patients: list[str | None] = []
    names: dict[str, str | None] = {"": None}  # one string object for each patient
    # A typed array takes 8 bytes for a number. A list of Python's takes 32.
    labels, blocks = array("q"), list[Floats]()
    for (key, patient, label), values_BC in _blocks(url, ["key", "patient", "label"], _columns(classes)):
        keys += key
        patients += map(names.setdefault, patient, patient)
        labels.extend(map(class_indices.__getitem__, label))
        blocks.append(values_BC)
    return Predictions(tuple(keys), tuple(patients), np.array(labels, dtype=np.int64), _join(blocks, classes))


def _columns(classes: Sequence[str]) -> list[str]:
    return [f"p_{name}" for name in classes]


def read_seeds(url: str, seeds: Sequence[int], keys: Sequence[str], classes: Sequence[str]) -> Floats:
    """(S, N, C) of seed_predictions.csv at a URL; ValueError where it has other seeds or images."""
    blocks, row_number = list[Floats](), 0
    for (seed, key), values_BC in _blocks(url, ["seed", "key"], _columns(classes)):
        for seed_text, name in zip(seed, key, strict=True):
            # The file has all images of the first seed, then all of the next seed, and so on.
            seed_index, image_index = divmod(row_number, len(keys))
            if seed_index >= len(seeds) or int(seed_text) != seeds[seed_index] or name != keys[image_index]:
                raise ValueError(f"{url} has other images or seeds than predictions.csv in its folder")
            row_number += 1
        blocks.append(values_BC)
    if row_number != len(seeds) * len(keys):
        raise ValueError(f"{url} is incomplete: it has fewer rows than images times seeds")
    return _join(blocks, classes).reshape(len(seeds), len(keys), len(classes))


def read_probe_predictions(url: str, keys: Sequence[str], classes: Sequence[str]) -> dict[str, Floats]:
    """Probe -> (N, C) of probe_test_predictions.csv at a URL; ValueError where it has other images."""
    blocks: list[Floats] = []
    probes: list[str] = []
    row_number = 0
    for (probe, key), values_BC in _blocks(url, ["probe", "key"], _columns(classes)):
        for probe_name, name in zip(probe, key, strict=True):
            # The file has all images of the first probe, then all of the next probe, and so on.
            image_index = row_number % len(keys)
            if image_index == 0:
                probes.append(probe_name)
            if probe_name != probes[-1] or name != keys[image_index]:
                raise ValueError(f"{url} has other images than predictions.csv in its folder")
            row_number += 1
        blocks.append(values_BC)
    if row_number != len(probes) * len(keys):
        raise ValueError(f"{url} is incomplete: it has fewer rows than images times probes")
    values_PNC = _join(blocks, classes).reshape(len(probes), len(keys), len(classes))
    return dict(zip(probes, values_PNC, strict=True))


def _join(blocks: list[Floats], classes: Sequence[str]) -> Floats:
    return np.concatenate(blocks) if blocks else np.empty((0, len(classes)))


def _blocks(url: str, texts: Sequence[str], numbers: Sequence[str]) -> Iterator[Block]:
    """The named columns of text, and those of numbers (B, C), of some rows at a time."""
    with storage.open_read(url) as file:
        first_line = file.readline()
        header = first_line.decode().rstrip("\n").split(",")
        # By blocks of bytes while the rows have the usual form. The rest, or all, with the csv module.
        if b'"' in first_line or not first_line.endswith(b"\n") or header[-len(numbers) :] != list(numbers):
            file.seek(0)
            header = []
        places = _places(header[: -len(numbers)], texts) if header else []
        while header and (data := file.read(BLOCK_BYTES)):
            data += file.readline()
            rows = split_rows(data, len(header), len(numbers))
            if rows is None:
                file.seek(-len(data), os.SEEK_CUR)
                break
            yield [rows[0][place] for place in places], rows[1]
        with io.TextIOWrapper(file, encoding="utf-8", newline="") as text:
            yield from _csv_blocks(text, header, texts, numbers)


def _csv_blocks(
    text: io.TextIOWrapper, header: list[str], texts: Sequence[str], numbers: Sequence[str]
) -> Iterator[Block]:
    """The same with the csv module, `BLOCK` rows at a time; without a header so far it is in the text."""
    reader = csv.reader(text)
    header = header or next(reader, [])
    places = _places(header, [*texts, *numbers])
    while rows := [row for row in islice(reader, BLOCK) if row]:
        # strict, because a row of another length is damage: zip would shorten longer rows silently.
        columns = list(zip(*rows, strict=True))
        if len(columns) != len(header):
            raise ValueError(f"it has rows of {len(columns)} cells, its header has {len(header)}")
        chosen = [columns[place] for place in places]
        values_CB = [[*map(float, column)] for column in chosen[len(texts) :]]
        yield chosen[: len(texts)], np.array(values_CB, dtype=np.float64).T


def _places(header: Sequence[str], names: Sequence[str]) -> list[int]:
    """Where the columns are; ValueError where one is missing."""
    missing = [name for name in names if name not in header]
    if missing:
        raise ValueError(f"it has no column {missing[0]}")
    return [header.index(name) for name in names]
