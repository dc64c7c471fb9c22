"""pictures.json: the worst mistakes, frozen features, reconstructions over a run's course."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from retfound_dist.config.schema import EvalData, EvalModel
from retfound_dist.errors import StorageError
from retfound_dist.evaluate.data.set_loading import load_labelled_set
from retfound_dist.evaluate.data.starting_weights import open_starting_weights
from retfound_dist.evaluate.finetune.worst_mistakes import worst_indices
from retfound_dist.evaluate.pixels.image_encoding import (
    decode_picture,
    encode_picture,
    overlay,
    round_heat_map,
)
from retfound_dist.evaluate.probe.feature_projection import project
from retfound_dist.evaluate.results import evaluation_files, page_images
from retfound_dist.formats import checkpoint_folder
from tests.evaluate.inputs import CLASSES, checkpoint, class_folders
from tests.evaluate.made import evaluated


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last of four checkpoints, evaluated on classes that brightness does not tell."""
    root = tmp_path_factory.mktemp("pictures")
    class_folders(root / "set", shade=0)
    for step in (2, 4, 6):
        checkpoint(root / "run", step)
    return evaluated(root, checkpoint(root / "run", 8))


def test_the_worst_mistakes_are_the_surest_wrong_answers() -> None:
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.7, 0.3], [0.45, 0.55]])
    labels = np.array([0, 0, 0, 1, 1])
    assert worst_indices(labels, p) == [1, 3, 2]
    assert worst_indices(labels, p, max_images=1) == [1]
    assert worst_indices(p.argmax(1), p) == []


def test_mistakes_are_kept_with_maps_and_the_probabilities_of_predictions_csv(done: Path) -> None:
    row = evaluation_files.read(str(done))
    assert row is not None
    held = row.pictures["mistakes"]
    wrong = [i for i in range(len(row.keys)) if row.probabilities_NC[i].argmax() != row.labels_N[i]]
    assert held["wrong"] == len(wrong) > 0
    assert [one["key"] for one in held["images"]] == [
        row.keys[i] for i in worst_indices(row.labels_N, row.probabilities_NC)
    ]
    for one in held["images"]:
        i = row.keys.index(one["key"])
        assert one["label"] == CLASSES[row.labels_N[i]]
        assert list(one["probabilities"].values()) == pytest.approx(row.probabilities_NC[i], abs=1e-3)
        assert one["predicted"] == max(one["probabilities"], key=one["probabilities"].get)
        assert np.shape(one["rollout"]) == np.shape(one["gradient"]) == (2, 2)
        assert decode_picture(one["image"]).shape == (28, 28)


def test_features_have_a_point_for_each_test_image(done: Path) -> None:
    row = evaluation_files.read(str(done))
    assert row is not None
    held = row.pictures["features"]
    assert np.shape(held["points"]) == (len(row.keys), 2)
    assert 1 >= held["explained"][0] >= held["explained"][1] >= 0


def test_two_directions_of_variance_are_found_and_their_shares_told() -> None:
    draw = np.random.default_rng(0)
    hidden = draw.normal(size=(200, 2))
    seen = np.column_stack([hidden[:, 0]] * 5 + [hidden[:, 1]] * 3) * np.array([1, 50, 1, 1, 1, 1, 1, 0.1])
    held = project(seen.astype(np.float32))
    assert held is not None
    assert held["explained"] == pytest.approx([5 / 8, 3 / 8], abs=0.03)
    told = np.corrcoef(np.array(held["points"]).T, hidden.T)
    assert abs(told[0, 2]) > 0.95
    assert abs(told[1, 3]) > 0.95
    assert project(np.ones((5, 4), np.float32)) is None
    assert project(np.ones((2, 4), np.float32)) is None


