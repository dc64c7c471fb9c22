"""Strips of reconstructions: kept in the run, drawn once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retfound_dist.config.loading import to_dict
from retfound_dist.config.schema import Data, PretrainConfig, Run, Train
from retfound_dist.formats import checkpoint_folder, run_folder
from retfound_dist.runs.reconstructions import FOLDER, IMAGES, draw_pictures, evenly_spread, saved_pictures
from retfound_dist.runs.run_facts import RunFacts, read_run
from tests.evaluate.inputs import MODEL, checkpoint
from tests.stream.stream_inputs import make_set


def test_pictures_are_of_the_first_the_last_and_some_between() -> None:
    assert evenly_spread([10, 20]) == [10, 20]
    assert evenly_spread(list(range(1, 101)), 5)[0] == 1
    assert evenly_spread(list(range(1, 101)), 5)[-1] == 100
    assert len(evenly_spread(list(range(1, 101)), 5)) == 5


@pytest.fixture
def run(tmp_path: Path) -> RunFacts:
    """A run of two committed checkpoints of a tiny model, and its shards."""
    shards = make_set(tmp_path / "shards").url
    for step in (10, 20):
        checkpoint(tmp_path / "run", step)
    config = PretrainConfig(
        run=Run(url=str(tmp_path / "run")), data=Data(shards=shards), train=Train(steps=20), model=MODEL
    )
    run_folder.write_config(config.run.url, to_dict(config))
    return read_run(config.run.url)


def pixels(run: RunFacts, name: str) -> np.ndarray:
    """A strip's grey values."""
    return np.asarray(Image.open(Path(run.url) / FOLDER / f"{name}.png").convert("L")).astype(int)


def test_every_checkpoint_fills_in_the_same_images_with_the_same_masks(run: RunFacts) -> None:
    said: list[str] = []
    pictures = draw_pictures(run, said.append)
    assert said == []
    assert pictures is not None
    assert [name for name, _ in pictures.rows] == [
        "original",
        "removed patches in grey",
        "step 10",
        "step 20",
    ]
    assert all(uri.startswith("data:image/png;base64,") for _, uri in pictures.rows)
    original, masked, first, second = (
        pixels(run, name) for name in ("original", "masked", "step_00000010", "step_00000020")
    )
    side, gap = MODEL.image_size, 4
    assert original.shape == masked.shape == first.shape == (side, IMAGES * side + (IMAGES - 1) * gap)
    kept = (masked == original)[:, :side].reshape(2, 14, 2, 14).mean(axis=(1, 3)) > 0.9
    assert kept.sum() == 1, "one patch of four is kept at a mask ratio of 0.75"
    whole = np.kron(kept, np.ones((14, 14))).astype(bool)
    for filled in (first, second):
        assert (filled[:, :side][whole] == original[:, :side][whole]).all()
    assert (first != second).any()


def test_what_was_drawn_is_not_drawn_again_and_is_shown_when_the_weights_are_gone(run: RunFacts) -> None:
    assert saved_pictures(run) is None
    drawn = draw_pictures(run, print)
    stamps = {path: path.stat().st_mtime_ns for path in (Path(run.url) / FOLDER).iterdir()}
    assert draw_pictures(run, print) == drawn
    (Path(run.url) / FOLDER / "step_00000010.png").unlink()
    assert draw_pictures(run, print) == drawn
    again = {path: path.stat().st_mtime_ns for path in (Path(run.url) / FOLDER).iterdir()}
    assert {path.name for path in stamps if again[path] != stamps[path]} == {"step_00000010.png"}
    (Path(run.url) / FOLDER / "step_00000010.png").unlink()
    (Path(run.url) / "checkpoints" / "step_00000010" / checkpoint_folder.WEIGHTS).unlink()
    said: list[str] = []
    left = draw_pictures(run, said.append)
    assert left is not None
    assert [name for name, _ in left.rows] == ["original", "removed patches in grey", "step 20"]
    assert said[0].startswith(f"cannot draw reconstructions of {run.url}: ")
    assert {
        path: path.stat().st_mtime_ns for path in (Path(run.url) / FOLDER).iterdir()
    }.items() <= stamps.items()
