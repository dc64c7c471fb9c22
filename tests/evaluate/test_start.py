from __future__ import annotations

from pathlib import Path

import pytest

from retfound_dist import commit
from retfound_dist.errors import CheckpointError
from retfound_dist.evaluate.start import identity_of, open_start, run_of
from retfound_dist.schema import EvalModel
from tests.evaluate.inputs import checkpoint

MODEL = EvalModel(name="vit_large_patch16", image_size=224)


def test_none_has_the_config_s_shape_and_a_checkpoint_its_own(tmp_path: Path) -> None:
    none = open_start("none", MODEL)
    assert (none.shape.width, none.image_size, none.weights) == (1024, 224, None)
    held = open_start(checkpoint(tmp_path, 3), MODEL)
    assert (held.shape.width, held.image_size, held.kind) == (192, 28, "checkpoint")


def test_a_run_means_its_newest_committed_checkpoint(tmp_path: Path) -> None:
    checkpoint(tmp_path, 3)
    newest = checkpoint(tmp_path, 9)
    (Path(checkpoint(tmp_path, 12)) / "COMMIT.json").unlink()
    assert commit.resolve(str(tmp_path)) == newest
    assert run_of(newest) == str(tmp_path)


def test_another_checkpoint_at_the_same_url_has_another_identity(tmp_path: Path) -> None:
    one = identity_of(checkpoint(tmp_path / "a", 3, seed=0))
    other = identity_of(checkpoint(tmp_path / "b", 3, seed=1))
    assert one != other


def test_a_folder_without_a_commit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is an empty folder, not a checkpoint"):
        open_start(str(tmp_path), MODEL)
