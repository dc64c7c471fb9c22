"""What the page shows of each kind of classifier: counts, titles, bars, and what its order means."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retfound_dist.config.schema import MULTICLASS
from retfound_dist.evaluate.classifier import classifier_file
from retfound_dist.prediction.page_content import page_image, page_summary
from retfound_dist.prediction.prediction_columns import prediction_table
from tests.export.inputs import make_classifier
from tests.prediction.test_prediction_columns import facts_of, predictions

PIXELS = np.zeros((28, 28), np.uint8)
PREDICTED = {
    "multilabel": [[[0.9, 0.7], [0.1, 0.6], [0.2, 0.3]], [[0.9, 0.7], [0.1, 0.6], [0.2, 0.3]]],
    "regression": [[[-50.0], [70.0], [61.24]], [[-50.0], [70.0], [62.0]]],
    "ordinal": [[[0.7, 0.2, 0.1], [0.1, 0.2, 0.7], [0.4, 0.3, 0.3]]] * 2,
}


@pytest.mark.parametrize(
    ("kind", "titles", "bars", "groups", "counts"),
    [
        ("multilabel", ["cyst, fluid", "fluid", "no label"], ["cyst", "fluid"], ("cyst", "fluid"),
         [[("cyst", 1), ("fluid", 2)], [("0", 1), ("1", 1), ("2", 1)]]),
        ("regression", ["age \u221250", "age 70", "age 61.62"], [], (), None),
        ("ordinal", ["grade 0", "grade 2", "grade 1"], ["0", "1", "2"], ("0",),
         [[("0", 1), ("1", 1), ("2", 1)]]),
    ],
)  # fmt: skip
def test_each_kind_has_its_own_titles_bars_and_counts(
    kind: str, titles: list[str], bars: list[str], groups: tuple[str, ...], counts: object, tmp_path: Path
) -> None:
    facts = facts_of(kind, tmp_path)
    table = prediction_table(predictions(PREDICTED[kind]), facts, calibrated=True)
    images = [page_image(table, row, PIXELS, {}) for row in range(3)]
    assert [image.title for image in images] == titles
    assert [bar.name for bar in images[0].bars] == bars
    assert images[0].groups == groups
    assert (images[0].uncertainty is None) == (kind == "regression")
    summary = page_summary(table, facts, ("scans", "C"), calibrated=True)
    assert (summary.total, summary.skipped) == (3, [("3", "is blank")])
    if counts is not None:
        assert [table.rows for table in summary.tables][: len(counts)] == counts  # type: ignore[arg-type]
    else:
        assert [sum(n for _, n in table.rows) for table in summary.tables] == [3, 3]
    assert "spread" in summary.words.spread
    assert ("not calibrated" in " ".join(summary.sentences)) == (kind != "regression")


def test_one_network_says_nothing_of_the_certainty_of_a_number(tmp_path: Path) -> None:
    facts = facts_of("regression", tmp_path)
    table = prediction_table(predictions(PREDICTED["regression"][:1]), facts, calibrated=True)
    words = page_summary(table, facts, ("scans", "C"), calibrated=True).words
    assert "furthest from the mean" in words.order
    assert words.spread == ""
    assert page_image(table, 0, PIXELS, {}).seed_spread == ""


@pytest.mark.parametrize("calibrated", [True, False])
def test_classes_show_their_scores_their_temperature_and_the_likeliest_classes(
    calibrated: bool, tmp_path: Path
) -> None:
    facts = classifier_file.read(make_classifier(tmp_path / "kept"))
    p_SNC = [[[0.5, 0.3, 0.2]], [[0.7, 0.1, 0.2]]]
    table = prediction_table(predictions(p_SNC), facts, calibrated=calibrated)
    assert table.kind == MULTICLASS
    summary = page_summary(table, facts, ("scans", "C"), calibrated=calibrated)
    text = " ".join(summary.sentences)
    assert "On the 41 test images of its evaluation, the classifier has a mean AUROC of 0.900" in text
    assert "(95 % interval 0.850 to 0.950)" in text
    assert ("temperature 0.70" in text) == calibrated
    assert ("not calibrated" in text) == (not calibrated)
    image = page_image(table, 0, PIXELS, {0: np.eye(2)})
    assert image.title.startswith("CSR, 0.")
    assert [bar.is_predicted for bar in image.bars] == [True, False, False]
    assert [caption for caption, _ in image.maps] == ["evidence for CSR"]


def test_a_classifier_of_eyes_is_said_to_be_scored_on_eyes(tmp_path: Path) -> None:
    table_of = predictions([[[0.5, 0.3, 0.2]]])
    for unit in ("image", "eye"):
        kept = make_classifier(tmp_path / unit, unit={"kind": unit, "pool": "mean"})
        facts = classifier_file.read(kept)
        table = prediction_table(table_of, facts, calibrated=True)
        text = " ".join(page_summary(table, facts, ("scans", "C"), calibrated=True).sentences)
        assert f"On the 41 test {unit}s of its evaluation" in text
        assert f"fitted on the validation {unit}s of the evaluation" in text
        assert ("This page is of single images, but the evaluation has scored eyes" in text) == (
            unit == "eye"
        )