def test_reconstructions_are_of_the_first_the_middle_and_this_checkpoint(done: Path) -> None:
    held = json.loads((done / "pictures.json").read_text())["reconstructions"]
    assert [column["step"] for column in held["checkpoints"]] == [2, 4, 8]
    assert len({column["reconstruction"][0] for column in held["checkpoints"]}) == 3
    assert held["labels"][:3] == list(CLASSES)
    for column in held["checkpoints"]:
        assert len(column["reconstruction"]) == len(column["difference"]) == page_images.MAX_IMAGES
    kept = decode_picture(held["masked"][0]).astype(int) - decode_picture(held["original"][0])
    blocks = np.abs(kept).reshape(2, 14, 2, 14).mean(axis=(1, 3))
    assert (blocks < 6).sum() == 1, "one patch of four is kept at a mask ratio of 0.75"


def test_a_later_checkpoint_is_not_shown_and_a_damaged_one_is_said(tmp_path: Path) -> None:
    for step in (2, 4, 6, 8):
        checkpoint(tmp_path / "run", step)
    start = open_starting_weights(checkpoint_folder.checkpoint_url(str(tmp_path / "run"), 6), EvalModel())
    assert page_images.earlier_steps(start) == [2, 4]
    first = open_starting_weights(checkpoint_folder.checkpoint_url(str(tmp_path / "run"), 2), EvalModel())
    assert page_images.earlier_steps(first) == []
    (tmp_path / "run/checkpoints/step_00000004/model.safetensors").write_bytes(b"cut")
    data = load_labelled_set(EvalData(path=str(class_folders(tmp_path / "set")), workers=0), start.image_size)
    said: list[str] = []
    held = page_images.reconstructions(start, data, said.append)
    assert held is not None
    assert [column["step"] for column in held["checkpoints"]] == [2, 6]
    assert "step 4" in said[0]
    assert "differs from its commit" in said[0]


def test_the_overlay_is_hot_where_the_map_is_and_leaves_the_rest() -> None:
    grey = np.full((28, 28), 100, np.uint8)
    heat = np.zeros((2, 2))
    heat[0, 1] = 3.0
    shown = overlay(grey, round_heat_map(heat))
    assert shown.shape == (28, 28, 3)
    hot, cold = shown[3, 24].astype(int), shown[24, 3].astype(int)
    assert hot[0] - hot[2] > 60, "yellow"
    assert np.abs(cold - 100).max() < 12
    assert (overlay(grey, round_heat_map(np.ones((2, 2)))) == 100).all()


def test_a_picture_comes_back_nearly_as_it_was() -> None:
    ramp = np.tile(np.arange(0, 224, dtype=np.uint8), (224, 1))
    text = encode_picture(ramp)
    assert np.abs(decode_picture(text).astype(int) - ramp).mean() < 3
    assert len(text) < 20_000


@pytest.mark.slow
def test_a_disk_that_fills_up_is_one_line_and_the_next_try_is_whole(tmp_path: Path, small_disk: Path) -> None:
    """Room for predictions.csv, not for the page: what is there does not count as an evaluation."""
    class_folders(tmp_path / "set", each=5)
    out = small_disk / "out"
    settings = (f"out.url={out}", "finetune.epochs=1", "finetune.keep=false")
    evaluated(tmp_path, "none", *settings)
    assert evaluation_files.read(str(out)) is not None
    (out / "report.html").unlink()
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    (small_disk / "ballast").write_bytes(bytes(free - 80_000))
    with pytest.raises(StorageError) as caught:
        evaluated(tmp_path, "none", *settings, "seeds=[1]", force=True)
    assert len(str(caught.value).splitlines()) == 1
    assert "No space left" in str(caught.value)
    assert caught.value.exit_code == 2
    assert evaluation_files.read(str(out)) is None
    assert not (out / "report.html").exists()
    (small_disk / "ballast").unlink()
    evaluated(tmp_path, "none", *settings, "seeds=[1]", force=True)
    assert evaluation_files.read(str(out)) is not None
    assert "</html>" in (out / "report.html").read_text()
