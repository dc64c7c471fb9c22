"""A checkpoint's probe as files: whole or not there, and made once."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from retfound_dist.config.schema import EvalData, EvalModel, Probe
from retfound_dist.errors import DataError, RecordError
from retfound_dist.evaluate.data.labelled_set import LabelledSet
from retfound_dist.evaluate.data.set_loading import load_labelled_set
from retfound_dist.evaluate.data.starting_weights import StartingWeights, open_starting_weights
from retfound_dist.evaluate.watching import probe_results
from retfound_dist.evaluate.watching.probe_results import PARTS, development_set, probe_checkpoint, read
from retfound_dist.runtime.progress import ProgressDisplay
from tests.evaluate.inputs import CLASSES, class_folders, list_patients

RESAMPLES = 20
FAST = Probe(kinds=("linear", "knn"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> LabelledSet:
    root = class_folders(tmp_path_factory.mktemp("probe") / "set")
    list_patients(root)
    return load_labelled_set(EvalData(path=str(root), workers=0), 28)


@pytest.fixture(scope="module")
def start() -> StartingWeights:
    return open_starting_weights("none", EvalModel(name="vit_demo_patch14", image_size=28))


def probe(
    start: StartingWeights,
    data: LabelledSet,
    folder: Path,
    settings: Probe | None = None,
    resamples: int = RESAMPLES,
) -> probe_results.ProbeResult:
    """The probe in a folder, made unless it is there."""
    with ProgressDisplay(quiet=True) as show:
        return probe_checkpoint(start, data, settings or FAST, resamples, str(folder), show)


def test_a_probe_reads_back_as_it_was_made_and_holds_every_image_but_those_for_testing(
    start: StartingWeights, data: LabelledSet, tmp_path: Path
) -> None:
    made = probe(start, data, tmp_path)
    held = read(str(tmp_path))
    assert held is not None
    assert held.tree == json.loads(json.dumps(made.tree))
    rows = list(csv.DictReader((tmp_path / probe_results.PREDICTIONS).open()))
    assert [row["key"] for row in rows] == [key for name in PARTS for key in data.parts[name].keys]
    for method, p_NC in made.probabilities.items():
        assert (held.probabilities[method] == p_NC).all()
        assert p_NC.shape == (len(rows), len(CLASSES))
        assert np.allclose(p_NC.sum(1), 1, atol=1e-6)


def test_a_probe_is_made_again_only_of_other_settings_resamples_or_features(
    start: StartingWeights, data: LabelledSet, tmp_path: Path
) -> None:
    def stamp() -> int:
        return (tmp_path / probe_results.PROBE).stat().st_mtime_ns

    probe(start, data, tmp_path)
    first = stamp()
    probe(start, data, tmp_path)
    assert stamp() == first
    probe(start, data, tmp_path, resamples=RESAMPLES + 1)
    second = stamp()
    assert second != first
    probe(start, data, tmp_path, dataclasses.replace(FAST, folds=3), RESAMPLES + 1)
    third = stamp()
    assert third != second
    file = tmp_path / probe_results.PROBE
    file.write_text(file.read_text().replace('"features_version": 2', '"features_version": 1'))
    probe(start, data, tmp_path, dataclasses.replace(FAST, folds=3), RESAMPLES + 1)
    assert json.loads(file.read_text())["features_version"] == 2


@pytest.mark.parametrize("cut", ["no lines", "a line", "a number"])
def test_a_probe_whose_predictions_are_damaged_is_an_error_and_made_again(
    cut: str, start: StartingWeights, data: LabelledSet, tmp_path: Path
) -> None:
    probe(start, data, tmp_path)
    file = tmp_path / probe_results.PREDICTIONS
    good = file.read_text()
    lines = good.splitlines(keepends=True)
    file.write_text(
        {"no lines": lines[0], "a line": "".join(lines[:-1]), "a number": good.replace(",0.", ",x", 1)}[cut]
    )
    with pytest.raises(RecordError, match=r"probe_predictions\.csv is damaged .*the probe is made again"):
        read(str(tmp_path))
    probe(start, data, tmp_path)
    assert file.read_text() == good


def test_without_probe_json_there_is_no_probe(
    start: StartingWeights, data: LabelledSet, tmp_path: Path
) -> None:
    probe(start, data, tmp_path)
    (tmp_path / probe_results.PROBE).unlink()
    assert read(str(tmp_path)) is None


def test_images_that_cannot_be_cross_validated_are_refused_with_their_number(data: LabelledSet) -> None:
    assert development_set(data).unit == "patient"
    one_class = {
        name: dataclasses.replace(part, labels=np.zeros_like(part.labels))
        for name, part in data.parts.items()
    }
    images = sum(len(data.parts[name]) for name in PARTS)
    with pytest.raises(DataError, match=rf"{images} images of \d+ patients in 1 classes"):
        development_set(dataclasses.replace(data, parts=one_class))
