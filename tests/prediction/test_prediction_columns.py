"""The columns of each kind of classifier: the numbers of predictions.csv again, exactly, and how certain they are."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retfound_dist.errors import ConfigError, WeightsError
from retfound_dist.evaluate.classifier import classifier_file
from retfound_dist.evaluate.classifier.classifier_file import ClassifierFile
from retfound_dist.prediction.input_images import ScanFacts
from retfound_dist.prediction.prediction_columns import (
    check_task_options,
    label_entropy,
    mapped_outputs,
    normalised_entropy,
    prediction_table,
    table_notes,
)
from retfound_dist.prediction.prediction_run import ImagePredictions
from retfound_dist.prediction.prediction_table import write_table
from tests.evaluate.tasks_made import FACTS, bright_list, evaluated_task
from tests.export.inputs import make_classifier
from tests.prediction.inputs import predict, read_rows


def facts_of(kind: str, folder: Path, **fields: Any) -> ClassifierFile:
    """classifier.json of a task."""
    return classifier_file.read(make_classifier(folder / "kept", seeds=(0,), task=FACTS[kind], **fields))


def predictions(p_SNC: Any) -> ImagePredictions:
    """Predictions of as many images, of which the last cannot be read."""
    values_SNC = np.array(p_SNC, dtype=float)
    count = values_SNC.shape[1]
    values_SNC = np.concatenate(
        [values_SNC, np.full((len(values_SNC), 1, values_SNC.shape[2]), np.nan)], axis=1
    )
    keys = [f"{n}" for n in range(count + 1)]
    return ImagePredictions(keys, [ScanFacts()] * len(keys), values_SNC, [""] * count + ["is blank"])


def written(table: Any, folder: Path) -> list[list[str]]:
    """Header and rows of the CSV, without key and facts."""
    write_table(table, str(folder / "p.csv"))
    with (folder / "p.csv").open(newline="") as file:
        return [row[5:] for row in csv.reader(file)]


@pytest.mark.parametrize("kind", FACTS)
def test_the_test_part_gets_the_numbers_of_predictions_csv_again(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = bright_list(tmp_path / "set")
    out = evaluated_task(tmp_path, kind, "seeds=[0, 1]", "finetune.epochs=1", "probe.enabled=false")
    for more in (["--uncalibrated"], []):
        more += ["--heatmaps", str(tmp_path / "maps")] if kind == "multilabel" else []
        assert predict(out, images, "--out", tmp_path / "p.csv", "--html", tmp_path / "p.html", *more) == 0
        rows, expected = read_rows(tmp_path / "p.csv"), read_rows(out / "predictions.csv")
        assert len(rows) == 40
        assert 0 < len(expected) < 40
        for key, row in expected.items():
            for name in row.keys() & rows[key].keys():
                assert rows[key][name] == row[name], (key, name)
            if kind == "regression":
                assert rows[key]["seed_spread"] == row["spread"]
        assert len(rows[key].keys() & row.keys()) >= {"multilabel": 4, "regression": 3, "ordinal": 7}[kind]
    page = (tmp_path / "p.html").read_text()
    assert page.count('class="panel card"') == 40
    if kind == "multilabel":
        labels = [max(1, row["predicted"].count(";") + 1) for row in read_rows(tmp_path / "p.csv").values()]
        widths = [Image.open(file).width for file in (tmp_path / "maps").iterdir()]
        assert sorted(widths) == sorted(28 + count * 32 for count in labels)
    assert ("evidence for" in page) == (kind == "multilabel")
    told = capsys.readouterr().out
    assert "40 images, 0 cannot be read" in told
    assert ("note: the threshold of" in told) == (kind == "multilabel")


def test_labels_at_their_threshold_are_joined_and_the_least_certain_label_counts(tmp_path: Path) -> None:
    facts = facts_of("multilabel", tmp_path, thresholds={"cyst": {"threshold": 0.2}})
    p_SNT = [[[0.1, 0.9], [0.3, 0.4], [0.2, 0.5]], [[0.1, 1.0], [0.2, 0.4], [0.1, 0.3]]]
    table = prediction_table(predictions(p_SNT), facts, calibrated=True)
    rows = written(table, tmp_path)
    assert rows[0] == ["predicted", "p_cyst", "p_fluid", "entropy", "seed_spread", "reason"]
    assert [row[0] for row in rows[1:]] == ["fluid", "cyst", "none", ""]
    assert rows[1][1:] == ["0.10000000", "0.95000000", f"{0.46899559:.8f}", "0.07071068", ""]
    assert rows[4] == ["", "", "", "", "", "is blank"]
    assert table.summary == "cyst 1, fluid 1, none 1"
    assert table_notes(facts) == ["the threshold of fluid is 0.5: the classifier has none"]
    assert [mapped_outputs(table, row) for row in range(3)] == [[1], [0], [1]]


def test_a_number_has_its_spread_and_one_network_is_least_certain_far_from_the_mean(tmp_path: Path) -> None:
    facts = facts_of("regression", tmp_path)
    several = prediction_table(predictions([[[50.0], [70.0]], [[50.0], [74.0]]]), facts, calibrated=True)
    assert written(several, tmp_path) == [
        ["predicted", "seed_spread", "reason"],
        ["50.00000000", "0.00000000", ""],
        ["72.00000000", "2.82842712", ""],
        ["", "", "is blank"],
    ]
    assert several.summary == "age 50 to 72, median 61"
    assert several.uncertainty_N[:2].tolist() == pytest.approx([0, 2.82842712])
    one = prediction_table(predictions([[[50.0], [70.0], [80.0]]]), facts, calibrated=True)
    assert one.uncertainty_N[:3].tolist() == [10, 10, 20]
    assert np.isnan(one.seed_spread_N).all()


def test_a_grade_is_the_median_and_its_spread_is_that_of_the_mean_grade(tmp_path: Path) -> None:
    facts = facts_of("ordinal", tmp_path)
    table = prediction_table(predictions([[[0.2, 0.2, 0.6]], [[0.4, 0.2, 0.4]]]), facts, calibrated=True)
    rows = written(table, tmp_path)
    assert rows[0] == ["predicted", "expected", "p_0", "p_1", "p_2", "entropy", "seed_spread", "reason"]
    assert rows[1][:5] == ["1", "1.20000000", "0.30000000", "0.20000000", "0.50000000"]
    assert table.summary == "grade 0: 0, grade 1: 1, grade 2: 0"
    assert float(rows[1][6]) == pytest.approx(np.std([1.4, 1.0], ddof=1))


def test_entropy_is_0_where_sure_and_1_where_all_are_equally_likely() -> None:
    rows = np.array([[1.0, 0.0, 0.0], [1 / 3] * 3, [0.5, 0.5, 0.0]])
    np.testing.assert_allclose(normalised_entropy(rows), [0, 1, np.log(2) / np.log(3)], atol=1e-12)
    np.testing.assert_allclose(label_entropy(rows[[0, 2]]), [0, 1], atol=1e-12)


def test_what_does_not_fit_the_task_is_refused(tmp_path: Path) -> None:
    labels, number = facts_of("multilabel", tmp_path), facts_of("regression", tmp_path)
    with pytest.raises(ConfigError, match="--unit eye: C predicts multilabel, which is evaluated by image"):
        check_task_options(labels, "C", "eye", "")
    with pytest.raises(ConfigError, match="--heatmaps maps: there are no heat maps of regression, because"):
        check_task_options(number, "C", "image", "maps")
    check_task_options(labels, "C", "image", "maps")
    for damaged in ({"task": {"kind": "survival"}}, {"classes": ["cyst"]}, {"thresholds": {"cyst": {}}}):
        with pytest.raises(WeightsError, match=r"which this version does not know|is damaged"):
            check_task_options(replace(labels, **damaged), "C", "image", "")  # type: ignore[arg-type]
