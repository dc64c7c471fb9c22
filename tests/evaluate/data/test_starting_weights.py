from __future__ import annotations

import io
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from retfound_dist.config.schema import EvalModel
from retfound_dist.errors import CheckpointError, WeightsError
from retfound_dist.evaluate.data.starting_weights import open_starting_weights, run_url
from retfound_dist.formats import checkpoint_folder
from retfound_dist.formats.content_identity import IdentityCache
from retfound_dist.io import storage
from retfound_dist.io.stores import local_disk
from retfound_dist.model.backbones import opening
from retfound_dist.model.mae import MaskedAutoencoder
from tests.evaluate.inputs import MODEL as TINY_MODEL
from tests.evaluate.inputs import checkpoint

MODEL = EvalModel(name="vit_large_patch16", image_size="own")


def test_none_has_the_config_s_shape_and_a_checkpoint_its_own(tmp_path: Path) -> None:
    none = open_starting_weights("none", MODEL)
    assert (none.backbone.facts.width, none.image_size, none.weights) == (1024, 224, None)
    held = open_starting_weights(checkpoint(tmp_path, 3), MODEL)
    assert (held.backbone.facts.width, held.image_size, held.kind) == (192, 28, "checkpoint")


def test_a_run_means_its_newest_committed_checkpoint(tmp_path: Path) -> None:
    checkpoint(tmp_path, 3)
    newest = checkpoint(tmp_path, 9)
    (Path(checkpoint(tmp_path, 12)) / "COMMIT.json").unlink()
    assert checkpoint_folder.resolve(str(tmp_path)) == newest
    assert run_url(newest) == str(tmp_path)


def test_another_checkpoint_at_the_same_url_has_another_identity(tmp_path: Path) -> None:
    one = open_starting_weights(checkpoint(tmp_path / "a", 3, seed=0), MODEL)
    other = open_starting_weights(checkpoint(tmp_path / "b", 3, seed=1), MODEL)
    assert one.identity != other.identity


def file_of(seed: int, url: str) -> str:
    """A .pth of a tiny encoder; of every seed with as many bytes."""
    torch.manual_seed(seed)
    buffer = io.BytesIO()
    torch.save({"model": MaskedAutoencoder(TINY_MODEL).state_dict()}, buffer)
    storage.write_bytes(url, buffer.getvalue())
    return url


def test_the_same_weights_anywhere_are_the_same_and_others_of_their_size_at_their_url_are_not(
    tmp_path: Path,
) -> None:
    one = open_starting_weights(file_of(0, "memory://start/w.pth"), MODEL)
    size = storage.size("memory://start/w.pth")
    assert open_starting_weights(file_of(0, str(tmp_path / "copy.pth")), MODEL).identity == one.identity
    other = open_starting_weights(file_of(1, "memory://start/w.pth"), MODEL)
    assert storage.size("memory://start/w.pth") == size
    assert other.identity != one.identity
    assert one.identity == storage.file_info(str(tmp_path / "copy.pth")).sha256


def test_a_checkpoint_whose_training_state_was_removed_is_the_same(tmp_path: Path) -> None:
    url = checkpoint(tmp_path, 3)
    before = open_starting_weights(url, MODEL).identity
    checkpoint_folder.write_commit(replace(checkpoint_folder.read_commit(url), time="later"))
    assert (
        open_starting_weights(url, MODEL).identity
        == before
        == storage.file_info(f"{url}/{checkpoint_folder.WEIGHTS}").sha256
    )


def test_weights_that_are_remembered_are_read_when_they_are_needed_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    real = opening.read_tensor_file
    monkeypatch.setattr(opening, "read_tensor_file", lambda url: reads.append(url) or real(url))
    monkeypatch.setattr(local_disk, "STABLE_AFTER_S", 0.0)
    path, where = file_of(0, str(tmp_path / "w.pth")), str(tmp_path / "weights.json")
    first = open_starting_weights(path, MODEL, IdentityCache(where))
    again = open_starting_weights(path, MODEL, IdentityCache(where))
    assert reads == [path]
    assert again.describe() == first.describe()
    assert again.weights is not None
    assert again.weights.sha256 == first.identity
    assert reads == [path, path]
    time.sleep(0.02)
    file_of(1, path)
    late = open_starting_weights(path, MODEL, IdentityCache(where))
    assert late.identity != first.identity
    assert len(reads) == 3
    remembered = open_starting_weights(path, MODEL, IdentityCache(where))
    time.sleep(0.02)
    file_of(2, path)
    with pytest.raises(WeightsError, match="has changed since it was first read"):
        _ = remembered.weights


def test_a_folder_without_a_commit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is an empty folder, not a checkpoint"):
        open_starting_weights(str(tmp_path), MODEL)
