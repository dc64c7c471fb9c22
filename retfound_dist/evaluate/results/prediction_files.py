"""`predictions.csv` and `seed_predictions.csv` read as a stream into columns: rows are never held as objects.

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
"""Rows that are text at the same time: of more, Python looks for garbage among them again and again."""
Block = list[tuple[str, ...]]


@dataclass(frozen=True)
class Predictions:
    """What `predictions.csv` says of the test part."""

    keys: tuple[str, ...]
    patients: tuple[str | None, ...]
    labels_N: Labels
    probabilities_NC: Floats


def read_predictions(url: str, classes: Sequence[str]) -> Predictions:
    """The file at a URL; KeyError for a class that is not there, ValueError for other damage."""
    places = {name: place for place, name in enumerate(classes)}
    keys: list[str] = []
    patients: list[str | None] = []
    names: dict[str, str | None] = {"": None}  # a patient's name is held once
    # Typed arrays take 8 bytes a number. A list of Python floats takes 32.
    labels, columns = array("q"), [array("d") for _ in classes]
    wanted = ["key", "patient", "label", *(f"p_{name}" for name in classes)]
    for key, patient, label, *numbers in _blocks(url, wanted):
        keys += key
        patients += [names.setdefault(name, name) for name in patient]
        labels.extend(map(places.__getitem__, label))
        for column, text in zip(columns, numbers, strict=True):
            column.extend(map(float, text))
    return Predictions(tuple(keys), tuple(patients), np.array(labels, dtype=np.int64), _side_by_side(columns))


def read_seeds(url: str, seeds: Sequence[int], keys: Sequence[str], classes: Sequence[str]) -> Floats:
    """(S, N, C) of the file at a URL; ValueError where it holds other seeds or images than these."""
    columns, place = [array("d") for _ in classes], 0
    for seed, key, *numbers in _blocks(url, ["seed", "key", *(f"p_{name}" for name in classes)]):
        for one, name in zip(seed, key, strict=True):
            # The file holds all images of the first seed, then all of the next: a row's place says which it
            # must be.
            turn, image = divmod(place, len(keys))
            if turn >= len(seeds) or int(one) != seeds[turn] or name != keys[image]:
                raise ValueError(f"{url} holds other images or seeds than the predictions beside it")
            place += 1
        for column, text in zip(columns, numbers, strict=True):
            column.extend(map(float, text))
    if place != len(seeds) * len(keys):
        raise ValueError(f"{url} ends before its last seed does")
    return _side_by_side(columns).reshape(len(seeds), len(keys), len(classes))


def _side_by_side(columns: Sequence[array[float]]) -> Floats:
    values_NC = np.empty((len(columns[0]), len(columns)))
    for place, column in enumerate(columns):
        values_NC[:, place] = column
    return values_NC


def _blocks(url: str, wanted: Sequence[str]) -> Iterator[Block]:
    """The wanted columns of some rows at a time."""
    with _open_text(url) as text:
        reader = csv.reader(text)
        header = next(reader, [])
        missing = [name for name in wanted if name not in header]
        if missing:
            raise ValueError(f"it has no column {missing[0]}")
        places = [header.index(name) for name in wanted]
        while rows := [row for row in islice(reader, BLOCK) if row]:
            # strict: a row of another length is damage. Without it the longer rows would be cut silently.
            columns = list(zip(*rows, strict=True))
            if len(columns) != len(header):
                raise ValueError(f"it has rows of {len(columns)} cells, its header has {len(header)}")
            yield [columns[place] for place in places]


@contextmanager
def _open_text(url: str) -> Iterator[io.TextIOWrapper]:
    with storage.open_read(url) as file:
        yield io.TextIOWrapper(file, encoding="utf-8", newline="")
