"""An evaluation says what a clinic asks: of its test part, of an external set, and in its classifier."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from retfound_dist.cli import main
from retfound_dist.evaluate.scores.temperature import scale_by_temperature
from tests.evaluate.inputs import CLASSES, TINY, class_folders, write_listing

SETTINGS = [
    "data.subgroups=['sex', 'age:0-50,50+']",
    "clinical.prevalence={CSR = 0.02}",
    "external.class_map={CSR = 'CSR', NORMAL = 'NORMAL'}",
    "finetune.epochs=1",
    "probe.enabled=false",
    "seeds=[0, 1]",
]


def listed(root: Path, each: int, seed: int = 0) -> Path:
    """Class folders with a list of patients, sexes and ages; the age of some is not known."""
    class_folders(root, each=each, seed=seed)
    rows = [
        {
            "file": f"{c}/{c}_{i}.jpg",
            "label": c,
            "patient": f"{c}{i}",
            "sex": "FM"[i % 2],
            "age": str(30 + i) if i % 7 else "n/a",
        }
        for c in CLASSES
        for i in range(each)
    ]
    write_listing(root, rows)
    return root


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation with two seeds, subgroups and an external set."""
    root = tmp_path_factory.mktemp("clinic")
    data, external = listed(root / "set", 60), listed(root / "other", 12, seed=1000)
    config = root / "evaluate.toml"
    config.write_text(
        f'checkpoint = "none"\n[data]\npath = "{data}"\n[external]\npath = "{external}"\n'
        f'[out]\nurl = "{root / "out"}"\n'
    )
    assert main(["evaluate", str(config), *TINY, *SETTINGS, "--quiet"]) == 0
    return root / "out"


def predictions(done: Path, name: str) -> tuple[list[str], np.ndarray]:
    """Labels and probabilities of a CSV file."""
    rows = list(csv.DictReader((done / name).open()))
    columns = [column for column in rows[0] if column.startswith("p_")]
    return [row["label"] for row in rows], np.array([[float(row[c]) for c in columns] for row in rows])


def test_operating_points_follow_from_the_files(done: Path) -> None:
    tree = json.loads((done / "metrics.json").read_text())
    labels, p_NC = predictions(done, "predictions.csv")
    scaled_NC = scale_by_temperature(p_NC, tree["temperature"]["value"]).round(8)
    assert list(tree["clinical"]["questions"]) == list(CLASSES)
    for place, (name, question) in enumerate(tree["clinical"]["questions"].items()):
        truth = np.array(labels) == name
        for point in question["operating_points"]:
            called = scaled_NC[:, place] >= point["threshold"]
            assert point["test"]["sensitivity"] == pytest.approx(called[truth].mean())
            assert point["test"]["specificity"] == pytest.approx((~called[~truth]).mean())
            assert ("at_prevalence" in point["test"]) == (name == "CSR")


def test_the_classifier_keeps_the_thresholds(done: Path) -> None:
    tree = json.loads((done / "metrics.json").read_text())
    kept = json.loads((done / "classifier/classifier.json").read_text())["thresholds"]
    assert list(kept) == list(CLASSES)
    for name, question in kept.items():
        points = tree["clinical"]["questions"][name]["operating_points"]
        assert [p["threshold"] for p in question["points"]] == [p["threshold"] for p in points]


def test_every_test_image_is_in_one_group_of_each_column(done: Path) -> None:
    tree = json.loads((done / "metrics.json").read_text())
    for part, images in ((tree, tree["split"]["test"]), (tree["external"], tree["external"]["images"])):
        columns = part["subgroups"]["columns"]
        assert list(columns["sex"]["groups"]) == ["F", "M"]
        assert list(columns["age"]["groups"]) == ["0-50", "50+", "unknown"][: len(columns["age"]["groups"])]
        for column in columns.values():
            assert sum(group["images"] for group in column["groups"].values()) == images


def test_thresholds_for_an_external_set_come_from_val_images_of_its_classes(done: Path) -> None:
    tree = json.loads((done / "metrics.json").read_text())
    labels, p_NM = predictions(done, "val_predictions.csv")
    of_two = np.isin(labels, ["CSR", "NORMAL"])
    two_NM = p_NM[of_two][:, [0, 2]]
    two_NM = (two_NM / two_NM.sum(1, keepdims=True)).round(8)
    scaled_NM = scale_by_temperature(two_NM, tree["temperature"]["value"]).round(8)
    question = tree["external"]["clinical"]["questions"]["CSR"]
    truth = np.array(labels)[of_two] == "CSR"
    for point in question["operating_points"]:
        assert point["val"]["positives"] == truth.sum()
        assert point["threshold"] in scaled_NM[:, 0]
        assert point["val"]["sensitivity"] == pytest.approx(
            (scaled_NM[truth, 0] >= point["threshold"]).mean()
        )
    assert list(tree["external"]["clinical"]["questions"]) == ["CSR", "NORMAL"]


@pytest.mark.parametrize("name", ["set", "other"])
def test_old_subgroups_are_not_shown_for_a_changed_list_where_they_cannot_be_scored_again(
    done: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The predictions of each seed for an external set are not kept, so its subgroups stay as they are."""
    manifest = done.parent / name / "manifest.csv"
    listed_before, again = manifest.read_text(), ["evaluate", str(done.parent / "evaluate.toml"), *TINY]
    assert main([*again, *SETTINGS, "--quiet"]) == 0
    manifest.write_text(listed_before.replace(",F,", ",M,", 40))
    assert main([*again, *SETTINGS, "--quiet"]) == 2
    manifest.write_text(listed_before)
    error = capsys.readouterr().err
    assert f"the images of {manifest.parent} are in other subgroups now" in error
    assert error.count("\n") == 1


def test_an_unknown_class_is_refused_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "evaluate.toml"
    data = class_folders(tmp_path / "set")
    config.write_text(f'checkpoint = "none"\n[data]\npath = "{data}"\n[out]\nurl = "{tmp_path / "out"}"\n')
    assert main(["evaluate", str(config), *TINY, "clinical.positive=['AMD']", "--quiet"]) == 2
    error = capsys.readouterr().err
    assert "clinical.positive names AMD, but the labelled set has no such class" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
