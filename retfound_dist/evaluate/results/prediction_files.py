"""Reads predictions of an evaluation, its seeds and its probes into columns, without an object for each row.

Shapes: N images, C classes, S seeds.
"""

from __future__ import annotations

import csv
import io
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import numpy as np

from retfound_dist.evaluate.scores.metrics import Floats, Labels
from retfound_dist.io import storage

BLOCK = 256
"""Rows that are parsed at a time. With more, Python's garbage collector scans them again and again."""
Block = list[tuple[str, ...]]


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
    # Typed arrays take 8 bytes for a number. A list of Python floats takes 32.
    labels, columns = array("q"), [array("d") for _ in classes]
    columns_read = ["key", "patient", "label", *(f"p_{name}" for name in classes)]
    for key, patient, label, *numbers in _blocks(url, columns_read):
        keys += key
        patients += [names.setdefault(name, name) for name in patient]
        labels.extend(map(class_indices.__getitem__, label))
        for column, text in zip(columns, numbers, strict=True):
            column.extend(map(float, text))
    return Predictions(tuple(keys), tuple(patients), np.array(labels, dtype=np.int64), _join_columns(columns))


def read_seeds(url: str, seeds: Sequence[int], keys: Sequence[str], classes: Sequence[str]) -> Floats:
    """(S, N, C) of seed_predictions.csv at a URL; ValueError where it has other seeds or images."""
    columns, row_number = [array("d") for _ in classes], 0
    for seed, key, *numbers in _blocks(url, ["seed", "key", *(f"p_{name}" for name in classes)]):
        for seed_text, name in zip(seed, key, strict=True):
            # The file has all images of the first seed, then all of the next seed, and so on.
            seed_index, image_index = divmod(row_number, len(keys))
            if seed_index >= len(seeds) or int(seed_text) != seeds[seed_index] or name != keys[image_index]:
                raise ValueError(f"{url} has other images or seeds than predictions.csv in its folder")
            row_number += 1
        for column, text in zip(columns, numbers, strict=True):
            column.extend(map(float, text))
    if row_number != len(seeds) * len(keys):
        raise ValueError(f"{url} is incomplete: it has fewer rows than images times seeds")
    return _join_columns(columns).reshape(len(seeds), len(keys), len(classes))


def read_probe_predictions(url: str, keys: Sequence[str], classes: Sequence[str]) -> dict[str, Floats]:
    """Probe -> (N, C) of probe_test_predictions.csv at a URL; ValueError where it has other images."""
    columns = [array("d") for _ in classes]
    probes: list[str] = []
    row_number = 0
    for probe, key, *numbers in _blocks(url, ["probe", "key", *(f"p_{name}" for name in classes)]):
        for probe_name, name in zip(probe, key, strict=True):
            # The file has all images of the first probe, then all of the next probe, and so on.
            image_index = row_number % len(keys)
            if image_index == 0:
                probes.append(probe_name)
            if probe_name != probes[-1] or name != keys[image_index]:
                raise ValueError(f"{url} has other images than predictions.csv in its folder")
            row_number += 1
        for column, text in zip(columns, numbers, strict=True):
            column.extend(map(float, text))
    if row_number != len(probes) * len(keys):
        raise ValueError(f"{url} is incomplete: it has fewer rows than images times probes")
    values_PNC = _join_columns(columns).reshape(len(probes), len(keys), len(classes))
    return dict(zip(probes, values_PNC, strict=True))


def _join_columns(columns: Sequence[array[float]]) -> Floats:
    values_NC = np.empty((len(columns[0]), len(columns)))
    for index, column in enumerate(columns):
        values_NC[:, index] = column
    return values_NC


def _blocks(url: str, names: Sequence[str]) -> Iterator[Block]:
    """The named columns, `BLOCK` rows at a time."""
    with _open_text(url) as text:
        reader = csv.reader(text)
        header = next(reader, [])
        missing = [name for name in names if name not in header]
        if missing:
            raise ValueError(f"it has no column {missing[0]}")
        positions = [header.index(name) for name in names]
        while rows := [row for row in islice(reader, BLOCK) if row]:
            # strict, because a row of another length is damage: zip would shorten longer rows silently.
            columns = list(zip(*rows, strict=True))
            if len(columns) != len(header):
                raise ValueError(f"it has rows of {len(columns)} cells, its header has {len(header)}")
            yield [columns[position] for position in positions]


@contextmanager
def _open_text(url: str) -> Iterator[io.TextIOWrapper]:
    with storage.open_read(url) as file:
        yield io.TextIOWrapper(file, encoding="utf-8", newline="")
