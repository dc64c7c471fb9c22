"""The CSV tables of an evaluation: one line for each image, with all its decimals."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path

import numpy as np

from retfound_dist.config.schema import EvalData
from retfound_dist.evaluate.data.set_loading import load_labelled_set
from retfound_dist.evaluate.results.evaluation_tables import (
    predictions_csv,
    probes_csv,
    seeds_csv,
    split_csv,
)
from tests.evaluate.inputs import CLASSES, class_folders
from tests.evaluate.made import predictions


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_predictions_have_the_likeliest_class_and_eight_decimals() -> None:
    evaluation = predictions(0, images=6)
    rows = rows_of(predictions_csv(evaluation))
    assert list(rows[0]) == ["key", "patient", "label", "predicted", *(f"p_{name}" for name in CLASSES)]
    for row, p_C, label in zip(rows, evaluation.probabilities_NC, evaluation.labels_N, strict=True):
        assert row["predicted"] == CLASSES[int(p_C.argmax())]
        assert row["label"] == CLASSES[label]
        assert [row[f"p_{name}"] for name in CLASSES] == [f"{p:.8f}" for p in p_C]


def test_seeds_and_probes_have_a_line_for_each_image_and_name() -> None:
    evaluation = predictions(0, images=3)
    both = np.stack([evaluation.probabilities_NC, evaluation.probabilities_NC[::-1]])
    metrics = {**evaluation.metrics, "seeds": [4, 7]}
    rows = rows_of(seeds_csv(dataclasses.replace(evaluation, metrics=metrics, probabilities_SNC=both)))
    assert [row["seed"] for row in rows] == ["4"] * 3 + ["7"] * 3
    assert rows[0]["p_CSR"] == rows[5]["p_CSR"] == f"{evaluation.probabilities_NC[0, 0]:.8f}"
    probes = {"linear": evaluation.probabilities_NC}
    rows = rows_of(probes_csv(dataclasses.replace(evaluation, probe_probabilities=probes)))
    assert [(row["probe"], row["key"]) for row in rows] == [("linear", key) for key in evaluation.keys]


def test_the_split_names_every_image_and_a_comma_in_a_name_is_no_column(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "set", each=5)
    (folder / "MH" / "MH_0.jpg").rename(folder / "MH" / "a,b.jpg")
    rows = rows_of(split_csv(load_labelled_set(EvalData(path=str(folder)), 28)))
    assert len(rows) == 15
    assert {row["part"] for row in rows} == {"train", "val", "test"}
    assert [row["label"] for row in rows if row["key"] == "MH/a,b.jpg"] == ["MH"]
