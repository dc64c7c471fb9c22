"""predictions.csv read as a stream: the columns it was written from, or an error that says what is wrong."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from retfound_dist.errors import RecordError
from retfound_dist.evaluate.results import evaluation_files, evaluation_tables, prediction_files
from retfound_dist.evaluate.results.prediction_files import (
    read_predictions,
    read_probe_predictions,
    read_seeds,
)
from retfound_dist.io import storage
from tests.evaluate import made
from tests.evaluate.inputs import CLASSES


def test_columns_come_back_from_a_disk_and_a_bucket_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = made.predictions(0, images=90)
    row = dataclasses.replace(
        row, keys=("a,b\n\"c\".jpg", *row.keys[1:]), patients=(None, *row.patients[1:]),
        probabilities_NC=row.probabilities_NC.round(evaluation_files.DIGITS),
    )  # fmt: skip
    for size in (7, 90, 1000):
        monkeypatch.setattr(prediction_files, "BLOCK", size)
        for url in (str(tmp_path / "p.csv"), "memory://bucket/p.csv"):
            storage.write_text(url, evaluation_tables.predictions_csv(row))
            found = read_predictions(url, CLASSES)
            assert (found.keys, found.patients) == (row.keys, row.patients)
            assert (found.labels_N == row.labels_N).all()
            assert (found.probabilities_NC == row.probabilities_NC).all()


@pytest.mark.parametrize("quoted", [1, 50, 89])
def test_rows_before_and_after_one_with_quotes_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quoted: int
) -> None:
    row = made.predictions(0, images=90)
    keys = tuple('of two\nlines, "quoted".jpg' if n == quoted else key for n, key in enumerate(row.keys))
    row = dataclasses.replace(
        row, keys=keys, probabilities_NC=row.probabilities_NC.round(evaluation_files.DIGITS)
    )
    storage.write_text(str(tmp_path / "p.csv"), evaluation_tables.predictions_csv(row))
    for size in (1, 500, 100_000):
        monkeypatch.setattr(prediction_files, "BLOCK_BYTES", size)
        found = read_predictions(str(tmp_path / "p.csv"), CLASSES)
        assert (found.keys, found.patients) == (row.keys, row.patients)
        assert (found.labels_N == row.labels_N).all()
        assert (found.probabilities_NC == row.probabilities_NC).all()


def test_seeds_come_back_and_other_images_or_seeds_are_refused(tmp_path: Path) -> None:
    row = made.predictions(0, images=20)
    seeds = np.stack([row.probabilities_NC, row.probabilities_NC[::-1]]).round(evaluation_files.DIGITS)
    row = dataclasses.replace(row, probabilities_SNC=seeds, metrics={**row.metrics, "seeds": [3, 5]})
    url = str(tmp_path / "s.csv")
    text = evaluation_tables.seeds_csv(row)
    storage.write_text(url, text)
    assert (read_seeds(url, [3, 5], row.keys, CLASSES) == seeds).all()
    for wrong, keys in (([3, 6], row.keys), ([3], row.keys), ([3, 5], row.keys[::-1]), ([3, 5, 7], row.keys)):
        with pytest.raises(ValueError, match=r"s\.csv"):
            read_seeds(url, wrong, keys, CLASSES)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda text: text.replace("p_MH", "p_XX"), ValueError),
        (lambda text: text.replace(",MH,", ",XX,"), KeyError),
        (lambda text: text.replace(",0.", ",zero."), ValueError),
        (lambda text: text + "a,b\n", ValueError),
        (lambda text: "", ValueError),
    ],
)
def test_damage_is_an_error_and_the_evaluation_says_which_file_it_is(
    change, error: type, tmp_path: Path
) -> None:
    row = made.predictions(0, images=30)
    storage.write_text(str(tmp_path / "predictions.csv"), change(evaluation_tables.predictions_csv(row)))
    with pytest.raises(error):
        read_predictions(str(tmp_path / "predictions.csv"), CLASSES)
    storage.write_json(str(tmp_path / "metrics.json"), row.metrics)
    storage.write_text(str(tmp_path / "history.jsonl"), "")
    with pytest.raises(RecordError, match=r"predictions\.csv is damaged \(.*evaluate again with --force"):
        evaluation_files.read(str(tmp_path))


MEASURE = """
import sys, tracemalloc
from retfound_dist.evaluate.results.prediction_files import read_predictions
tracemalloc.start()
found = read_predictions(sys.argv[1], sys.argv[2:])
print(len(found.keys), *tracemalloc.get_traced_memory())
"""


def test_many_rows_take_their_columns_and_little_more(tmp_path: Path) -> None:
    row = made.predictions(0, images=20_000, patients=500)
    url = str(tmp_path / "p.csv")
    storage.write_text(url, evaluation_tables.predictions_csv(row))
    # In a process of its own, because threads of earlier tests allocate too.
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, url, *CLASSES], check=True, capture_output=True, text=True
    )
    keys, kept, most = map(int, done.stdout.split())
    assert keys == 20_000
    assert kept < 200 * 20_000
    assert most < kept + 3e6


def test_probes_come_back_and_other_images_or_missing_rows_are_refused(tmp_path: Path) -> None:
    row = made.predictions(0, images=20)
    probes = {
        "linear": row.probabilities_NC.round(evaluation_files.DIGITS),
        "knn": row.probabilities_NC[::-1].round(evaluation_files.DIGITS),
    }
    url = str(tmp_path / "probes.csv")
    text = evaluation_tables.probes_csv(dataclasses.replace(row, probe_probabilities=probes))
    storage.write_text(url, text)
    read = read_probe_predictions(url, row.keys, CLASSES)
    assert list(read) == ["linear", "knn"]
    assert all((read[probe] == probes[probe]).all() for probe in probes)
    with pytest.raises(ValueError, match="other images"):
        read_probe_predictions(url, row.keys[::-1], CLASSES)
    storage.write_text(url, text[: text.rstrip().rindex("\n") + 1])
    with pytest.raises(ValueError, match="incomplete"):
        read_probe_predictions(url, row.keys, CLASSES)
