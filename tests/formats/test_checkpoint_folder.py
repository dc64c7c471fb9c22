from dataclasses import replace
from pathlib import Path

import pytest

from retfound_dist.errors import CheckpointError, FormatError
from retfound_dist.formats import checkpoint_folder
from retfound_dist.formats.checkpoint_folder import Commit
from retfound_dist.io import storage
from tests.hostile_names import HOSTILE


def make(run: str, step: int) -> Commit:
    url = checkpoint_folder.checkpoint_url(run, step)
    storage.write_bytes(storage.join(url, "state/part"), b"abc")
    held = Commit(
        url=url, step=step, samples=step * 8, world_size=2, zero_stage=1, precision="fp32", batch_digest="00",
        time="2026-01-01T00:00:00+00:00", config={"a": 1}, files={"state/part": storage.bytes_info(b"abc")},
    )  # fmt: skip
    checkpoint_folder.write_commit(held)
    return held


@pytest.mark.parametrize("base", ["disk", "memory://commits"])
def test_a_commit_reads_back_as_written(base: str, tmp_path: Path) -> None:
    run = str(tmp_path) if base == "disk" else base
    held = make(run, 100)
    assert held.url.endswith("checkpoints/step_00000100")
    assert checkpoint_folder.read_commit(held.url) == held


def test_what_a_newer_version_writes_beside_is_passed_over_and_what_is_missing_is_named(
    tmp_path: Path,
) -> None:
    held = make(str(tmp_path), 100)
    where = storage.join(held.url, checkpoint_folder.COMMIT)
    tree = storage.read_json(where)
    storage.write_json(where, {**tree, "of_the_future": {"a": 1}})
    assert checkpoint_folder.read_commit(held.url) == held
    del tree["step"]
    storage.write_json(where, tree)
    with pytest.raises(CheckpointError, match=r"damaged: .*step is missing"):
        checkpoint_folder.read_commit(held.url)


def test_a_folder_without_commit_does_not_exist_for_readers(tmp_path: Path) -> None:
    make(str(tmp_path), 2)
    make(str(tmp_path), 10)
    storage.write_bytes(
        storage.join(checkpoint_folder.checkpoint_url(str(tmp_path), 12), "state/part"), b"abc"
    )
    assert checkpoint_folder.list_steps(str(tmp_path)) == [2, 10]
    assert checkpoint_folder.list_steps(str(tmp_path / "none")) == []
    with pytest.raises(CheckpointError, match="not a committed checkpoint"):
        checkpoint_folder.read_commit(checkpoint_folder.checkpoint_url(str(tmp_path), 12))


def make_later(run: str, step: int, generation: int) -> Commit:
    """A checkpoint of a start that did not go on from the newest one of its time."""
    held = replace(make(run, step), generation=generation)
    checkpoint_folder.write_commit(held)
    return held


@pytest.mark.parametrize("base", ["disk", "memory://went-back"])
def test_of_a_run_that_went_back_the_newest_checkpoint_is_what_was_saved_since(
    base: str, tmp_path: Path
) -> None:
    run = str(tmp_path) if base == "disk" else base
    for step in (2, 4, 8):
        make(run, step)
    assert checkpoint_folder.resolve(run) == checkpoint_folder.checkpoint_url(run, 8)
    for step, generation in ((5, 1), (6, 1), (2, 2)):  # back to step 4, then to the beginning
        held = make_later(run, step, generation)
        assert checkpoint_folder.resolve(run) == held.url
        assert checkpoint_folder.newest(run) == held
    assert [each.step for each in checkpoint_folder.list_commits(run)] == [4, 8, 5, 6, 2]


def test_a_damaged_commit_beyond_the_newest_is_not_passed_over_without_a_word(tmp_path: Path) -> None:
    run = str(tmp_path)
    make(run, 4)
    make(run, 8)
    for step in (5, 6):
        held = make_later(run, step, 1)
    storage.write_text(storage.join(held.url, checkpoint_folder.COMMIT), "[]")
    storage.write_text(storage.join(checkpoint_folder.checkpoint_url(run, 4), checkpoint_folder.COMMIT), "[]")
    found = checkpoint_folder.list_commits(run)
    assert [each.step for each in found] == [8, 4, 5, 6]
    assert "damaged" in str(found[-1].fault)
    assert checkpoint_folder.resolve(run) == held.url  # whoever reads it says what is wrong
    known = checkpoint_folder.newest(run)
    assert known is not None
    assert known.step == 5
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint_folder.list_commits(run, ())


def test_a_file_that_differs_from_its_commit_is_refused(tmp_path: Path) -> None:
    held = make(str(tmp_path), 1)
    checkpoint_folder.fetch(held, "state/part", str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == b"abc"
    storage.write_bytes(storage.join(held.url, "state/part"), b"abd")
    with pytest.raises(CheckpointError, match="differs from its commit"):
        checkpoint_folder.fetch(held, "state/part", str(tmp_path / "copy2"))
    with pytest.raises(CheckpointError, match="has no other"):
        checkpoint_folder.fetch(held, "other", str(tmp_path / "copy3"))


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    held = make(str(tmp_path), 1)
    tree = storage.read_json(storage.join(held.url, checkpoint_folder.COMMIT))
    storage.write_json(storage.join(held.url, checkpoint_folder.COMMIT), {**tree, "format": 2})
    with pytest.raises(FormatError, match="has format 2, this version reads format 1"):
        checkpoint_folder.read_commit(held.url)


@pytest.mark.parametrize("name", [n for n in HOSTILE if isinstance(n, str) and n != "sub/a.tar"])
def test_a_commit_whose_file_leads_elsewhere_is_refused_before_any_use(tmp_path: Path, name: str) -> None:
    held = make(str(tmp_path), 1)
    where = storage.join(held.url, checkpoint_folder.COMMIT)
    tree = storage.read_json(where)
    tree["files"][name] = tree["files"]["state/part"]
    storage.write_json(where, tree)
    with pytest.raises(CheckpointError) as caught:
        checkpoint_folder.read_commit(held.url)
    assert "\n" not in str(caught.value)
